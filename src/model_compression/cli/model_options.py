"""The options that say which weights a network has, and what it wants done to images."""

import argparse
import dataclasses
from typing import Any

from model_compression.core.argument_types import number, parse_pairs
from model_compression.core.config import ModelConfig
from model_compression.core.errors import UsageError, shown
from model_compression.core.options import option_of


def add_model_options(parser: argparse._ActionsContainer, role: str = "") -> None:
    """Adds --ROLE-option, -weights, -mean, -std, -size and -layers; without a role --option and so on."""
    prefix, whose = (f"--{role}-", f"the {role}'s") if role else ("--", "the model's")
    for entry in dataclasses.fields(ModelConfig):
        said = option_of(entry)
        if said.help and (entry.name != "classes" or role == "teacher"):
            collected: dict[str, Any] = {"action": "append", "default": []} if entry.name == "options" else {}
            flag, text = f"{prefix}{said.flag or entry.name}", said.help.format(whose=whose)
            parser.add_argument(flag, metavar=said.metavar, help=text, **collected)


def with_model_options(config: ModelConfig, args: argparse.Namespace, role: str = "") -> ModelConfig:
    """``config`` with what the command line gives in its place. Raises UsageError for what cannot be read."""
    prefix = f"{role}_" if role else ""
    given = {name: getattr(args, f"{prefix}{name}") for name in ("option", "weights", "mean", "std", "size", "layers")}
    option = f"--{role}-" if role else "--"
    changes: dict[str, object] = {}
    if given["option"]:
        changes["options"] = parse_pairs(given["option"], f"{option}option")
    if given["weights"] is not None:
        if not given["weights"]:
            raise UsageError(f"{option}weights is empty; give it a file, or leave it out")
        changes["weights"] = given["weights"]
    for figure in ("mean", "std"):
        if given[figure] is not None:
            changes[figure] = _numbers(f"{option}{figure}", given[figure])
    if given["size"] is not None:
        sides = [int(side) for side in _numbers(f"{option}size", given["size"]) if side.is_integer() and side > 0]
        if len(sides) not in (1, 2) or len(sides) != given["size"].count(",") + 1:
            raise UsageError(f"{option}size must be H,W or one side of a square, in pixels, got {shown(given['size'])}")
        changes["size"] = sides * 2 if len(sides) == 1 else sides
    if getattr(args, f"{prefix}classes", None) is not None:
        if not getattr(args, f"{prefix}classes"):
            raise UsageError(f"{option}classes is empty; give it names or a file, or leave it out")
        changes["classes"] = getattr(args, f"{prefix}classes")
    if given["layers"] is not None:
        numbers = _numbers(f"{option}layers", given["layers"])
        if not all(number.is_integer() and number >= 0 for number in numbers):
            raise UsageError(f"{option}layers must be numbers of blocks, as 0,2,4, got {shown(given['layers'])}")
        changes["layers"] = [int(number) for number in numbers]
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [number(part) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        raise UsageError(
            f"{option} must be numbers with commas between them, as 0.5,0.5,0.5, got {shown(text)}"
        ) from None
