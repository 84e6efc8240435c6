"""The base of all configurations: values of a wrong type are refused when one is constructed, wherever they come from.

One function, `checked`, compares a value with a type hint. Python, JSON and the command line all go through it.
"""

import dataclasses
import functools
import math
import numbers
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from model_compression.core.errors import UsageError, shown
from model_compression.core.options import Option, default_of, option_of
from model_compression.core.registry import unknown_name

C = TypeVar("C")

PathText = Annotated[str, "path"]
"""Text that may name a file or folder; a `pathlib.Path` is taken as well, and stored as text."""

_INTEGERS = 2**63  # what PyTorch and NumPy compute with
_DEPTH = 20  # of lists and dictionaries within each other
_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false", dict: "a dictionary"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every configuration does when it is constructed: it checks the types of its values, then their bounds.

    Values are stored as JSON gives them back: an np.int64 as an int, a tuple as a list, a path as text. So a
    configuration that can be constructed can be written, and read again as an equal one.
    """

    def __post_init__(self) -> None:
        hints = types_of_fields(type(self))  # type: ignore[arg-type]  # mypy: not hashable
        for entry in dataclasses.fields(self):
            try:
                value = checked(hints[entry.name], getattr(self, entry.name), entry.name)
                option_of(entry).check(entry.name, value)
            except UsageError as error:
                error.field = entry.name
                raise
            object.__setattr__(self, entry.name, value)
        self.check()

    def check(self) -> None:
        """Raises UsageError for values that cannot go together. Each alone has the right type and is within bounds."""


def from_dict(kind: type[C], values: Any, source: str = "config") -> C:
    """The config of ``kind`` from plain values. Raises UsageError for unknown keys and wrong types."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{source}: expected an object with keys, got {type(values).__name__}")
    hints = types_of_fields(kind)  # type: ignore[arg-type]
    for key in values:
        if key not in hints:
            raise UsageError(f"{source}: {unknown_name('key', str(key), list(hints))}")
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING is field.default_factory and field.name not in values:
            raise UsageError(f"{source}: the key {field.name!r} is missing")
    return kind(**{key: checked(hints[key], value, f"{source}.{key}") for key, value in values.items()})


