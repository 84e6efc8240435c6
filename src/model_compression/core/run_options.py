"""The options of a run by place, as "optim.lr": their metadata, and how values are set and compared by place."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import flat, to_dict
from model_compression.core.config_values import configuration_in, options_of, types_of_fields
from model_compression.core.options import Option, option_of
from model_compression.core.registry import unknown_name

C = TypeVar("C")

OPTIONS = options_of(TrainConfig)
"""The metadata of each option of a run, by place."""

PARTS = {
    entry.name: kind
    for entry in dataclasses.fields(TrainConfig)
    if entry.default is None and (kind := configuration_in(types_of_fields(TrainConfig)[entry.name])) is not None
}
"""The parts that a run may lack, as a teacher, with the classes of their configurations."""


def result_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """All that a result depends on, by place: from plain values, with defaults for what they lack."""
    defaults = to_dict(TrainConfig(student=ModelConfig(name="")))
    defaults |= {part: to_dict(kind(name="")) for part, kind in PARTS.items() if values.get(part)}
    found = {**flat(defaults), **flat(values)}
    return {place: value for place, value in found.items() if OPTIONS.get(place, Option()).affects == "result"}


def options_for(*parts: str) -> set[str]:
    """The names of the fields of a run whose ``of`` is one of ``parts``: "teacher", "method"."""
    return {entry.name for entry in dataclasses.fields(TrainConfig) if option_of(entry).of in parts}


def with_values(config: C, values: Mapping[str, Any]) -> C:
    """``config`` with ``values`` by place, as "optim.lr", all of them at once."""
    changed = {place: value for place, value in values.items() if "." not in place}
    for part in dict.fromkeys(place.partition(".")[0] for place in values if "." in place):
        own = {place.partition(".")[2]: value for place, value in values.items() if place.startswith(f"{part}.")}
        changed[part] = with_values(getattr(config, part), own)
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """``config`` with values by name, as ``batch_size=64, lr=1e-3, augmentation="flip"``, wherever they belong.

    Names are those of the fields of `TrainConfig`, `DataConfig` and `OptimConfig` that are no configurations
    themselves. Raises UsageError for others, with near matches.
    """
    places = {
        place.rpartition(".")[2]: place
        for place in OPTIONS
        if "." not in place or (place.startswith(("data.", "optim.")) and place != "data.name")
    }
    for name in settings:
        if name not in places:
            raise unknown_name("setting", name, list(places))
    return with_values(config, {places[name]: value for name, value in settings.items()})


def short_name(config: TrainConfig) -> str:
    """DATA-STUDENT, as part of a folder's name."""
    _, _, path = config.data.name.rpartition(":")  # of folder:PATH and hf:NAME,OPTIONS the last part of the path
    student = Path(config.student.name.rpartition(":")[2]).stem  # of a library's network its name alone
    return f"{Path(path.partition(',')[0]).name}-{student}"
