"""Compare an exported file with its network on every test image, in the file's own runtime."""

import argparse
from typing import TYPE_CHECKING, Any

from model_compression.cli.run_data import add_data_options, data_of
from model_compression.core.console import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_compression.exporting.verify import Verification

EXAMPLES = """examples:
  model-compression verify student.onnx --model runs/distilled
  model-compression verify lenet.pt2 --model lenet-cifar10 --bound 1e-5
  model-compression verify int8.onnx --model runs/distilled --max-drop 1
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("file", metavar="FILE", help="file that `export` or `quantize` has written")
    parser.add_argument("--model", required=True, metavar="MODEL", help="the run, weights file or shipped network")
    add_data_options(parser)
    parser.add_argument(
        "--bound",
        type=float,
        metavar="SHARE",
        help="largest difference that passes, as a share of the logits' range (default: 1e-4)",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="largest loss of a quantised file, instead of --bound (default: 0.5)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Compares; returns the exit code, 1 when the file does not answer alike."""
    from model_compression.api.exporting import verify
    from model_compression.core.errors import ModelCompressionError
    from model_compression.engine.console_observer import ConsoleObserver
    from model_compression.exporting.verify import BOUND

    with ConsoleObserver() as observer:
        done = verify(args.file, args.model, data_of(args), bound=args.bound, max_drop=args.max_drop, observer=observer)
    found, fault = done.verification, done.fault
    if args.json:
        values: dict[str, Any] = {"images": found.images, found.metric.name: found.value}
        values |= {"agreement": found.agreement, "largest_difference": found.largest_difference}
        ties = {"others": found.changes.others, "ties": found.changes.ties}
        print(json_text({"file": args.file, **values, "relative": found.relative_difference, **ties, "fault": fault}))
    else:
        close = found.relative_difference <= (args.bound or BOUND)
        print_verification(found, done.facts, done.exact and close)
    if fault:
        raise ModelCompressionError(f"{args.file} does not answer as {args.model} does: {fault}")
    return 0


def print_verification(found: "Verification", facts: "Mapping[str, Any]", exact: bool = True) -> None:
    """What a person wants to know of it; of answers that are not ``exact``, how alike they are instead of ties.

    ``facts`` are those of the weights file: an accuracy that was measured in another precision is named beside.
    """
    metric, text = found.metric, found.metric.text(found.value)
    interval = f"   (95 % interval {metric.interval(found.interval)})" if found.interval else ""
    print(f"{f'test {metric.label}':<18}  {text}{interval}")
    stated, precision = facts.get(metric.key("test")), facts.get("precision", "float32")
    if isinstance(stated, float) and precision != "float32" and metric.text(stated) != text:
        print(f"stated by the run   {metric.text(stated)}   (computed in {precision}; the file computes in float32)")
    print(
        f"largest difference  {found.largest_difference:.2g}   ({found.relative_difference:.1e} of the logits' range)"
    )
    if not exact:
        print(f"agreement           {found.agreement:.2%} with the network")
        return
    others, ties = found.changes.others, ""
    if others:
        ties = f", {len(found.changes.ties):,} of the other {len(others):,} in a tie"
    print(f"{f'same {found.changes.kind}':<18}  {found.images - len(others):,} of {found.images:,} {found.noun}{ties}")
