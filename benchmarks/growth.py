"""How cost grows: speed with the batch, the teacher's cache with images and views; how long commands take to start.

python -m benchmarks.growth [--seconds 8]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch

from benchmarks.record import line, surroundings, write
from benchmarks.speed import measure
from benchmarks.ways import Job
from model_compression import load_cifar10, load_model
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.device import choose_device, choose_precision, keep_freed_memory
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.engine.teachers import cached_teacher

BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)
FILLS = ((5_000, 1), (10_000, 1), (20_000, 1), (5_000, 2), (5_000, 4))  # images, views
COMMANDS = (["--help"], ["distill", "--help"], ["cache", "info"])


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="each batch size a round (default: 8)")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = choose_device(args.device)
    starts = {" ".join(command): start_seconds(command) for command in COMMANDS}
    fills = [fill(images, views, args.device) for images, views in FILLS]
    rates = {
        size: measure(["bare"], Job(batch_size=size, device=args.device), 2, args.seconds)["bare"].rate
        for size in BATCHES
    }
    where = surroundings(device)
    text = "\n".join(
        [
            "# How cost grows",
            "",
            f"{line(where)}. `python -m benchmarks.growth`.",
            "",
            "| batch | LeNet, bare loop, images/s |",
            "|---|---|",
            *(f"| {size} | {rate:,.0f} |" for size, rate in rates.items()),
            "",
            "| images | views | filling, s | images/s | MB |",
            "|---|---|---|---|---|",
            *(
                f"| {row['images']:,} | {row['views']} | {row['seconds']:.1f} "
                f"| {row['images'] * row['views'] / row['seconds']:,.0f} | {row['bytes'] / 1e6:.2f} |"
                for row in fills
            ),
            "",
            "| command | seconds to start and end, median of 7 |",
            "|---|---|",
            *(f"| `model-compression {command}` | {seconds:.2f} |" for command, seconds in starts.items()),
            "",
        ]
    )
    print(text)
    content = {"surroundings": where, "images_per_second_by_batch": rates, "fills": fills, "start_seconds": starts}
    write(f"growth-{device.type}", content, text)


def start_seconds(command: list[str]) -> float:
    """Median wall-clock time of a command, from a warm disk."""
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "model_compression.cli.main", *command], stdout=subprocess.DEVNULL, check=True
        )
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def fill(images: int, views: int, device_name: str) -> dict[str, Any]:
    """Time and size of storing the NIN's answers to ``views`` views of ``images`` images."""
    device = choose_device(device_name)
    keep_freed_memory(device)
    data = DataConfig(augmentation="flip_shift", views=views)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            student=ModelConfig(name="lenet"),
            teacher=ModelConfig(name="nin-cifar10"),
            method=MethodConfig(name="kd"),
            data=data,
            epochs=views,
            teacher_cache=folder,
        )
        train = load_cifar10()[0].subset(range(images))
        live = LiveTeacher([load_model("nin-cifar10")], device, choose_precision("auto", device))
        teacher = cached_teacher(config, live, train, lambda done, total: None, print)
        assert teacher is not None
        live.answer(teacher._loader.batch(torch.arange(500, device=device), 0))  # warm
        begun = time.perf_counter()
        for view in range(views):
            teacher.view(view)
        seconds = time.perf_counter() - begun
        return {"images": images, "views": views, "seconds": seconds, "bytes": teacher.store.size_bytes()}


if __name__ == "__main__":
    main()
