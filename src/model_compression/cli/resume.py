"""Continue an interrupted run, to the same weights that it would have reached."""

import argparse

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
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Resumes; returns the exit code."""
    from model_compression.cli.watched_runs import resume_and_report

    if args.epochs is not None:
        from model_compression.core.errors import UsageError
        from model_compression.engine.run_folder import RunFolder

        raise UsageError(
            f"resume ends with the run's own number of epochs; to train its network for more when it is finished: "
            f"{RunFolder(args.run).trained_on.replace('epochs N', 'epochs ' + args.epochs)}"
        )

    return resume_and_report(args.run, as_json=args.json, lr=args.lr)
