"""Options of the command line made from the fields of a configuration, and a configuration from what is typed."""

import argparse
import dataclasses
import typing
from collections.abc import Collection, Iterable
from typing import Any

from model_compression.core.config import TrainConfig
from model_compression.core.config_values import configuration_in, options_of, types_of_fields
from model_compression.core.errors import UsageError
from model_compression.core.options import default_of
from model_compression.core.run_options import lacks, with_values

_METAVARS = {str: "NAME", int: "N", float: "X"}


def _type_and_default(place: str, kind: Any) -> tuple[Any, Any]:
    """The type of an option of ``kind`` on the command line (str for choices and paths), and its default."""
    *parts, name = place.split(".")
    for part in parts:
        kind = configuration_in(types_of_fields(kind)[part])
    hint = types_of_fields(kind)[name]
    if type(None) in typing.get_args(hint):
        hint = typing.get_args(hint)[0]
    plain = {typing.Annotated: str, typing.Literal: str}.get(typing.get_origin(hint), hint)
    return plain, default_of(next(entry for entry in dataclasses.fields(kind) if entry.name == name))


def places_of(kind: Any, part: str = "", of: Collection[str] = ("",)) -> list[str]:
    """The options of ``part`` of ``kind`` that have a help, take one value at most, and have one of ``of``."""
    own = [
        place
        for place, said in options_of(kind).items()
        if place.rpartition(".")[0] == part and said.help and said.of in of
    ]
    return [place for place in own if _type_and_default(place, kind)[0] in (*_METAVARS, bool)]


TEACHER = places_of(TrainConfig, of=["teacher"])
TABLE = places_of(TrainConfig, "data.table")
DATA = [*places_of(TrainConfig, "data"), *TABLE]
TRAINING = [*places_of(TrainConfig, of=["", "method"]), *places_of(TrainConfig, "optim")]
METHOD = places_of(TrainConfig, "method")


def add_config_options(
    parser: argparse._ActionsContainer,
    places: Iterable[str],
    kind: Any = TrainConfig,
    *,
    show_defaults: bool = True,
    left_open: Collection[str] = (),
) -> None:
    """Adds the options at ``places`` of a configuration of ``kind``.

    Every default is None: an option that is not given keeps the value of the configuration that a command starts from;
    what that has ``left_open`` the recipe chooses.
    """
    for place in places:
        said, (plain, default) = options_of(kind)[place], _type_and_default(place, kind)
        flag = flag_of(place, kind)
        if plain is bool:
            parser.add_argument(flag, action="store_const", const=True, help=said.help)
            continue
        if place in left_open:
            default = "by the recipe"
        shown = f" (default: {default})" if show_defaults and default not in (None, "") else ""
        parser.add_argument(flag, type=plain, metavar=said.metavar or _METAVARS[plain], help=said.help + shown)


def flag_of(place: str, kind: Any = TrainConfig) -> str:
    """What the command line calls the option at ``place`` of a configuration of ``kind``, as --lr for "optim.lr"."""
    return "--" + (options_of(kind)[place].flag or place.rpartition(".")[2]).replace("_", "-")


def given_values(args: argparse.Namespace, places: Iterable[str], kind: Any = TrainConfig) -> dict[str, Any]:
    """What was typed of the options at ``places`` of a configuration of ``kind``."""
    typed = {place: getattr(args, flag_of(place, kind)[2:].replace("-", "_"), None) for place in places}
    return {place: value for place, value in typed.items() if value is not None}


def with_options_at(config: TrainConfig, args: argparse.Namespace, places: Iterable[str]) -> TrainConfig:
    """``config`` with what was typed of the options at ``places``.

    Raises UsageError for impossible values, and for an option that has no effect beside the others.
    """
    given = given_values(args, places)
    config = with_values(config, given)
    for place in given:
        if needed := lacks(config, place):
            raise UsageError(f"{flag_of(place)} has no effect here: it needs {needed}")
    return config
