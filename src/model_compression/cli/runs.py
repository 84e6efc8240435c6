"""List the runs in a folder and below: recipe, progress, result, and when each was last written to."""

import argparse
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="runs", help="folder to search (default: runs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Lists; returns the exit code."""
    from model_compression.reports.run_states import run_states

    folder = user_path(args.folder)
    found = run_states(folder)
    if args.json:
        print(json_text({"folder": str(folder), "runs": [_plain(one) for one in found]}))
    elif found:
        _print_list(found, folder)
    else:
        print(f"no runs in {folder}")
    return 0


def _plain(one: "RunState") -> dict[str, Any]:
    values = {**asdict(one), "path": str(one.path), "resumable": one.resumable}
    del values["metric"]
    return {one.metric.name: values.pop("result"), **values}


def _print_list(found: "list[RunState]", folder: Path) -> None:
    rows = []
    for one in found:
        name = one_line(one.path.relative_to(folder) if one.path != folder else one.path)
        what = textwrap.fill(_what(one), _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        result = "" if one.result is None else one.metric.text(one.result)
        rows.append((f"{name}\n{what}", _state(one), result, f"{_age(one.age_s)} ago"))
    labels = {one.metric.label for one in found if one.result is not None}
    title = labels.pop() if len(labels) == 1 else "result"
    print(table(rows, ("run", "state", title, "written"), left=2))
    stopped = [one for one in found if one.resumable]
    if stopped:
        print(f"\nResume a stopped run: model-compression resume {shell_word(str(stopped[0].path))}")


def _what(one: "RunState") -> str:
    is_held_out = one.eval_set == "validation" and one.result is not None
    held_out = f", {one.metric.label} on held-out images" if is_held_out else ""
    return one.what if one.seed is None else f"{one.what}, seed {one.seed}{held_out}"


def _state(one: "RunState") -> str:
    return one.state if one.state in ("finished", "damaged") else f"{one.state} {one.done}/{one.epochs}"


def _age(seconds: float) -> str:
    """As "3 min", "5 h" or "12 d"."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds / length)} {unit}"
    return f"{int(seconds)} s"