@functools.cache
def types_of_fields(kind: Any) -> dict[str, Any]:
    """The type hint of each field of a dataclass."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


@functools.cache
def options_of(kind: Any, prefix: str = "") -> dict[str, Option]:
    """The metadata of each option of a configuration and of those in it, by place, as "optim.lr"."""
    found: dict[str, Option] = {}
    for entry in dataclasses.fields(kind):
        part = configuration_in(types_of_fields(kind)[entry.name])
        place = f"{prefix}{entry.name}"
        found |= {place: option_of(entry)} if part is None else options_of(part, f"{place}.")
    return found


def affecting_result(config: C, rest: C | None = None) -> C:
    """``config`` with the options that affect no result as in ``rest``, or at their defaults.

    Runs with equal results have equal configurations then.
    """
    changed = {}
    for entry in dataclasses.fields(config):  # type: ignore[arg-type]
        own, other = getattr(config, entry.name), default_of(entry) if rest is None else getattr(rest, entry.name)
        if dataclasses.is_dataclass(own):
            changed[entry.name] = affecting_result(own, None if rest is None else other)
        elif option_of(entry).affects != "result":
            changed[entry.name] = other
    return dataclasses.replace(config, **changed)  # type: ignore[type-var]


def configuration_in(hint: Any) -> Any:
    """The configuration that a hint is of, or that or None; None for other hints."""
    return next((kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)), None)


def checked(hint: Any, value: Any, name: str) -> Any:
    """``value`` as plain Python and JSON have it. Raises UsageError, with ``name``, unless it is what ``hint`` says.

    Hints are those that configurations have: int, float, str, bool, `PathText`, Literal, list, dict, Any, other
    configurations, and each of them or None.
    """
    if get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(argument for argument in get_args(hint) if argument is not type(None))
    if dataclasses.is_dataclass(hint):
        return _config(typing.cast(type, hint), value, name)
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind is Literal:
        text = _plain(str, value, name)
        if text not in arguments:
            raise unknown_name(name, text, list(arguments))
        return text
    if kind is list:
        values = value.tolist() if hasattr(value, "tolist") else value  # of an array or a tensor
        if not isinstance(values, list | tuple):
            raise UsageError(f"{name} must be a list, got {shown(value)}")
        return [checked(arguments[0], entry, f"entry {number} of {name}") for number, entry in enumerate(values)]
    if kind is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{name} must be a dictionary, got {shown(value)}")
        return {
            _plain(str, key, f"a key of {name}"): checked(arguments[1], entry, f"{name}.{key}")
            for key, entry in value.items()
        }
    if hint is Any:
        return _json(value, name)
    if hint is PathText and isinstance(value, os.PathLike):
        value = os.fspath(value)
    return _plain(str if kind is Annotated else kind, value, name)


def _config(kind: type, value: Any, name: str) -> Any:
    if isinstance(value, kind):
        return value
    if isinstance(value, str) and "name" in types_of_fields(kind):
        raise UsageError(
            f"{name} must be {_with_article(kind)}, as {kind.__name__}(name={shown(value)}), got the text alone"
        )
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} must be {_with_article(kind)}, or a dictionary of its fields, got {shown(value)}")
    return from_dict(kind, value, name)


def _plain(kind: type, value: Any, name: str) -> Any:
    """``value`` as an int, float, str or bool, whichever ``kind`` is."""
    if kind is bool and _is_bool(value):
        return bool(value)
    if kind is str and isinstance(value, str):
        if "\0" in value:
            raise UsageError(f"{name} must be text without NUL characters, got {shown(value)}")
        return str(value)
    if kind is int and isinstance(value, numbers.Integral) and not _is_bool(value):
        if not -_INTEGERS <= int(value) < _INTEGERS:
            raise UsageError(f"{name} must be an integer of 64 bits, got one beyond 9.2e18")
        return int(value)
    if kind is float and isinstance(value, numbers.Real) and not _is_bool(value):
        return _finite(value, name)
    raise UsageError(f"{name} must be {_WORDS[kind]}, got {shown(value)}")


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")  # NumPy's, a class of its own


def _finite(value: numbers.Real, name: str) -> float:
    try:
        number = float(value)
    except OverflowError:  # an integer, which has no largest
        raise UsageError(f"{name} must be a number below 1e308, got a larger one") from None
    if not math.isfinite(number):
        raise UsageError(f"{name} must be a finite number, got {number}")
    return number


def _json(value: Any, name: str, depth: int = 0) -> Any:
    """``value`` in the types that JSON has; numbers, texts, lists and dictionaries, in each other."""
    if depth > _DEPTH:
        raise UsageError(f"{name} must not have more than {_DEPTH} lists or dictionaries within each other")
    if value is None:
        return None
    if isinstance(value, os.PathLike):
        return _plain(str, os.fspath(value), name)
    if isinstance(value, Mapping):
        return {_plain(str, key, f"a key of {name}"): _json(entry, name, depth + 1) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json(entry, name, depth + 1) for entry in value]
    for kind, abstract in ((str, str), (int, numbers.Integral), (float, numbers.Real)):
        if isinstance(value, abstract) and not _is_bool(value):
            return _plain(kind, value, name)
    if _is_bool(value):
        return bool(value)
    if hasattr(value, "tolist"):  # an array or a tensor
        return _json(value.tolist(), name, depth + 1)
    raise UsageError(f"{name} must be what JSON can hold (numbers, text, lists, dictionaries), got {shown(value)}")


def _with_article(kind: type) -> str:
    """The name of a class with its article, as "an OptimConfig"."""
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"
