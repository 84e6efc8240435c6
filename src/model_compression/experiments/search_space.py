"""What a search tunes: options of a run with the values that each may have, from texts or from their metadata."""

import inspect
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from model_compression.core.config import MethodConfig, TrainConfig
from model_compression.core.config_values import types_of_fields
from model_compression.core.errors import UsageError, shown
from model_compression.core.options import has_effect, setting
from model_compression.core.registry import unknown_name
from model_compression.core.run_options import OPTIONS, SETTINGS, with_values
from model_compression.distillation.methods import METHODS
from model_compression.distillation.objective import create_method

_FIXED = ("seed", "view_seed", "validation")  # what would make trials incomparable
_TEMPERATURE = (1.0, 20.0, "log")  # the published values
_DECADE = 10.0  # weights of terms are searched so far to either side of the default
_EXAMPLES = "as batch_size=32,64,128, temperature=1:20 or weight_decay=1e-6:1e-2:log"


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """An option of a run at ``place``, as "optim.lr", with its ``choices`` or the range from ``low`` to ``high``."""

    name: str
    place: str
    kind: type
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    def __str__(self) -> str:
        if self.choices:
            return f"{self.name}={','.join(map(str, self.choices))}"
        return f"{self.name}={self.low:g}:{self.high:g}{':log' if self.log else ''}"

    def nearest(self, value: Any) -> Any:
        """Of the values that may be tried the nearest to ``value``; of choices that are no numbers the first."""
        if not self.choices:
            return min(max(value, self.low), self.high)
        if value in self.choices or self.kind not in (int, float):
            return value if value in self.choices else self.choices[0]
        return min(self.choices, key=lambda choice: abs(choice - value))


Wanted = Sequence[str] | Mapping[str, Sequence[Any]]


def search_space(config: TrainConfig, wanted: Wanted = ()) -> list[Tuned]:
    """What is tuned of ``config``: texts as "lr", "batch_size=32,64", "lr=1e-4:1e-1:log", or values by name.

    Of a name alone the values come from the option's metadata. Without any: the learning rate, and temperature and
    weights of the method. Names are those of settings, of the method's parameters, and ``weights.TERM``.

    Raises UsageError for a name, value or range that cannot be.
    """
    names = _names(config)
    if isinstance(wanted, Mapping):
        wanted = [f"{name}={_text(name, values)}" for name, values in wanted.items()]
    texts = list(wanted) or ["lr", *(name for name in names if _by_default(name))]
    found: dict[str, Tuned] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if name not in names:
            raise unknown_name(f"name in {setting('tune')}:", name, list(names))
        if name in found:
            raise UsageError(f"{setting('tune')} names {name} twice")
        place, kind, default = names[name]
        if equals:
            found[name] = _parsed(name, place, kind, values)
        else:
            found[name] = _of_metadata(name, place, kind, default)
        _check(config, found[name])
    check_effects(config, list(found.values()))
    return list(found.values())


def settings_of(config: TrainConfig, space: Iterable[Tuned]) -> dict[str, Any]:
    """The values that ``config`` has of what is tuned, by name."""
    names = _names(config)
    return {tuned.name: names[tuned.name][2] for tuned in space}


def with_settings_of(config: TrainConfig, space: Iterable[Tuned], values: Mapping[str, Any]) -> TrainConfig:
    """``config`` with ``values`` by name of what is tuned. Raises UsageError for a value that cannot be."""
    options: dict[str, Any] = {}
    params: dict[str, dict[str, Any]] = {"params": {}, "weights": {}}
    for tuned in space:
        part, _, key = tuned.place.removeprefix("method.").partition(".")
        if tuned.place.startswith("method.") and part in params:
            params[part][key] = values[tuned.name]
        else:
            options[tuned.place] = values[tuned.name]
    if config.method is not None:
        for part, own in params.items():
            if own:
                options[f"method.{part}"] = {**getattr(config.method, part), **own}
    changed = with_values(config, options)
    if changed.method is not None:
        create_method(changed.method)
    return changed


def _names(config: TrainConfig) -> dict[str, tuple[str, Any, Any]]:
    """What can be tuned: name → (place, type or Literal, the value that ``config`` has)."""
    found: dict[str, tuple[str, Any, Any]] = {}
    for name, place in SETTINGS.items():
        part, _, field = place.rpartition(".")
        if OPTIONS[place].affects == "result" and OPTIONS[place].of != "teacher" and name not in _FIXED:
            of = attrgetter(part)(config) if part else config
            kind = types_of_fields(type(of))[field]  # type: ignore[arg-type]
            if kind in (int, float, bool) or typing.get_origin(kind) is typing.Literal:
                found[name] = (place, kind, getattr(of, field))
    if config.method is not None:
        method = create_method(config.method)
        weight = config.method.label_weight
        found["label_weight"] = (
            "method.label_weight", float, method.default_label_weight if weight is None else weight
        )  # fmt: skip
        for name, value in _parameters(config.method).items():
            found[name] = (f"method.params.{name}", type(value), value)
        for term, weight in {**method.default_weights, **config.method.weights}.items():
            found[f"weights.{term}"] = (f"method.weights.{term}", float, weight)
    return found


