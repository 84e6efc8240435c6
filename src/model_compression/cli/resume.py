"""Continue an interrupted run, to the same weights that it would have reached."""

import argparse

from model_compression.cli.launch import add_processes
from model_compression.core.console import json_text, one_line

EXAMPLES = """examples:
  model-compression resume runs/cifar10-lenet-kd-seed0
  model-compression resume runs/cifar10-lenet-kd-seed0 --lr 0.0003
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument(
        "--lr", type=float, metavar="RATE", help="another largest rate from here on, after a loss that exploded"
    )
    parser.add_argument("--epochs", help=argparse.SUPPRESS)  # to say what does that
    add_processes(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Resumes; returns the exit code."""
    from model_compression.cli.watched_runs import resume_and_report
    from model_compression.core.errors import FinishedError

    if args.epochs is not None:
        from model_compression.core.errors import UsageError
        from model_compression.engine.run_folder import RunFolder

        raise UsageError(
            f"resume ends with the run's own number of epochs; to train its network for more when it is finished: "
            f"{RunFolder(args.run).trained_on.replace('epochs N', 'epochs ' + args.epochs)}"
        )

    try:
        return resume_and_report(args.run, as_json=args.json, lr=args.lr)
    except FinishedError as done:
        if args.lr is not None:  # which cannot be had any more
            raise
        print(json_text({"run": args.run, "finished": True, "message": str(done)}) if args.json else one_line(done))
        return 0
