"""The configuration of a run in a file that a person writes: TOML, or the JSON that runs write.

TOML and not YAML: Python reads it without another package, and YAML 1.1 takes ``off`` for false and ``1e-3`` for text,
both of which are values of options here.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_compression.core import trust
from model_compression.core.config import TrainConfig
from model_compression.core.config_json import flat
from model_compression.core.config_values import configuration_in, from_dict, types_of_fields
from model_compression.core.errors import FileFormatError, NotThereError, UsageError
from model_compression.core.run_options import LEFT_OPEN, SETTINGS


def read_config(path: Path, source: str, student: str = "") -> TrainConfig:
    """The configuration in a file, ``source`` for messages; ``student`` is that of a file which names none.

    A name alone stands for a part that has no other option: ``student = "lenet"``. What a person leaves out of the
    recipe is left open. Raises UsageError for what is no TOML or JSON, unknown keys and impossible values,
    NotThereError and FileFormatError for what cannot be read.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise NotThereError(f"the config {source} is not there; expected a .toml file or a run's config.json") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not {_language(path)}: {error}") from None
    except OSError as error:
        raise FileFormatError(f"cannot read the config {source}: {error}") from None
    if path.suffix.lower() in (".yaml", ".yml"):
        raise UsageError(
            f"{source} is YAML, which reads off as false and 1e-3 as text; write TOML, as {path.stem}.toml"
        )
    try:
        values = tomllib.loads(text) if _language(path) == "TOML" else json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also of an integer of thousands of digits
        raise UsageError(f"{source} is not {_language(path)}: {error}") from None
    trust.read(values, source, content)
    if student and isinstance(values, dict):
        values.setdefault("student", student)
    values = _tables(values, source)
    if _language(path) == "TOML":
        given = flat(values)
        values.setdefault("left_open", [place for place in LEFT_OPEN if place not in given])
    return from_dict(TrainConfig, values, source)


def _language(path: Path) -> str:
    return "TOML" if path.suffix.lower() == ".toml" else "JSON"


def _tables(values: Any, source: str) -> Any:
    """``values`` with a table for each part. Raises UsageError for a known key that stands in another table."""
    if not isinstance(values, Mapping):
        return values
    parts = {name: configuration_in(hint) for name, hint in types_of_fields(TrainConfig).items()}
    found = dict(values)
    for table, entries in [("", values), *values.items()]:
        known = types_of_fields(parts[table]) if parts.get(table) else parts
        for key in entries if isinstance(entries, Mapping) else ():
            place = SETTINGS.get(key)
            if key not in known and place is not None:
                home, _, _ = place.rpartition(".")
                where = f"in the table [{home}]" if home else "before all tables"
                raise UsageError(
                    f"{source}: {key} stands {where}, not in [{table}]" if table else f"{source}: {key} stands {where}"
                )
    for name, kind in parts.items():
        if isinstance(found.get(name), str) and kind is not None and "name" in types_of_fields(kind):
            found[name] = {"name": found[name]}
    return found
