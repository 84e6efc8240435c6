"""How the command line reads numbers and paths: one function for each type, for every option that there is."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from model_compression.core.errors import UsageError, shown
from model_compression.core.files import user_path


def register_types(parser: argparse.ArgumentParser) -> None:
    """Makes ``type=int``, ``type=float`` and ``type=Path`` of all options refuse, by one clear line, what is none."""
    for kind, reads in ((int, _integer), (float, number), (Path, _path)):
        parser.register("type", kind, reads)


def _integer(text: str) -> int:
    try:
        value = int(text)
    except ValueError:  # also of thousands of digits
        raise argparse.ArgumentTypeError(f"must be an integer, got {shown(text)}") from None
    if not -(2**63) <= value < 2**63:
        raise argparse.ArgumentTypeError(f"must be an integer of 64 bits, got {shown(text)}")
    return value


def number(text: str) -> float:
    """The number that a text is. Raises ArgumentTypeError for one that is none, or not finite."""
    try:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a finite number, got {shown(text)}") from None
    return value


def _path(text: str) -> Path:
    try:
        return user_path(text)
    except UsageError as error:  # which argparse would swallow, as the ValueError that it is
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_pairs(pairs: list[str], option: str) -> dict[str, Any]:
    """KEY=VALUE texts as a dictionary; values are JSON where they can be, else text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (equals and key):
            raise UsageError(f"{option} must be KEY=VALUE, got {pair!r}")
        try:
            values[key] = json.loads(text)
        except (ValueError, RecursionError):  # no JSON, or an integer of thousands of digits, or nested too deep
            values[key] = text
    return values
