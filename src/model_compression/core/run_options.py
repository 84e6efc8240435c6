"""The options of a run by place, as "optim.lr": their metadata, and how values are set and compared by place."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from model_compression.core.argument_checks import plain_number
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import flat, to_dict
from model_compression.core.config_values import configuration_in, options_of, types_of_fields
from model_compression.core.fitting import WHOLE
from model_compression.core.options import Option, default_of, has_effect, option_of, setting
from model_compression.core.registry import unknown_name

C = TypeVar("C")

OPTIONS = options_of(TrainConfig)
"""The metadata of each option of a run, by place."""

LEFT_OPEN = (
    "optim.optimizer", "optim.lr", "optim.weight_decay", "optim.schedule", "batch_size",
    "data.augmentation", "data.shift", "data.color_jitter", "data.views",
)  # fmt: skip
"""The options that a run without a recipe chooses by its data and its network, unless they are given."""

SETTINGS = {
    place.rpartition(".")[2]: place
    for place in OPTIONS
    if ("." not in place and place != "left_open") or (place.startswith(("data.", "optim.")) and place != "data.name")
}
"""The places of the fields of `TrainConfig`, `DataConfig` and `OptimConfig`, by name."""

PARTS = {
    entry.name: kind
    for entry in dataclasses.fields(TrainConfig)
    if entry.default is None and (kind := configuration_in(types_of_fields(TrainConfig)[entry.name])) is not None
}
"""The parts that a run may lack, as a teacher, with the classes of their configurations."""


def changed_options(config: TrainConfig) -> list[str]:
    """The places of the options whose values are not their defaults; parts that the run lacks have none."""
    found = []
    for place in OPTIONS:
        part = _part_of(config, place)
        if part is not None:
            entry = next(one for one in dataclasses.fields(part) if one.name == place.rpartition(".")[2])
            found += [place] if getattr(part, entry.name) != default_of(entry) else []
    return found


def lacks(config: TrainConfig, place: str) -> str:
    """What the option at ``place`` has no effect without, as "--optimizer sgd or muon"; "" where it has an effect."""
    part, said = _part_of(config, place), OPTIONS[place]
    if part is None or said.needs is None or has_effect(part, said):
        return ""
    beside = place.rpartition(".")[0]
    needed = [
        " ".join([setting(name, flag=OPTIONS[f"{beside}.{name}".strip(".")].flag), " or ".join(values)]).strip()
        for name, values in said.needs.items()
    ]
    *first, last = needed
    return f"{', '.join(first)} or {last}" if first else last


def _part_of(config: TrainConfig, place: str) -> Any:
    """The configuration that holds the option at ``place``, None where the run lacks it."""
    part: Any = config
    for name in place.split(".")[:-1]:
        part = part and getattr(part, name)
    return part


def result_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """All that a result depends on, by place: from plain values, with defaults for what they lack."""
    defaults = to_dict(TrainConfig(student=ModelConfig(name="")))
    defaults |= {part: to_dict(kind(name="")) for part, kind in PARTS.items() if values.get(part)}
    plain = {f"data.{name}": value for name, value in WHOLE.to_dict().items()}  # which records of before spell out
    found = {**flat(defaults), **flat(values)}
    return {
        place: value
        for place, value in found.items()
        if OPTIONS.get(place, Option()).affects == "result" and plain.get(place) != value
    }


def options_for(*parts: str) -> set[str]:
    """The names of the fields of a run whose ``of`` is one of ``parts``: "teacher", "method"."""
    return {entry.name for entry in dataclasses.fields(TrainConfig) if option_of(entry).of in parts}


def with_values(config: C, values: Mapping[str, Any]) -> C:
    """``config`` with ``values`` by place, as "optim.lr", all of them at once; what a run left open is so no longer."""
    changed = {place: value for place, value in values.items() if "." not in place}
    if isinstance(config, TrainConfig) and config.left_open:
        changed["left_open"] = [place for place in config.left_open if place not in values]
    for part in dict.fromkeys(place.partition(".")[0] for place in values if "." in place):
        own = {place.partition(".")[2]: value for place, value in values.items() if place.startswith(f"{part}.")}
        changed[part] = with_values(getattr(config, part), own)
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def decided_as(config: TrainConfig, recorded: TrainConfig) -> TrainConfig:
    """``config`` with the values of ``recorded``, a run of it, for what it leaves open."""
    return with_values(config, {place: value_at(recorded, place) for place in config.left_open})


def value_at(config: TrainConfig, place: str) -> Any:
    """The value of the option at ``place``, as "optim.lr", of a part that ``config`` has."""
    *parts, name = place.split(".")
    return getattr(functools.reduce(getattr, parts, config), name)


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """``config`` with values by name, as ``batch_size=64, lr=1e-3, augmentation="flip"``, wherever they belong.

    Names are those of the fields of `TrainConfig`, `DataConfig` and `OptimConfig` that are no configurations
    themselves. Raises UsageError for others, with near matches.
    """
    for name in settings:
        if name not in SETTINGS:
            raise unknown_name("setting", name, list(SETTINGS))
    return with_values(config, {SETTINGS[name]: plain_number(value) for name, value in settings.items()})


def short_name(config: TrainConfig) -> str:
    """DATA-STUDENT, as part of a folder's name."""
    prefix, _, path = config.data.name.rpartition(":")  # of folder:PATH and hf:NAME,OPTIONS the last part of the path
    if prefix == "tar":  # of a pattern what comes before its first sign
        path = re.split(r"[*?\[{]", path)[0].rstrip("-_.")
    student = Path(config.student.name.rpartition(":")[2]).stem  # of a library's network its name alone
    return f"{Path(path.partition(',')[0]).name or prefix}-{student}"
