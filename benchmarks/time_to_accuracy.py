"""From the shipped teacher alone to a student of a given test accuracy: reading, filling the cache, training, testing.

    python -m benchmarks.time_to_accuracy [--goals 72 80] [--seeds 3]

A run is planned for each goal, its last epoch is what is reported, and its whole wall-clock time counts.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import line, surroundings, write
from model_compression import start_run
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.device import choose_device
from model_compression.core.optim_config import OptimConfig
from model_compression.engine.teachers import num_views

TEACHER = "whitening-cnn-small-cifar10"  # answers twice as fast as nin-cifar10, and is right more often
_ADAMW = OptimConfig(optimizer="adamw", lr=2e-3, weight_decay=0.05, schedule="one_cycle")


def plan(goal: int, seed: int, device: str) -> TrainConfig:
    """The shortest run that was found to reach ``goal`` percent (72 or 80)."""
    plain, augmented = DataConfig(), DataConfig(augmentation="flip_shift", shift=2)
    return TrainConfig(
        student=ModelConfig(name="lenet", options={"init": "default"}),
        teacher=ModelConfig(name=TEACHER),
        method=MethodConfig(name="kd"),
        data=plain if goal <= 72 else augmented,
        teacher_view="same" if goal <= 72 else "plain",
        optim=_ADAMW,
        batch_size=128,
        epochs=3 if goal <= 72 else 9,
        seed=seed,
        device=device,
    )


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goals", type=int, nargs="+", default=[72, 80], choices=[72, 80])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = choose_device(args.device)
    runs: list[dict[str, Any]] = []
    for goal in args.goals:
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                os.environ["MODEL_COMPRESSION_CACHE"] = folder  # nothing is stored yet
                begun = time.perf_counter()
                metrics = start_run(plan(goal, seed, args.device), Path(folder) / "run")
                seconds = time.perf_counter() - begun
            runs.append({"goal": goal, "seed": seed, "seconds": seconds, "test_accuracy": metrics["test_accuracy"]})
            print(runs[-1])
    where = surroundings(device)
    rows = []
    for goal in args.goals:
        of_goal = [run for run in runs if run["goal"] == goal]
        accuracies = ", ".join(f"{run['test_accuracy']:.2%}" for run in of_goal)
        config = plan(goal, 0, args.device)
        rows.append(
            f"| {goal} % | {config.epochs} | {num_views(config)} | {accuracies} "
            f"| {statistics.median(run['seconds'] for run in of_goal):.0f} |"
        )
    text = "\n".join(
        [
            f"# Time to accuracy, LeNet from {TEACHER}",
            "",
            f"{line(where)}. Reading the data, filling the teacher's cache and the test included; "
            "`python -m benchmarks.time_to_accuracy`.",
            "",
            "| goal | epochs | views the teacher answers | test accuracy, last epoch, each seed | seconds, median |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )
    print(text)
    write(f"time-to-accuracy-{device.type}", {"surroundings": where, "runs": runs}, text)


if __name__ == "__main__":
    main()
