"""List the runs in a folder and below: what each is, how far it is, its accuracy, and when it was last written to."""

import argparse
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from model_compression.core.console import json_text, one_line, table
from model_compression.core.files import user_path
from model_compression.core.text import shell_word

if TYPE_CHECKING:
    from model_compression.reports.run_states import RunState

EXAMPLES = """examples:
  model-compression runs
  model-compression runs runs/compare-cifar10-lenet-10-epochs --json
"""

_WIDTH = 44  # of what describes a run, in columns


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="runs", help="where they are (default: runs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Lists; returns the exit code."""
    from model_compression.reports.run_states import run_states

    folder = user_path(args.folder)
    found = run_states(folder)
    if args.json:
        rows = [{**asdict(one), "path": str(one.path), "resumable": one.resumable} for one in found]
        print(json_text({"folder": str(folder), "runs": rows}))
    elif found:
        _print_list(found, folder)
    else:
        print(f"no runs in {folder}")
    return 0


def _print_list(found: "list[RunState]", folder: Path) -> None:
    rows = []
    for one in found:
        name = one_line(one.path.relative_to(folder) if one.path != folder else one.path)
        what = textwrap.fill(_what(one), _WIDTH, initial_indent="  ", subsequent_indent="  ")
        accuracy = "" if one.accuracy is None else f"{one.accuracy:.2%}"
        rows.append((f"{name}\n{what}", _state(one), accuracy, f"{_age(one.age_s)} ago"))
    print(table(rows, ("run", "state", "accuracy", "written"), left=2))
    stopped = [one for one in found if one.resumable]
    if stopped:
        print(f"\nResume a stopped run: model-compression resume {shell_word(str(stopped[0].path))}")


def _what(one: "RunState") -> str:
    held_out = ", accuracy on held-out images" if one.eval_set == "validation" and one.accuracy is not None else ""
    return one.what if one.seed is None else f"{one.what}, seed {one.seed}{held_out}"


def _state(one: "RunState") -> str:
    return one.state if one.state in ("finished", "damaged") else f"{one.state} {one.done}/{one.epochs}"


def _age(seconds: float) -> str:
    """As "3 min", "5 h" or "12 d"."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds / length)} {unit}"
    return f"{int(seconds)} s"
