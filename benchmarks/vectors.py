"""What distillation gives a small network for several classes a sample and for numbers, on real pixels of CIFAR-10.

    python -m benchmarks.vectors [--task multi-label|regression] [--seeds 3]

Labels are exact because the samples are composed here. Multi-label: mosaics of 24 pixels, of one to four images at 12
pixels, one in each corner, the others black; the classes are those of the images. Regression: how bad a picture is. The
inner 24 pixels of an image are blurred by a Gaussian of 0 to 2.5 pixels, then get Gaussian noise of 0 to 20 of 255 grey
levels; both numbers are targets. Samples for the test are made of CIFAR-10's test images. A run that has a record in
results/vectors is not run again, one that was stopped goes on; the table is written from all records.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter

from benchmarks.record import line, surroundings
from benchmarks.recorded_runs import make_recorded, metrics_of
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.files import write_atomically
from model_compression.core.metric import Metric
from model_compression.core.optim_config import OptimConfig
from model_compression.data.dataset import Dataset
from model_compression.data.sources import load_dataset
from model_compression.reports.statistics import summarise
from model_compression.tasks.multi_label.task import MEAN_AVERAGE_PRECISION
from model_compression.tasks.regression.task import R_SQUARED

FOLDER, RUNS = Path("results/vectors"), Path("runs/vectors")
TRAIN, TEST, SIDE = 2500, 1000, 24
BLUR, NOISE = 2.5, 20.0  # the most, in pixels and grey levels
Pixels = npt.NDArray[np.uint8]
TEACHER = "resnet14"
METRICS: dict[str, Metric] = {"multi-label": MEAN_AVERAGE_PRECISION, "regression": R_SQUARED}
METHODS: dict[str, dict[str, MethodConfig | None]] = {
    "multi-label": {
        "labels only": None,
        "kd": MethodConfig(name="kd", label_weight=0.5, weights={"kd": 0.5}, params={"temperature": 2.0}),
    },
    "regression": {
        "labels only": None,
        "logits and labels": MethodConfig(name="logits", label_weight=0.5),
        "bound": MethodConfig(name="bound"),
    },
}


def compose(task: str, folder: Path) -> Path:
    """Writes the samples of ``task`` and the table that names them; returns the table."""
    table = folder / f"{task}.csv"
    if table.exists():
        return table
    parts = zip(("train", "test"), load_dataset("cifar10"), (TRAIN, TEST), strict=True)
    rows = []
    for seed, (part, dataset, count) in enumerate(parts):
        rng = np.random.default_rng(seed)
        (folder / task / part).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, labels = _mosaic(rng, dataset) if task == "multi-label" else _worsened(rng, dataset)
            name = f"{task}/{part}/{number:05}.png"
            Image.fromarray(image).save(folder / name)
            rows.append(f"{name},{labels},{part}")
        head = f"path,{'classes' if task == 'multi-label' else 'blur [px],noise [levels]'},split"
    write_atomically(table, "\n".join([head, *rows, ""]).encode())
    return table


def _mosaic(rng: np.random.Generator, dataset: Dataset) -> tuple[Pixels, str]:
    image, half = np.zeros((SIDE, SIDE, 3), dtype=np.uint8), SIDE // 2
    chosen, corners = rng.integers(len(dataset), size=rng.integers(1, 5)), rng.permutation(4)
    for row, corner in zip(chosen, corners, strict=False):
        small = _picture(dataset, int(row)).resize((half, half), Image.Resampling.BOX)
        down, across = half * (corner // 2), half * (corner % 2)
        image[down : down + half, across : across + half] = np.asarray(small)
    return image, ";".join(sorted({dataset.class_names[dataset.labels[row]] for row in chosen}))


def _worsened(rng: np.random.Generator, dataset: Dataset) -> tuple[Pixels, str]:
    blur, noise, edge = float(rng.uniform(0, BLUR)), float(rng.uniform(0, NOISE)), (32 - SIDE) // 2
    picture = _picture(dataset, int(rng.integers(len(dataset)))).filter(ImageFilter.GaussianBlur(blur))
    inner = np.asarray(picture)[edge : edge + SIDE, edge : edge + SIDE]
    noisy = (inner + rng.normal(0, noise, inner.shape)).round().clip(0, 255).astype(np.uint8)
    return noisy, f"{blur:.4f},{noise:.4f}"


def _picture(dataset: Dataset, row: int) -> Image.Image:
    return Image.fromarray(dataset.images[row : row + 1][0].transpose(1, 2, 0))


def config_of(task: str, table: Path, student: str, method: MethodConfig | None, seed: int) -> TrainConfig:
    """A run: the same recipe for teacher and students, but for the teacher's epochs."""
    is_teacher = student == TEACHER
    return TrainConfig(
        student=ModelConfig(name=student),
        teacher=None if method is None else ModelConfig(name=str(RUNS / f"{task}-teacher" / "student.safetensors")),
        method=method,
        data=DataConfig(name=f"csv:{table}", task=task),
        optim=OptimConfig(optimizer="adamw", lr=5e-3, weight_decay=0.02, schedule="one_cycle"),
        epochs=12 if is_teacher else 6,
        batch_size=64,
        seed=seed,
        precision="fp32",
    )


def main() -> None:
    """Runs what has no record yet, prints the tables and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[*METHODS], help="run this task only")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method (default: 3)")
    args = parser.parse_args()
    for task in [args.task] if args.task else METHODS:
        table = compose(task, RUNS / "samples")
        make_recorded(f"{task}-teacher", config_of(task, table, TEACHER, None, 100), FOLDER, RUNS, teaches=True)
        for seed in range(args.seeds):
            for name, method in METHODS[task].items():
                make_recorded(
                    f"{task}-{name.replace(' ', '-')}-seed{seed}",
                    config_of(task, table, "resnet8", method, seed),
                    FOLDER,
                    RUNS,
                )
    text = tables()
    write_atomically(FOLDER / "table.md", text.encode())
    print(text)


def tables() -> str:
    """Markdown, a table for each task that has a teacher's record."""
    parts = []
    for task, methods in METHODS.items():
        metric, teacher = METRICS[task], metrics_of(FOLDER, f"{task}-teacher")
        if not teacher:
            continue
        key = metric.key("test")
        rows = [f"| teacher, {TEACHER} | {metric.text(teacher[0][key])} | 1 |{_errors(teacher)}"]
        for name in methods:
            found = metrics_of(FOLDER, f"{task}-{name.replace(' ', '-')}-seed*")
            if found:
                summary = summarise([one[key] for one in found])
                text = metric.text(summary.mean, half_width=summary.half_width)
                rows.append(f"| resnet8, {name} | {text} | {summary.n} |{_errors(found)}")
        head = f"| {task} | {metric.label} | seeds |" + " error of blur, px | of noise, levels |" * bool(
            _errors(teacher)
        )
        parts.append("\n".join([head, "|---|" + "---:|" * (head.count("|") - 2), *rows]))
    note = "± is the half-width of the 95 % interval over seeds (t distribution). Errors are mean absolute ones."
    return "\n\n".join([*parts, note, line(surroundings(torch.device("cpu"))), ""])


def _errors(found: list[dict[str, Any]]) -> str:
    """Cells with the mean absolute error of each number, a mean over runs; empty without one."""
    keys = [key for key in found[0] if key.startswith("test_mae ")]
    return "".join(f" {np.mean([one[key] for one in found]):.3f} |" for key in keys)


if __name__ == "__main__":
    main()
