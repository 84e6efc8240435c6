"""Whether --precision auto takes the faster precision: twelve networks, each trained in every precision in turn.

python -m benchmarks.precision [--networks lenet resnet20] [--seconds 20] [--clock thread]

auto decides first, as in a run, with an empty cache. Then whole training steps are timed: one epoch of a few steps in
each precision, in turn, until the seconds are over. The least time of a step counts, as what else runs only adds to it.
On a machine that other programs share, --clock thread counts the time that the training thread computes.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import line, surroundings, write
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.device import (
    PRECISIONS,
    choose_device,
    choose_precision,
    keep_freed_memory,
    precision_name,
)
from model_compression.core.optim_config import OptimConfig
from model_compression.data.dataset import Dataset
from model_compression.engine.measured_precision import candidates, fastest_precision
from model_compression.engine.networks import load_student
from model_compression.engine.runtime import Runtime
from model_compression.engine.trainer import Trainer

FOLDER = Path("results/precision")
GOAL = 1.03  # times as long as the best
_STEPS, _FEWEST_ROUNDS = 2, 2
_CLOCKS = {"wall": time.perf_counter, "thread": time.thread_time}


@dataclass(frozen=True)
class Case:
    """A network, the side of its images, and the batch."""

    network: str
    side: int
    batch: int


CASES = (
    Case("lenet", 32, 256),
    Case("nin", 32, 64),
    Case("resnet20", 32, 128),
    Case("vgg8", 32, 128),
    Case("mobilenet_v2", 32, 64),
    Case("shufflenet_v2", 32, 64),
    Case("timm:resnet18", 112, 32),
    Case("timm:mobilenetv3_small_050", 224, 32),
    Case("timm:efficientnet_b0", 64, 32),
    Case("timm:convnext_atto", 96, 32),
    Case("torchvision:squeezenet1_1", 128, 32),
    Case("timm:vit_tiny_patch16_224", 224, 8),
)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=[case.network for case in CASES], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=20.0, help="each network (default: 20)")
    parser.add_argument("--clock", choices=_CLOCKS, default="wall", help="default: wall")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = choose_device(args.device)
    keep_freed_memory(device)
    native = precision_name(choose_precision("native", device))
    rows = []
    for case in CASES:
        if args.networks is None or case.network in args.networks:
            rows.append(measured(case, args.seconds, args.clock, device))
            print(rows[-1], flush=True)
    where = surroundings(device)
    text = table(rows, native, f"{line(where)}. `python -m benchmarks.precision --clock {args.clock}`", device)
    print(text)
    write(
        f"precision-{device.type}",
        {"surroundings": where, "clock": args.clock, "native": native, "rows": rows},
        text,
        FOLDER,
    )


def measured(case: Case, seconds: float, clock: str, device: torch.device) -> dict[str, Any]:
    """What auto takes and how long that took, and the times of whole steps in each precision."""
    data = images(case)
    config = TrainConfig(student=ModelConfig(name=case.network), batch_size=case.batch, optim=OptimConfig(lr=1e-4))
    first = torch.from_numpy(data.images[:1])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODEL_COMPRESSION_CACHE"] = folder
        student = load_student(config.student, data, seed=0)
        begun = time.perf_counter()
        taken = fastest_precision(student, first, case.batch, config.optim, device, lambda text: None)
        deciding = time.perf_counter() - begun
    trainers = {
        name: Trainer(
            config,
            load_student(config.student, data, seed=0),
            None,
            data,
            Runtime(device=device, precision=PRECISIONS[name]),
        )
        for name in candidates(device)
    }
    times: dict[str, list[float]] = {name: [] for name in trainers}
    end = time.perf_counter() + seconds
    number = 0
    while number <= _FEWEST_ROUNDS or time.perf_counter() < end:
        for name, trainer in trainers.items():
            found = epoch_times(trainer, _CLOCKS[clock])
            times[name] += found if number else []  # the first round prepares kernels
        number += 1
    return {
        "network": case.network,
        "side": case.side,
        "batch": case.batch,
        "seconds": {name: min(steps) for name, steps in times.items()},
        "median_seconds": {name: statistics.median(steps) for name, steps in times.items()},
        "steps": len(next(iter(times.values()))),
        "auto": taken,
        "auto_seconds": deciding,
    }


def epoch_times(trainer: Trainer, clock: Callable[[], float]) -> list[float]:
    """Seconds of each step of an epoch."""
    marks = [clock()]

    def stepped(progress: Any) -> None:
        progress.loss  # noqa: B018  (waits for the device)
        marks.append(clock())

    trainer.run_epoch(stepped)
    return [after - before for before, after in itertools.pairwise(marks)]


def images(case: Case) -> Dataset:
    """Random images of ten classes, for an epoch of a few steps."""
    rng, count = np.random.default_rng(0), _STEPS * case.batch
    return Dataset(
        name="random",
        samples=rng.integers(0, 256, (count, 3, case.side, case.side), dtype=np.uint8),
        labels=np.arange(count, dtype=np.int64) % 10,
        class_names=tuple("abcdefghij"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )


def table(rows: list[dict[str, Any]], native: str, where: str, device: torch.device) -> str:
    """The page: milliseconds of a step in each precision, and how near to the best auto comes."""
    names = list(candidates(device))
    lines = [
        "# What --precision auto takes",
        "",
        f"{where}. The native precision is {native}.",
        "",
        f"| network | pixels | batch | {' | '.join(f'{name}, ms a step' for name in names)} | auto takes | × best "
        "| native × best | s to decide |",
        "|---|---:|---:|" + "---:|" * len(names) + "---|---:|---:|---:|",
    ]
    for row in rows:
        best = min(row["seconds"].values())
        times = " | ".join(f"{1000 * row['seconds'][name]:.1f}" for name in names)
        share, of_native = row["seconds"][row["auto"]] / best, row["seconds"][native] / best
        lines.append(
            f"| `{row['network']}` | {row['side']} | {row['batch']} | {times} | {row['auto']} | {share:.2f} "
            f"| {of_native:.2f} | {row['auto_seconds']:.1f} |"
        )
    shares = [row["seconds"][row["auto"]] / min(row["seconds"].values()) for row in rows]
    near = sum(share <= GOAL for share in shares)
    return "\n".join([*lines, "", f"Within {GOAL - 1:.0%} of the best: {near} of {len(rows)}.", ""])


if __name__ == "__main__":
    main()
