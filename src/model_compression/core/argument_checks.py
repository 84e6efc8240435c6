"""Public functions refuse arguments of a type that their signature does not have, by a UsageError with the name."""

import collections.abc
import functools
import inspect
import math
import numbers
import os
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar, get_args, get_origin

from model_compression.core.errors import UsageError, shown
from model_compression.core.registry import unknown_name

P = ParamSpec("P")
R = TypeVar("R")

_WORDS: dict[Any, str] = {
    int: "an integer of 64 bits",
    float: "a finite number",
    str: "text",
    bool: "True or False",
    dict: "a dictionary",
    type(None): "None",
    collections.abc.Sequence: "a list or tuple",
}


def checked_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: what a caller gives is compared with the type hints of ``function`` before anything is done."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:  # which does not name the function
            raise TypeError(f"{function.__name__}() {error}") from None
        hints = _hints(function)
        for name, value in given.arguments.items():
            parameter = signature.parameters[name]
            if name in hints and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                given.arguments[name] = _checked(hints[name], value, name)
        return function(*given.args, **given.kwargs)

    return call


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function)


def _checked(hint: Any, value: Any, name: str) -> Any:
    arms = get_args(hint) if get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if not any(_fits(arm, value) for arm in arms):
        wanted = dict.fromkeys(_called(arm) for arm in arms)
        raise UsageError(f"{name} must be {' or '.join(wanted)}, got {shown(value)}")
    _check_choice(arms, value, name)
    return plain_number(value)


def plain_number(value: Any) -> Any:
    """A number of NumPy as Python's own, which torch takes for a seed and JSON has; anything else as it is."""
    if isinstance(value, int | float):
        return value
    kind = next((kind for kind, of in ((int, numbers.Integral), (float, numbers.Real)) if isinstance(value, of)), None)
    return value if kind is None else kind(value)


def _check_choice(arms: tuple[Any, ...], value: Any, name: str) -> None:
    """Raises UnknownNameError, with near matches, for a text that is none of a closed list."""
    choices = [choice for arm in arms if get_origin(arm) is Literal for choice in get_args(arm)]
    if choices and isinstance(value, str) and value not in choices:
        raise unknown_name(name, value, choices)


def _called(arm: Any) -> str:
    kind = get_origin(arm) or arm
    if kind is collections.abc.Callable:
        return "a function"
    if kind is Literal:
        return "text"
    if kind in _WORDS:
        return _WORDS[kind] + (" of texts" if get_args(arm) == (str,) else "")
    return f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}"


def _fits(arm: Any, value: Any) -> bool:
    """Whether ``value`` is of one type of a hint; what is inside of a list or dictionary is not looked at."""
    kind = get_origin(arm) or arm
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is int:
        return isinstance(value, numbers.Integral) and -(2**63) <= int(value) < 2**63
    if kind is float:
        try:
            return isinstance(value, numbers.Real) and math.isfinite(value)
        except OverflowError:  # an integer, which has no largest
            return False
    if kind is collections.abc.Callable:
        return callable(value)
    if kind is Literal:
        return isinstance(value, str)
    if not isinstance(kind, type):
        return True  # Any and the like
    if getattr(kind, "_is_protocol", False) and kind.__module__.startswith("model_compression"):
        names = [name for name in vars(kind) if not name.startswith("_")]
        return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in names)
    if kind is collections.abc.Sequence:
        if not isinstance(value, collections.abc.Sequence) or isinstance(value, str | bytes):
            return False
        return get_args(arm) != (str,) or all(isinstance(entry, str) for entry in value)
    return isinstance(value, os.PathLike if kind.__name__ == "Path" else kind)