def _parameters(config: MethodConfig) -> dict[str, Any]:
    """The parameters of a method that are numbers or texts, with their values; of several as METHOD.PARAMETER."""
    parts = config.name.split(",")
    found = {}
    for part in parts:
        short = part.strip().rpartition(":")[2]
        for parameter in inspect.signature(METHODS.get(part.strip())).parameters.values():
            name = parameter.name if len(parts) == 1 else f"{short}.{parameter.name}"
            if type(parameter.default) in (int, float, str, bool):
                found[name] = type(parameter.default)(config.params.get(name, parameter.default))
    return found


def _by_default(name: str) -> bool:
    return name.rpartition(".")[2] == "temperature" or name.startswith("weights.")


def _of_metadata(name: str, place: str, kind: Any, default: Any) -> Tuned:
    """The values that the metadata of an option give it."""
    said = OPTIONS.get(place)
    if typing.get_origin(kind) is typing.Literal:
        return Tuned(name=name, place=place, kind=str, choices=typing.get_args(kind))
    if kind is bool:
        return Tuned(name=name, place=place, kind=bool, choices=(False, True))
    span: tuple[Any, ...] | None = said.search if said is not None else None
    if span is None and said is not None and said.minimum is not None and said.maximum is not None:
        span = (said.minimum, said.maximum)
    elif name.rpartition(".")[2] == "temperature":
        span = _TEMPERATURE
    elif name.startswith("weights.") and default > 0:
        span = (default / _DECADE, default * _DECADE, "log")
    if span is None:
        raise UsageError(f"{setting('tune')} {name} needs values or a range, {_EXAMPLES}")
    return Tuned(name=name, place=place, kind=kind, low=span[0], high=span[1], log=len(span) == 3)


def _parsed(name: str, place: str, kind: Any, text: str) -> Tuned:
    """The values that a text gives an option: V,V,… or LOW:HIGH or LOW:HIGH:log."""
    plain = str if typing.get_origin(kind) is typing.Literal else kind
    if ":" not in text:
        choices = tuple(_value(name, plain, part) for part in text.split(","))
        if len(set(choices)) < max(2, len(choices)):
            raise UsageError(f"{setting('tune')} {name} must have at least two different values, got {shown(text)}")
        return Tuned(name=name, place=place, kind=plain, choices=choices)
    low, high, *scale = text.split(":")
    if plain not in (int, float) or scale not in ([], ["log"]):
        raise UsageError(f"{setting('tune')} {name}: expected values or a range, {_EXAMPLES}, got {shown(text)}")
    ends = [_value(name, plain, end) for end in (low, high)]
    if not ends[0] < ends[1] or (scale and ends[0] <= 0):
        above = " above 0" if scale else ""
        raise UsageError(f"{setting('tune')} {name}: a range goes from a smaller number{above} to a larger, got {text}")
    return Tuned(name=name, place=place, kind=plain, low=ends[0], high=ends[1], log=bool(scale))


def _value(name: str, kind: type, text: str) -> Any:
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = None if kind is bool else kind(text)
    except ValueError:
        value = None
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        words = {int: "an integer", float: "a finite number", bool: "true or false"}.get(kind, "text")
        raise UsageError(f"{setting('tune')} {name}: each value must be {words}, got {shown(text)}; {_EXAMPLES}")
    return value


def _text(name: str, values: Any) -> str:
    """Values as Python gives them, a tuple for a range and a list for choices, as the command line has them."""
    if isinstance(values, tuple) and len(values) in (2, 3):
        return ":".join(map(str, values))
    if isinstance(values, list):
        return ",".join(map(str, values))
    raise UsageError(
        f"tune[{name!r}] must be a tuple (low, high) or (low, high, 'log'), or a list of values, got {shown(values)}"
    )


def _check(config: TrainConfig, tuned: Tuned) -> None:
    """Raises UsageError for an end of a range, or a choice, that a run cannot have."""
    for value in tuned.choices or (tuned.low, tuned.high):
        with_settings_of(config, [tuned], {tuned.name: value})


def check_effects(config: TrainConfig, space: Sequence[Tuned]) -> None:
    """Raises UsageError for an option that has no effect beside the others, unless those are tuned or open too."""
    places = [tuned.place for tuned in space]
    for place in places:
        part, _, name = place.rpartition(".")
        said = OPTIONS.get(place)
        if (
            said is None
            or said.needs is None
            or any(f"{part}.{need}".lstrip(".") in (*places, *config.left_open) for need in said.needs)
        ):
            continue
        if not has_effect(getattr(config, part) if part else config, said):
            raise UsageError(f"{setting('tune')} {name} has no effect here: it needs {' or '.join(said.needs)}")
