"""Relative paths of a configuration that is used from another folder than the one that its run was started in.

A config.json has its paths as they were typed, without names of users and machines, and a run keeps its identity when
it moves. Beside it a file says where the working folder was, seen from the run's: a project that moves as a whole takes
it along.
"""

import dataclasses
import os
import re
from contextlib import suppress
from pathlib import Path

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import locate
from model_compression.core.data_config import DataConfig
from model_compression.core.files import write_atomically

ORIGIN = ".started-in"


def record_origin(folder: Path) -> None:
    """Writes into ``folder`` where the working folder is; nothing where that cannot be said, as on another drive."""
    with suppress(ValueError):
        write_atomically(folder / ORIGIN, os.fsencode(os.path.relpath(Path.cwd(), folder.resolve())))


def origin(folder: Path) -> Path | None:
    """The folder that what is in ``folder`` was started in, if it is known and still there."""
    with suppress(OSError, ValueError):
        found = (folder.resolve() / os.fsdecode((folder / ORIGIN).read_bytes())).resolve()
        if found.is_dir():
            return found
    return None


def anchor(config: TrainConfig, folder: Path) -> TrainConfig:
    """``config`` of the run in ``folder`` with relative paths as they are found from here."""
    config = locate(config, folder)
    base = origin(folder)
    if base is None or base == Path.cwd():
        return config
    teacher, peers = (None if one is None else _network(one, base) for one in (config.teacher, config.peers))
    return dataclasses.replace(
        config,
        student=_network(config.student, base),
        teacher=teacher,
        peers=peers,
        data=_data(config.data, base),
        class_weights=_found(config.class_weights, base),
    )


def _data(config: DataConfig, base: Path) -> DataConfig:
    return dataclasses.replace(
        config,
        name=_prefixed(config.name, base),
        unlabelled=_prefixed(config.unlabelled, base),
        data_dir=None if config.data_dir is None else _found(config.data_dir, base),
        tokenizer=_found(config.tokenizer, base),
        table=dataclasses.replace(
            config.table,
            test_table=_found(config.table.test_table, base),
            image_root=_found(config.table.image_root, base),
        ),
    )


def _network(config: ModelConfig, base: Path) -> ModelConfig:
    parts = [config.name] if _found(config.name, base) != config.name else config.name.split(",")
    names = [_prefixed(part, base) if part.startswith("hf:") else _path(part, base) for part in parts]
    weights = config.weights
    if weights is not None:
        path, mark, key = weights.partition("#")
        weights = _found(path, base) + mark + key
    classes = None if config.classes is None else _found(config.classes, base)
    return dataclasses.replace(config, name=",".join(names), weights=weights, classes=classes)


def _prefixed(name: str, base: Path) -> str:
    """Of "folder:PATH", "csv:FILE" and its like, "tar:PATTERN" and "hf:PATH,OPTIONS"; any other name stays."""
    prefix, colon, rest = name.partition(":")
    if prefix not in ("folder", "csv", "jsonl", "conll", "tar", "hf") or not colon:
        return name
    if prefix == "tar":  # of a pattern the folder is found
        folder, slash, _ = re.split(r"[*?\[{]", rest)[0].rpartition("/")
        return prefix + colon + (_found(folder, base) + rest[len(folder) :] if slash else _found(rest, base))
    path, comma, options = (rest, "", "") if prefix != "hf" else rest.partition(",")
    return prefix + colon + _found(path, base) + comma + options


def _path(name: str, base: Path) -> str:
    """Of a network: "resnet8" is a name, also where a folder has it."""
    return _found(name, base) if len(Path(name).parts) > 1 or Path(name).suffix else name


def _found(path: str, base: Path) -> str:
    with suppress(OSError, ValueError):
        if path and not path.startswith("~") and not Path(path).is_absolute() and (base / path).exists():
            return str(base / path)
    return path
