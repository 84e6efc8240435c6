"""Train a network on labels, alone. The last epoch is what is reported, never the best."""

import argparse

from model_compression.cli.launch import add_processes
from model_compression.cli.training_options import add_options, base_config, run_folder, started_from, with_options
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.errors import UsageError

EXAMPLES = """examples:
  model-compression train --student lenet --epochs 10
  model-compression train --recipe nin-cifar10 --out runs/teacher
  model-compression train --config runs/a/config.json --seed 1 --out runs/b
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    for option in ("--teacher", "--method"):  # of distill; hidden, to say so
        parser.add_argument(option, help=argparse.SUPPRESS)
    add_options(parser)
    add_processes(parser)


def run(args: argparse.Namespace) -> int:
    """Trains; returns the exit code."""

    if args.teacher or args.method:
        raise UsageError("train learns from labels only; to learn from a teacher: model-compression distill")
    config = with_options(base_config(args, TrainConfig(student=ModelConfig(name="lenet"))), args)
    if config.method is not None:
        raise UsageError(
            f"this configuration has a teacher; run it with: model-compression distill{started_from(args)}"
        )
    from model_compression.cli.watched_runs import run_and_report

    folder, note = run_folder(args, config)
    return run_and_report(config, folder, note, as_json=args.json, recipe=args.recipe)
