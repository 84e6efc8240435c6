"""What of a command line is wrong for certain is found here, before seconds go into importing torch.

Names are read in the source of what registers them. What is not certain is left to who uses it, with the same errors.
"""

import argparse
import ast
import importlib.util
import re
import typing
from functools import cache
from importlib import resources
from pathlib import Path

from model_compression.compression.config import CALIBRATED, PRECISIONS
from model_compression.core.config import TrainConfig
from model_compression.core.config_values import types_of_fields
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import NotThereError, UsageError
from model_compression.core.files import user_path
from model_compression.core.optim_config import OptimConfig
from model_compression.core.registry import unknown_name
from model_compression.core.trust import NAME
from model_compression.core.user_code import import_own, working_folder_first
from model_compression.experiments.recipes import RECIPES

_NETWORKS = ("student", "teacher", "peers", "assistants", "model")  # options and arguments that name networks
_PRECISIONS = {"compress": list(CALIBRATED), "quantize": list(PRECISIONS)}
_PREFIXES = ("timm", "torchvision", "hf", "open_clip", "smp", "hub", "folder", "tar", "python", "csv")  # of no module
_PLACES = {"methods": "distillation/methods", "models": "models", "data": "data"}
_PLUGINS = {"methods": "model_compression.methods", "data": "model_compression.datasets"}


def check_early(command: str, args: argparse.Namespace) -> None:
    """Raises what the command would raise for a name that there is not, a missing file or an unknown choice."""
    given = {key: value for key, value in vars(args).items() if isinstance(value, str)}
    for key, choices in _choices().items():
        if key in given and given[key] not in choices:
            raise unknown_name(key, given[key], list(choices))
    if given.get("to") and command in _PRECISIONS:
        _check("precision", given["to"], _PRECISIONS[command])
    if given.get("device", "auto") not in ("auto", "cpu", "cuda", "mps"):
        raise UsageError(f"device must be auto, cpu, cuda or mps, got {given['device']!r}")
    if given.get("recipe"):
        RECIPES.get(given["recipe"])
    named = [given.get("method", ""), given.get("methods", "").removeprefix("all")]
    named += [given.get("name", "")] if command == "methods" else []
    for method in re.split("[,+]", ",".join(named)):
        _check_module(method.strip())
        if method.strip() and ":" not in method:
            _check("method", method.strip(), names("methods"))
    for key in _NETWORKS:
        for name in filter(None, given.get(key, "").split(",")):
            _check_network(name.strip(), given[key])
    _check_data(given.get("name" if command == "data" else "data", ""))
    if "run" in given and not _exists(given["run"]):
        raise NotThereError(f"{given['run']} is not there; expected the folder of a run, as runs/mine")


@cache
def names(part: str) -> list[str]:
    """What "methods", "models" or "data" registers, and the names of plug-ins, which are not loaded."""
    found: list[str] = []
    place = Path(str(resources.files("model_compression"))) / _PLACES[part]
    for path in sorted(place.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        found += re.findall(r'^@[A-Z]+\.register\("([^"]+)"\)', source, re.MULTILINE)
        table = re.search(r"^_NETWORKS = (\{.*?\})$", source, re.MULTILINE | re.DOTALL)
        if table:
            tree = ast.parse(table[1], mode="eval").body
            found += [ast.literal_eval(key) for key in typing.cast(ast.Dict, tree).keys if key is not None]
    from importlib.metadata import entry_points

    plugins = entry_points(group=_PLUGINS[part]) if part in _PLUGINS else ()
    return sorted({*found, *(plugin.name for plugin in plugins)})


def shipped() -> list[str]:
    """The networks inside the package that have weights."""
    folder = Path(str(resources.files("model_compression") / "weights"))
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def _check(kind: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise unknown_name(kind, name, known)


@cache
def _choices() -> dict[str, tuple[str, ...]]:
    """By field the texts that a configuration takes, where that is a closed list."""
    fields = [item for kind in (TrainConfig, DataConfig, OptimConfig) for item in types_of_fields(kind).items()]
    return {name: typing.get_args(hint) for name, hint in fields if typing.get_origin(hint) is typing.Literal}


def _exists(path: str) -> bool:
    try:
        return user_path(path).exists()
    except OSError:  # left to who opens it
        return True


def _check_module(name: str) -> None:
    """Raises the error of a module that there is not; one that there is, is not imported."""
    own = NAME.fullmatch(name)
    if own is None or own["module"] in _PREFIXES:
        return
    with working_folder_first():
        missing = importlib.util.find_spec(own["module"].partition(".")[0]) is None
    if missing:
        import_own(own["module"], name)


def _check_network(name: str, whole: str) -> None:
    _check_module(name)
    if not name or ":" in name or name in names("models") or name in shipped() or _exists(name) or _exists(whole):
        return
    path = Path(name)
    if path.suffix or len(path.parts) > 1:
        raise NotThereError(f"{path} does not exist; expected a .safetensors file, a run folder or a name")
    raise unknown_name("model", name, [*names("models"), *shipped()])


def _check_data(name: str) -> None:
    prefix, colon, path = name.partition(":")
    if prefix == "folder" and path.strip() and not _exists(path):
        raise NotThereError(f"{path} is not there; expected a folder that holds a folder of images for each class")
    if prefix in ("csv", "jsonl", "conll") and path.strip() and not _exists(path):
        kind = "a .csv or .tsv file" if prefix == "csv" else "a file of rows"
        raise NotThereError(f"{path} is not there; expected {kind}")
    if name and not colon and name not in names("data") and not _exists(name):
        raise unknown_name(
            "dataset", name, [*names("data"), "csv:FILE", "jsonl:FILE", "folder:PATH", "hf:NAME", "tar:PATH"]
        )
