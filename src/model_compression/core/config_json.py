"""Configurations as plain values and as JSON, each with an exact round trip."""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from model_compression.core import trust
from model_compression.core.config_values import from_dict
from model_compression.core.errors import UsageError

C = TypeVar("C")
V = TypeVar("V")

HERE = "here:"
"""Before a name that is relative to the folder of its file, so that a folder with several runs can be moved."""

GIVEN = "python:"
"""What the name of data or of a network begins with that was given as an object, and that no name brings back."""
LOADERS = f"{GIVEN}dataloaders"
"""The name of data that come as batches of floats, already normalised."""


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values of a config, nested."""
    return dataclasses.asdict(config)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under names with dots, as "optim.lr"; what is None is left out."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def is_given(recipe: Mapping[str, Any]) -> bool:
    """Whether of a flat configuration data or a network were given as objects: no command repeats such a run."""
    return any(str(recipe.get(key, "")).startswith(GIVEN) for key in ("data.name", "teacher.name", "student.name"))


def given_values(config: Any) -> dict[str, Any]:
    """Plain values of a config, nested, without the defaults: an option that is added later changes nothing."""
    values = {}
    for entry in dataclasses.fields(config):
        value, factory = getattr(config, entry.name), entry.default_factory
        default = entry.default if factory is dataclasses.MISSING else factory()
        if value != default:
            values[entry.name] = given_values(value) if dataclasses.is_dataclass(value) else value
    return values


def config_digest(config: Any) -> str:
    """SHA-256 of its `given_values`."""
    return hashlib.sha256(json.dumps(given_values(config), sort_keys=True).encode()).hexdigest()


def locate(value: V, folder: Path) -> V:
    """``value``, a configuration or plain values, of a file in ``folder``, with names after `HERE` as whole paths."""
    if isinstance(value, str) and value.startswith(HERE):
        return typing.cast(V, str((folder / value.removeprefix(HERE)).resolve()))
    if isinstance(value, Mapping):
        return typing.cast(V, {key: locate(entry, folder) for key, entry in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        changed = {name: found for name, own in fields.items() if (found := locate(own, folder)) != own}
        return typing.cast(V, dataclasses.replace(value, **changed)) if changed else value
    return value


def to_json(config: Any) -> str:
    """JSON text of a config; `from_json` gives an equal one back."""
    return json.dumps(to_dict(config), indent=2, sort_keys=True) + "\n"


def from_json(kind: type[C], text: str, source: str = "config") -> C:
    """The config of ``kind`` in the text of the file ``source``.

    Names of code in it are followed only where `trust` finds the file to be the user's. Raises UsageError for bad JSON,
    unknown keys and impossible values.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also of an integer of thousands of digits
        raise UsageError(f"{source} is not JSON: {error}") from None
    trust.read(values, source, text.encode(errors="surrogatepass"))
    return from_dict(kind, values, source)
