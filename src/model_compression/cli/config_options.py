"""Options of the command line made from the fields of a configuration, and a configuration from what is typed."""

import argparse
import dataclasses
import typing
from collections.abc import Collection, Iterable
from typing import Any

from model_compression.core.config import TrainConfig
from model_compression.core.config_values import configuration_in, types_of_fields
from model_compression.core.errors import UsageError
from model_compression.core.options import default_of, has_effect
from model_compression.core.run_options import OPTIONS, with_values

_METAVARS = {str: "NAME", int: "N", float: "X"}


def _type_and_default(place: str) -> tuple[Any, Any]:
    """The plain type of an option, which is that of a text for a choice and a path, and its default."""
    *parts, name = place.split(".")
    kind: Any = TrainConfig
    for part in parts:
        kind = configuration_in(types_of_fields(kind)[part])
    hint = types_of_fields(kind)[name]
    if type(None) in typing.get_args(hint):
        hint = typing.get_args(hint)[0]
    plain = {typing.Annotated: str, typing.Literal: str}.get(typing.get_origin(hint), hint)
    return plain, default_of(next(entry for entry in dataclasses.fields(kind) if entry.name == name))


def _places(part: str, of: Collection[str] = ("",)) -> list[str]:
    """The options of a part of a run that take one value or none, and belong to one of ``of``."""
    own = [place for place, said in OPTIONS.items() if place.rpartition(".")[0] == part and said.help and said.of in of]
    return [place for place in own if _type_and_default(place)[0] in (*_METAVARS, bool) and place != "method.name"]


TEACHER, METHOD, DATA = _places("", ["teacher"]), _places("method"), _places("data")
TRAINING = [*_places("", ["", "method"]), *_places("optim")]


def add_config_options(
    parser: argparse._ActionsContainer, places: Iterable[str], *, show_defaults: bool = True
) -> None:
    """Adds the options at ``places``.

    Every default is None: what is not given is as the configuration has it that a command starts from.
    """
    for place in places:
        said, (kind, default) = OPTIONS[place], _type_and_default(place)
        if kind is bool:
            parser.add_argument(flag_of(place), action="store_const", const=True, help=said.help)
            continue
        shown = f" (default: {default})" if show_defaults and default not in (None, "") else ""
        metavar = said.metavar or _METAVARS[kind]
        parser.add_argument(flag_of(place), type=kind, metavar=metavar, help=said.help + shown)


def flag_of(place: str) -> str:
    """What the command line calls the option at ``place``, as --lr for "optim.lr"."""
    return "--" + (OPTIONS[place].flag or place.rpartition(".")[2]).replace("_", "-")


def given_values(args: argparse.Namespace, places: Iterable[str]) -> dict[str, Any]:
    """What was typed of the options at ``places``."""
    typed = {place: getattr(args, flag_of(place)[2:].replace("-", "_"), None) for place in places}
    return {place: value for place, value in typed.items() if value is not None}


def with_options_at(config: TrainConfig, args: argparse.Namespace, places: Iterable[str]) -> TrainConfig:
    """``config`` with what was typed of the options at ``places``.

    Raises UsageError for impossible values, and for an option that has no effect beside the others.
    """
    given = given_values(args, places)
    config = with_values(config, given)
    for place in given:
        part, said = place.rpartition(".")[0], OPTIONS[place]
        if said.needs is not None and not has_effect(getattr(config, part) if part else config, said):
            beside = f"{part}." if part else ""
            needed = [
                " ".join([flag_of(beside + name), " or ".join(values)]).strip() for name, values in said.needs.items()
            ]
            *first, last = needed
            listed = f"{', '.join(first)} or {last}" if first else last
            raise UsageError(f"{flag_of(place)} has no effect here: it needs {listed}")
    return config
