"""Weights files as people have them: .pt with dictionaries in dictionaries, prefixes before the names, .safetensors."""

import io
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from model_compression.core.errors import FileFormatError, NotThereError, UsageError, shown
from model_compression.core.files import user_path
from model_compression.core.safe_pickle import check_torch_file

Tensors = dict[str, Tensor]

_COMPILED = "_orig_mod."  # what torch.compile puts before the names of a module, at any depth
_DEPTH = 4  # of dictionaries in dictionaries


def own_tensors(source: str | Path, expected: Mapping[str, Tensor]) -> Tensors:
    """The tensors of the file ``source`` that are for a network whose state is ``expected``, under its names.

    The file may hold dictionaries in dictionaries, as {"epoch": …, "state_dict": {…}}: the one whose names and shapes
    fit is taken. Wrappers put a prefix before all names, as "module." or "model."; it is removed, or added where the
    network has it and the file has not. Of a file of several networks, as "student.…" and "teacher.…", the one that
    fits is taken. FILE#KEY names it, where several fit. What fits best is returned when none does, so that an error
    can say what is wrong with it.

    Raises FileFormatError for a file that cannot be read or holds no tensors, UsageError when several fit.
    """
    path, key = find_own_weights(source)
    sets = dict(_dictionaries(_read(path), ""))
    found = {place: _renamed(tensors, expected) for place, tensors in sets.items()}
    if not found:
        raise FileFormatError(f"{path} holds no dictionary of tensors; save one with torch.save(model.state_dict(), …)")
    parts = {
        place: _renamed(part, expected) for whole, tensors in sets.items() for place, part in _parts(tensors, whole)
    }
    if key:
        if key not in {**parts, **found}:
            raise UsageError(f"{path} has no tensors under {key!r}; expected one of {_listed({**found, **parts})}")
        return {**parts, **found}[key]
    fitting = {place: tensors for place, tensors in found.items() if _misfits(tensors, expected) == 0}
    if not fitting:
        fitting = {place: tensors for place, tensors in parts.items() if _misfits(tensors, expected) == 0}
    if len(fitting) > 1 and not _are_equal(list(fitting.values())):
        first = next(iter(fitting))
        raise UsageError(
            f"{path} holds several sets of weights that fit: {_listed(fitting)}; name one, as {path}#{first}"
        )
    return min((fitting or found).values(), key=lambda tensors: _distance(tensors, expected))


def find_own_weights(source: str | Path) -> tuple[Path, str]:
    """FILE and KEY of FILE#KEY. Raises FileFormatError when there is no such file."""
    path, key = user_path(source), ""
    if not path.exists() and "#" in path.name:
        name, _, key = path.name.rpartition("#")
        if not name:
            raise UsageError(f"{shown(str(source))} names no file before its #; expected FILE#KEY")
        path = path.with_name(name)
    if not path.exists():
        raise NotThereError(f"{path} is not there; expected a weights file")
    if not path.is_file():
        raise FileFormatError(f"{path} is a folder; expected a weights file")
    return path, key


