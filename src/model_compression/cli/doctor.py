"""Look at machine, data, teacher and loss before hours go into a run, and say what to do.

Exits with 1 if something fails.
"""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from model_compression.cli.config_options import flag_of, given_values
from model_compression.cli.model_options import add_model_options, with_model_options
from model_compression.cli.run_data import SOURCE, add_source_options, with_source_options
from model_compression.core.console import console, json_text
from model_compression.core.files import user_path

if TYPE_CHECKING:
    from model_compression.core.finding import Finding

EXAMPLES = """examples:
  model-compression doctor
  model-compression doctor --data folder:photos --image-size 64
  model-compression doctor --teacher nin-cifar10 --student lenet --method kd
  model-compression doctor --teacher resnet56 --teacher-weights own.pt --json
"""

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--teacher", metavar="MODEL", help="what is to teach, as `distill` takes it")
    add_model_options(parser, "teacher")
    parser.add_argument("--student", metavar="MODEL", help="what is to learn, as `distill` takes it")
    add_model_options(parser, "student")
    parser.add_argument(
        "--data",
        metavar="NAME",
        help="dataset, folder:PATH, csv:FILE, tar:PATH or hf:NAME (default with a network: cifar10)",
    )
    add_source_options(parser)
    parser.add_argument("--method", metavar="NAME", help="whose terms are looked at (default: as distill)")
    parser.add_argument("--out", default="runs", metavar="FOLDER", help="where runs are to be (default: runs)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Examines; returns the exit code."""
    from model_compression.core.config import MethodConfig, ModelConfig
    from model_compression.core.data_config import DataConfig
    from model_compression.core.errors import UsageError
    from model_compression.diagnosis.whole import examine
    from model_compression.engine.console_observer import ConsoleObserver
    from model_compression.engine.default_recipe import usual_method

    named = {}
    for role in ("teacher", "student"):
        name = getattr(args, role)
        named[role] = with_model_options(ModelConfig(name=name), args, role) if name else None
        if name is None and with_model_options(ModelConfig(name=""), args, role) != ModelConfig(name=""):
            raise UsageError(f"options of a {role} have no effect here: give --{role}")
    if args.method and not args.student:
        raise UsageError("--method has no effect here: its loss is that of a student, give --student")
    data = None
    if args.data or any(named.values()):
        data = with_source_options(DataConfig(name=args.data or "cifar10"), args)
    elif typed := given_values(args, SOURCE):
        raise UsageError(f"{flag_of(next(iter(typed)))} has no effect here: give --data")
    with ConsoleObserver() as observer:
        findings = examine(
            **named,
            data=data,
            method=MethodConfig(name=args.method or usual_method(data or DataConfig())),
            device=args.device,
            runs=user_path(args.out),
            report=observer.message,
        )
        found = list(findings) if args.json else _shown(findings)
    failed = any(finding.level == "fail" for finding in found)
    if args.json:
        print(json_text({"findings": [vars(finding) for finding in found], "failed": failed}))
    return 1 if failed else 0


def _shown(findings: "Iterator[Finding]") -> "list[Finding]":
    """Prints each as soon as it is there, and how many there were of each level; returns them."""
    from collections import Counter

    from rich.table import Table
    from rich.text import Text

    screen, shown, area = console(), [], ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            screen.print(Text(area, style="bold"))
        row = Table.grid(padding=(0, 1))
        row.add_column(width=5, justify="right")
        row.add_column(width=13)
        row.add_column(overflow="fold")
        row.add_row(Text(finding.level, style=_COLOURS[finding.level]), finding.subject, Text(finding.text))
        if finding.remedy:
            row.add_row("", "", Text(f"→ {finding.remedy}"))
        screen.print(row)
        shown.append(finding)
    counts: Counter[str] = Counter(finding.level for finding in shown)
    screen.print(", ".join(f"{counts[level]} {level}" for level in _COLOURS))
    return shown
