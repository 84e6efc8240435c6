"""Write one page on runs: recipes, results with intervals, curves, costs, confusion matrix, calibration, agreement with
the teacher, and the images that only the teacher predicts right.

It reads run folders only, also those of runs in progress. A folder with runs in it, as of a comparison or a scheme,
stands for all of them. Runs that differ in their seed only are one row, with an interval over seeds.
"""

import argparse
import sys
from pathlib import Path

from model_compression.core.console import json_text
from model_compression.core.files import user_path
from model_compression.core.text import count

FORMATS = {".html": "html", ".md": "md", ".json": "json"}

EXAMPLES = """examples:
  model-compression report runs/distilled
  model-compression report runs/kd-seed* runs/labels-seed* --out report.html
  model-compression report runs/compare-cifar10-lenet-10-epochs --format md
  model-compression report runs/distilled --out report.json

The page is one file that needs no network, for light and dark screens,
telephones and paper. It shows the latency of runs with a measure.json:
  model-compression measure runs/distilled --json > runs/distilled/measure.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run folder, or a folder with runs in it")
    parser.add_argument("--out", metavar="FILE", help="the file to write (default: report.html; md and json: printed)")
    parser.add_argument("--format", metavar="FORMAT", help="html, md or json (default: by the file's ending, or html)")


def run(args: argparse.Namespace) -> int:
    """Writes the report; returns the exit code."""

    from model_compression.core.files import write_text
    from model_compression.reports.contents import make_report, to_plain

    kind = _format(args)
    report = make_report(args.runs)
    for reason in report.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    if kind == "html":
        from model_compression.reports.html import to_html

        text = to_html(report)
    elif kind == "md":
        from model_compression.reports.markdown import to_markdown

        text = to_markdown(report)
    else:
        text = json_text(to_plain(report), indent=2) + "\n"
    out = args.out or ("report.html" if kind == "html" else None)
    if out is None:
        print(text, end="")
        return 0
    write_text(out, text)
    print(f"{out}: {Path(out).stat().st_size:,} bytes, {count(len(report.runs), 'run')}")
    return 0


def _format(args: argparse.Namespace) -> str:
    """Of --format, or of the ending of --out. Raises UsageError for another one, and for a file that is there."""
    from model_compression.core.errors import UsageError
    from model_compression.core.registry import unknown_name

    kinds = list(FORMATS.values())
    if args.format is not None and args.format not in kinds:
        raise unknown_name("format", args.format, kinds)
    if args.out and user_path(args.out).is_dir():
        raise UsageError(
            f"--out {args.out} is a folder; give the name of a file, as {user_path(args.out) / 'report.html'}"
        )
    if args.format is None and args.out and user_path(args.out).suffix not in FORMATS:
        raise UsageError(f"--out must end in {', '.join(FORMATS)}, or --format must say what it is; got {args.out}")
    kind: str = args.format or (FORMATS[user_path(args.out).suffix] if args.out else "html")
    return kind