def _read(path: Path) -> Any:
    """What the file holds, by PyTorch's own unpickler, which builds tensors and plain values alone."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files of another kind, which are refused below
            content = path.read_bytes()  # once: what is checked is what is loaded
            check_torch_file(content, path)
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except FileFormatError:
        raise
    except UnpicklingError as error:  # its text advises to unpickle all the same
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked.group(1)}" if asked else "its pickle is of another kind"
        raise FileFormatError(
            f"{path} holds more than tensors and plain values, and is not read: {reason}; save the weights alone, "
            "where you trust the file, with torch.save(model.state_dict(), …)"
        ) from error
    except Exception as error:  # a damaged file fails in any way, as struct.error and AssertionError
        kind = "a TorchScript archive" if "TorchScript" in str(error) else f"damaged ({type(error).__name__})"
        raise FileFormatError(
            f"{path} is no readable weights file: it is {kind}; expected one of torch.save"
        ) from error


def _dictionaries(value: Any, place: str, depth: int = 0) -> Iterator[tuple[str, Tensors]]:
    """Every dictionary in ``value`` that names tensors, with its place as "a.b"; what else it holds is left out."""
    if not isinstance(value, Mapping) or depth > _DEPTH:
        return
    tensors = {str(key): entry for key, entry in value.items() if isinstance(entry, Tensor) and _is_plain(entry)}
    if tensors and all(isinstance(key, str) for key in value):
        yield place, tensors
    for key, entry in value.items():
        yield from _dictionaries(entry, f"{place}.{key}" if place else str(key), depth + 1)


def _is_plain(tensor: Tensor) -> bool:
    """Whether it has its numbers, one by one: sparse, meta and 8-bit floating-point tensors do not serve as weights."""
    return tensor.layout == torch.strided and not tensor.is_meta and not str(tensor.dtype).startswith("torch.float8")


def _parts(tensors: Tensors, whole: str) -> Iterator[tuple[str, Tensors]]:
    """The networks in a set of several, by what their names begin with, as "student" of "student.conv.weight"."""
    beginnings = dict.fromkeys(name.partition(".")[0] for name in tensors if "." in name)
    for beginning in beginnings if len(beginnings) > 1 else ():
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{beginning}.")}
        yield f"{whole}.{beginning}" if whole else beginning, own


def _renamed(tensors: Tensors, expected: Mapping[str, Tensor]) -> Tensors:
    """``tensors`` under the names of ``expected``, as far as a prefix of all names makes the difference.

    With the counters of normalisations that old files lack.
    """
    names = [name for name in tensors if name != "n_averaged"]  # AveragedModel's own, beside the prefixed names
    named = {name: name.replace(_COMPILED, "") for name in names}
    own, wanted = _common_prefixes(named.values()), _common_prefixes(expected)
    changes = [(prefix, "") for prefix in own] + [("", prefix) for prefix in wanted]
    candidates = [tensors, {named[name]: tensors[name] for name in names}]
    for less, more in changes:
        candidates.append({more + named[name].removeprefix(less): tensors[name] for name in names})
    tensors = min(candidates, key=lambda one: _distance(one, expected))
    counters = [name for name in expected if name.endswith(".num_batches_tracked") and name not in tensors]
    lacking = [name for name in counters if name.replace("num_batches_tracked", "running_mean") in tensors]
    return {**tensors, **{name: expected[name] for name in lacking}}


def _common_prefixes(names: Iterable[str]) -> list[str]:
    """What all names begin with, up to each dot: "module.", "module.model."; nothing for fewer than two names."""
    names = list(names)
    if len(names) < 2:
        return []
    layers = [name.split(".")[:-1] for name in names]
    shared = list(itertools.takewhile(lambda level: len(set(level)) == 1, zip(*layers, strict=False)))
    return ["".join(f"{level[0]}." for level in shared[: count + 1]) for count in range(len(shared))]


def _misfits(tensors: Tensors, expected: Mapping[str, Tensor]) -> int:
    """How many names are missing, unknown or of another shape."""
    wrong = sum(name in tensors and tensors[name].shape != tensor.shape for name, tensor in expected.items())
    return len(expected.keys() ^ tensors.keys()) + wrong


def _distance(tensors: Tensors, expected: Mapping[str, Tensor]) -> tuple[int, int]:
    """Orders sets by how many names they share with ``expected``, then by what is wrong; that share none, by size."""
    shared = len(expected.keys() & tensors.keys())
    return -shared, _misfits(tensors, expected) if shared else -len(tensors)


def _are_equal(sets: list[Tensors]) -> bool:
    return all(torch.equal(tensor, other[name]) for other in sets[1:] for name, tensor in sets[0].items())


def _listed(places: Mapping[str, Tensors]) -> str:
    names = [repr(place) for place in places]
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") or "none"
