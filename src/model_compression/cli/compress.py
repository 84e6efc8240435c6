"""Distil, prune, quantise, export and verify a student within a budget, in one command.

The student is pruned until its quantised file keeps --max-bytes and --max-latency-ms; without either, nothing is
pruned. A table and a plot show what each stage gained or cost. `resume` continues an interrupted compression.
"""

import argparse
from pathlib import Path

from model_compression.cli import distill
from model_compression.cli.config_options import add_config_options, given_values, places_of
from model_compression.compression.config import Budget, CompressConfig
from model_compression.core.errors import UsageError

EXAMPLES = """examples:
  model-compression compress --teacher whitening-cnn-cifar10 --student lenet \\
      --data cifar10 --max-bytes 250000 --min-accuracy 0.80 --out runs/small
  model-compression compress --student resnet20 --max-latency-ms 0.3
  model-compression compress --data folder:photos --teacher runs/photos \\
      --student resnet8 --max-bytes 100000
  model-compression resume runs/small

OUT/student.onnx is the file; OUT/table.md and OUT/stages.png compare the
stages.
"""


_BUDGET, _STAGES = places_of(Budget), places_of(CompressConfig)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    group = parser.add_argument_group("budget of the shipped file")
    add_config_options(group, _BUDGET, Budget)
    add_config_options(parser.add_argument_group("pruning and quantisation"), _STAGES, CompressConfig)
    distill.add_distill_options(parser)


def run(args: argparse.Namespace) -> int:
    """Compresses; returns the exit code."""
    from model_compression.cli.compression_reports import print_compressed
    from model_compression.cli.training_options import out_folder
    from model_compression.compression.pipeline import compress
    from model_compression.core.run_options import short_name
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


def _config(args: argparse.Namespace) -> CompressConfig:

    if args.scheme:
        raise UsageError("--scheme has no effect here: one student is distilled; run `distill --scheme` first")
    budget = Budget(**given_values(args, _BUDGET, Budget))
    return CompressConfig(
        run=distill.distill_config(args), budget=budget, **given_values(args, _STAGES, CompressConfig)
    )
