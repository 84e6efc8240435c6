"""Whether a student loses accuracy when only the teacher's K largest logits are stored: kd on CIFAR-10, paired seeds.

    python -m benchmarks.topk_accuracy [--seeds 3] [--epochs 10] [--kept 3 5]

The student and teacher are those of the demo. A run that has a record in results/topk-accuracy is not run again; the
table is written from all records.
"""

import argparse
import dataclasses
from pathlib import Path

from model_compression.core.config import TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.files import write_atomically
from model_compression.core.metric import ACCURACY
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.parts import Parts
from model_compression.engine.training import Training
from model_compression.experiments.recipes import demo_pair
from model_compression.experiments.records import is_recorded, logs, write_record
from model_compression.reports.records import read_record, record_path
from model_compression.reports.statistics import paired_gain, summarise

FOLDER, RUNS = Path("results/topk-accuracy"), Path("runs/topk-accuracy")


def plan(kept: int, seed: int, epochs: int) -> TrainConfig:
    """The demo's distilled student, from the ``kept`` largest logits, or from all if 0."""
    config = demo_pair(teacher="nin-cifar10", epochs=epochs, data=DataConfig())["distilled"]
    return dataclasses.replace(config, seed=seed, teacher_cache_topk=kept, evaluate_every=epochs)


def main() -> None:
    """Trains what has no record yet, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    parser.add_argument("--epochs", type=int, default=10, help="default: 10")
    parser.add_argument("--kept", type=int, nargs="+", default=[3, 5], metavar="K", help="default: 3 5")
    args = parser.parse_args()
    parts = Parts()
    for kept in args.kept:
        for seed in range(args.seeds):
            for number in (0, kept):  # pair by pair
                make(number, seed, args.epochs, parts)
    text = table(args.seeds, args.epochs, args.kept)
    write_atomically(FOLDER / "table.md", text.encode())
    print(text)


def make(kept: int, seed: int, epochs: int, parts: Parts) -> None:
    """Trains a student, unless it has its record."""
    name, config = arm(kept), plan(kept, seed, epochs)
    record, folder = record_path(FOLDER, name, seed), RUNS / f"{name}-seed{seed}"
    if not is_recorded(record, config):
        with ConsoleObserver() as observer:
            observer.message(str(folder))
            metrics = Training(config, folder, observer, parts).finish()
        FOLDER.mkdir(parents=True, exist_ok=True)
        write_record(record, name, config, {"metrics": metrics, **logs(folder)})


def arm(kept: int) -> str:
    """What a setting is called."""
    return f"top_{kept}" if kept else "dense"


def table(seeds: int, epochs: int, kept: list[int]) -> str:
    """Markdown: a row for each setting, with the paired difference from dense."""
    found = {
        number: [read_record(record_path(FOLDER, arm(number), seed))["metrics"] for seed in range(seeds)]
        for number in (0, *kept)
    }
    values = {number: [metrics["test_accuracy"] for metrics in of_seeds] for number, of_seeds in found.items()}
    lines = [
        f"# The largest logits only, CIFAR-10, {epochs} epochs",
        "",
        "`python -m benchmarks.topk_accuracy`: kd, a LeNet from nin-cifar10, the last epoch, no augmentation.",
        "",
        "| stored | mean ± 95 % | agrees with teacher | points against dense, paired ± 95 % | each seed |",
        "|---|---:|---:|---:|---|",
    ]
    for number, own in values.items():
        summary, gain = summarise(own), paired_gain(own, values[0])
        agreement = summarise([metrics["teacher_agreement"] for metrics in found[number]]).mean
        against = f"{100 * gain.mean:+.2f}" + (f" ± {100 * gain.half_width:.2f}" if gain.half_width is not None else "")
        lines.append(
            f"| {f'{number} largest of 10' if number else 'all 10 logits'} "
            f"| {ACCURACY.text(summary.mean)}{ACCURACY.spread(summary.half_width)} | {agreement:.2%} "
            f"| {against if number else ''} | {', '.join(f'{value:.2%}' for value in own)} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
