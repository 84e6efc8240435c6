"""Repeat an experiment: `classic`, a LeNet on labels only and with the three ways of 2016 to learn from a teacher;
`modern`, the same with today's augmentation, optimiser and teacher; or `views`, how many augmented views of each image
the teacher should answer.

Each finished run leaves a record in the results folder; what has a record is not run again, and what was interrupted
goes on where it stopped: give the same command again.
"""

import argparse

from model_compression.cli.training_options import add_jobs, add_strict

EXAMPLES = """examples:
  model-compression reproduce
  model-compression reproduce classic --seeds 3 --epochs 100
  model-compression reproduce modern --seeds 5
  model-compression reproduce views --seeds 3 --arms views_4 fresh
  model-compression reproduce --epochs 2 --arms labels kd --out results/trial
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "experiment",
        nargs="?",
        default="classic",
        metavar="EXPERIMENT",
        help="classic, modern or views (default: classic)",
    )
    add_strict(parser)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each arm (default: 1)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="S", help="the first seed (default: 0)")
    parser.add_argument(
        "--epochs", type=int, metavar="E", help="of each run (default: classic 100, modern 30, views 20)"
    )
    parser.add_argument(
        "--teacher", metavar="MODEL", help="default: classic nin-cifar10, the others whitening-cnn-small-cifar10"
    )
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="some of the arms only (default: all)")
    parser.add_argument("--data", default="cifar10", metavar="NAME", help="dataset (default: cifar10)")
    parser.add_argument("--data-dir", metavar="DIR", help="where the dataset is, or is to be stored")
    parser.add_argument("--out", metavar="FOLDER", help="results folder (default: results/EXPERIMENT-E-epochs)")
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where the run folders go (default: runs)")
    add_jobs(parser)


def run(args: argparse.Namespace) -> int:
    """Runs what has no record yet; returns the exit code."""
    from model_compression.api.experiments import reproduce
    from model_compression.core.data_config import DataConfig
    from model_compression.engine.console_observer import ConsoleObserver

    with ConsoleObserver() as observer:
        done = reproduce(
            args.experiment,
            seeds=args.seeds,
            first_seed=args.first_seed,
            epochs=args.epochs,
            teacher=args.teacher,
            arms=args.arms,
            data=DataConfig(name=args.data, data_dir=args.data_dir),
            out=args.out,
            runs=args.runs,
            jobs=args.jobs,
            executor=args.executor,
            observer=observer,
        )
    print(f"{done.table}\n{done.out / 'table.md'}\n{done.out / 'curves.png'}")
    return 0
