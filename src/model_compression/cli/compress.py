"""From a teacher to the file that ships: distil, prune, quantise, export and verify, within a budget.

The student is pruned as far as --max-bytes or --max-latency-ms ask, as its int8 file (or int4, --to) has them; without
either it is not. A table and a plot show what each stage won and lost. What was interrupted goes on at its stage with
`resume`.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_compression.cli import distill
from model_compression.cli.prune import LOW_RANK, ROUND_TO

if TYPE_CHECKING:
    from model_compression.compression.pipeline import CompressConfig

EXAMPLES = """examples:
  model-compression compress --teacher whitening-cnn-cifar10 --student lenet \\
      --data cifar10 --max-bytes 250000 --min-accuracy 0.80 --out runs/small
  model-compression compress --student resnet20 --max-latency-ms 0.3
  model-compression compress --data folder:photos --teacher runs/photos \\
      --student resnet8 --max-bytes 100000
  model-compression resume runs/small

OUT/student.onnx is the file, OUT/table.md and OUT/stages.png what it cost.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    group = parser.add_argument_group("what the file that ships may cost")
    group.add_argument("--max-bytes", type=int, default=0, metavar="N", help="of the file, as 250000")
    group.add_argument(
        "--max-latency-ms", type=float, default=0.0, metavar="MS", help="for one image in ONNX Runtime, on this machine"
    )
    group.add_argument("--min-accuracy", type=float, default=0.0, metavar="SHARE", help="on the test images, as 0.82")
    group.add_argument(
        "--max-drop", type=float, default=0.5, metavar="POINTS", help="of accuracy by fewer bits alone (default: 0.5)"
    )
    group = parser.add_argument_group("how it is pruned and quantised")
    group.add_argument("--steps", type=int, default=4, metavar="N", help="cuts, each with a repair (default: 4)")
    group.add_argument(
        "--step-epochs", type=int, default=2, metavar="N", help="of the repairs before the last (default: 2)"
    )
    group.add_argument(
        "--prune-epochs", type=int, default=0, metavar="N", help="of the last repair (default: as the distillation)"
    )
    group.add_argument("--low-rank", action="store_true", help=LOW_RANK)
    group.add_argument("--round-to", type=int, default=4, metavar="N", help=ROUND_TO)
    group.add_argument("--to", default="int8", metavar="NAME", help="int8, or int4: half the bytes (default: int8)")
    group.add_argument(
        "--quantize-epochs",
        type=int,
        default=8,
        metavar="N",
        help="of the training with roundings, if rounding loses too much (default: 8)",
    )
    distill.configure(parser)


def run(args: argparse.Namespace) -> int:
    """Compresses; returns the exit code."""
    from model_compression.cli.compression_reports import print_compressed
    from model_compression.cli.training_options import out_folder, short_name
    from model_compression.compression.pipeline import compress
    from model_compression.engine.console_observer import ConsoleObserver

    config = _config(args)
    name = f"{short_name(config.run)}-compressed-seed{config.run.seed}"
    folder, note = out_folder(args, Path("runs") / name)
    epochs = config.run.epochs
    if config.budget.max_bytes or config.budget.max_latency_ms:
        epochs += (config.steps - 1) * config.step_epochs + (config.prune_epochs or config.run.epochs)
    with ConsoleObserver(note, epochs) as observer:
        result = compress(config, folder, observer)
    return print_compressed(result, folder, args.json)


def _config(args: argparse.Namespace) -> "CompressConfig":
    from model_compression.compression.pipeline import Budget, CompressConfig
    from model_compression.core.errors import UsageError

    if args.scheme:
        raise UsageError("--scheme has no effect here: one student is distilled; run `distill --scheme` first")
    budget = Budget(max_bytes=args.max_bytes, max_latency_ms=args.max_latency_ms, min_accuracy=args.min_accuracy)
    names = ("steps", "step_epochs", "prune_epochs", "quantize_epochs", "max_drop", "low_rank", "round_to", "to")
    settings: dict[str, Any] = {name: getattr(args, name) for name in names}
    return CompressConfig(run=distill.distill_config(args), budget=budget, **settings)
