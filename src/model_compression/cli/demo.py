"""Distil in a few minutes: a LeNet learns CIFAR-10 from a network in network, another is trained on labels only.

Downloads the data if necessary. The same command resumes an interrupted demo, and shows the result of a finished one.
"""

import argparse

from model_compression.core.console import table
from model_compression.core.files import user_path
from model_compression.core.metric import DEFAULT_METRIC
from model_compression.core.text import count

EXAMPLES = """examples:
  model-compression demo
  model-compression demo --epochs 10 --out runs/demo-10
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--teacher", default="nin-cifar10", metavar="MODEL", help="default: nin-cifar10")
    parser.add_argument("--epochs", type=int, default=3, metavar="E", help="epochs of both students (default: 3)")
    parser.add_argument("--data", default="cifar10", metavar="NAME", help="dataset (default: cifar10)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the dataset")
    parser.add_argument("--out", default="runs/demo", metavar="FOLDER", help="default: runs/demo")


def run(args: argparse.Namespace) -> int:
    """Trains both students and prints the gain; returns the exit code."""
    from model_compression.core.data_config import DataConfig
    from model_compression.core.errors import Interrupted
    from model_compression.engine.console_observer import ConsoleObserver
    from model_compression.engine.events import read_events
    from model_compression.engine.observer import left_out
    from model_compression.engine.parts import Parts
    from model_compression.engine.run_folder import RunFolder
    from model_compression.engine.training import Training
    from model_compression.experiments.recipes import demo_pair
    from model_compression.models.weights import find_weights
    from model_compression.reports.curves import plot_curves

    out = user_path(args.out)
    data = DataConfig(name=args.data, data_dir=args.data_dir)
    find_weights(args.teacher)  # fail before the first student is trained
    pair = demo_pair(teacher=args.teacher, epochs=args.epochs, data=data)
    metrics, events, parts = {}, {}, Parts()
    for number, (arm, config) in enumerate(pair.items(), start=1):
        with ConsoleObserver() as observer:
            what = "labels only" if config.teacher is None else f"the answers of {args.teacher}"
            observer.message(f"\n{number} of {len(pair)}: a LeNet is trained on {what}")
            try:
                metrics[arm] = Training(config, out / arm, observer, parts).finish()
            except Interrupted as stop:  # its remedy names one run only
                raise Interrupted(
                    f"{str(stop).partition('; continue with')[0]}; the same command resumes it", stop.exit_code
                ) from None
        events[arm] = [read_events(RunFolder(out / arm).events)]
    distilled, labels = metrics["distilled"], metrics["labels"]
    metric, key = DEFAULT_METRIC, DEFAULT_METRIC.key("test")
    teacher = distilled[f"teacher_{key}"]
    plot = out / "curves.png"
    with left_out(f"the plot {plot}", ConsoleObserver().message):
        plot_curves(plot, events, title="A LeNet learns CIFAR-10", levels={args.teacher: teacher})
    gain = metric.gain(distilled[key], labels[key])
    rows = [
        (f"teacher {args.teacher}", metric.text(teacher), ""),
        ("LeNet, trained on labels only", metric.text(labels[key]), ""),
        ("LeNet, distilled", metric.text(distilled[key]), metric.points(gain)),
    ]
    epochs = count(args.epochs, "epoch")
    print("\n" + table(rows, ("network", f"test {metric.label}", "gain")))
    print(f"\n{epochs}, one seed\nrun folders: {out / 'labels'}, {out / 'distilled'}\nplot: {plot}")
    return 0
