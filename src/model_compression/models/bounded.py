"""What a builder may allocate: for a file no more than its tensors can fill, for other names what memory is free."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils._pytree import tree_leaves, tree_map_only

from model_compression.core.errors import FileFormatError, ModelCompressionError, UsageError, shown
from model_compression.core.free_memory import available_memory_bytes

_TIMES = 8  # float32 for half precision is twice the file; the rest is for what initialisations compute with
_ALWAYS = 128 * 2**20  # bytes
_TENSORS = (
    10_000  # made in all, of small files; in a large one a tensor for every few bytes, as its name alone takes 60
)
_TENSORS_OF_ANY = 100_000  # of a network that no file bounds; the largest published ones have some thousands
_BYTES_OF_ONE = 4
_WEIGHTS = (".safetensors", ".bin")  # of transformers' folders
_LARGEST_OPTION = 100_000  # of small files; in a large one an option, as a width, is an eighth of its bytes at most


@contextmanager
def bounded_by(path: Path, options: Mapping[str, Any]) -> Iterator[None]:
    """Inside, tensors of some times the size of what ``path`` holds can be made in all, as by a builder that it names.

    ``path`` is a file of weights, or a folder with such files beside what describes the network. The number of tensors
    is bounded too: a hundred thousand layers of a single weight take hours and little memory.

    Raises FileFormatError at the tensor that is too much, before it has memory, and for a number in ``options`` that no
    network in a file of that size has: loops and lists may be of its length.
    """
    largest = max((abs(leaf) for leaf in tree_leaves(dict(options)) if isinstance(leaf, int)), default=0)
    size = _bytes_held(path)
    fault = FileFormatError(
        f"{path} describes a network far larger than its {size:,} bytes hold; it is damaged, or made to take all memory"
    )
    if largest > max(_LARGEST_OPTION, size // 8):
        raise fault
    with _Allowance(_ALWAYS + _TIMES * size, _TENSORS + size // _BYTES_OF_ONE, fault):
        yield


@contextmanager
def bounded_by_memory(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Inside, tensors can be made that fit into half of the free memory together; the rest is for what runs them.

    Raises UsageError at the first that does not, before it has memory. A bound that holds already is the narrower one.
    """
    if isinstance(_get_current_dispatch_mode(), _Allowance):
        yield
        return
    free = available_memory_bytes()
    given = f"options {shown(dict(options))}" if options else "no options"
    fault = UsageError(
        f"model {name!r} with {given} is too large: more than half of the {free / 1e9:.1f} GB of memory that are "
        f"free here, or more than {_TENSORS_OF_ANY:,} tensors; give it smaller widths or fewer layers"
    )
    with _Allowance(free // 2, _TENSORS_OF_ANY, fault):
        yield


def _bytes_held(path: Path) -> int:
    files = [path] if path.is_file() else [file for end in _WEIGHTS for file in path.glob(f"*{end}")]
    return sum(file.stat().st_size for file in files)


class _Allowance(TorchDispatchMode):
    def __init__(self, allowed: int, tensors: int, fault: ModelCompressionError):
        super().__init__()
        self._left, self._tensors, self._fault = allowed, tensors, fault

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        makes = not (func._schema.is_mutable or func.is_view or func is torch.ops.aten._local_scalar_dense.default)
        if makes:
            self._left -= _bytes_of(func, args, kwargs)
            self._tensors -= 1
            if self._left < 0 or self._tensors < 0:
                raise self._fault
        return func(*args, **kwargs)


def _bytes_of(func: Any, args: Any, kwargs: Any) -> int:
    """What the result of an operator takes, found without memory; 0 where that cannot be told."""
    args, kwargs = tree_map_only(Tensor, _without_memory, (args, {**kwargs}))
    if "device" in kwargs or not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs))):
        kwargs = {**kwargs, "device": torch.device("meta")}
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    try:
        result = func(*args, **kwargs)
    except Exception:  # an operator whose result depends on values, which are few
        return 0
    return sum(math.prod(leaf.shape) * leaf.element_size() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


def _without_memory(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
