"""What distillation gives a small network for segmentation, over several seeds, on scenes of real pixels.

    python -m benchmarks.segmentation [--seeds 3] [--scenes FOLDER]

The scenes are composed here, so that their masks are exact: one or two handwritten digits of scikit-learn, of the
classes 0 to 4, lie on crops of its two photographs. The ink of a digit is a crop of the other photograph, so that its
shape alone tells the class. Handwriting and halves of the photographs in the test set are none of the training set. A
run that was interrupted goes on; one with a record in results/segmentation is not run again. The table is written from
all records.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.record import line
from benchmarks.recorded_runs import make_recorded, metrics_of
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.files import write_atomically
from model_compression.core.optim_config import OptimConfig
from model_compression.reports.statistics import summarise
from model_compression.tasks.segmentation.task import MIOU

FOLDER, RUNS = Path("results/segmentation"), Path("runs/segmentation")
SIDE, TRAIN, TEST = 32, 3000, 600
_DIGITS = 5  # from 0 on, each a class
Pixels = npt.NDArray[np.uint8]

METHODS: dict[str, MethodConfig | None] = {
    "labels only": None,
    "kd": MethodConfig(name="kd", label_weight=0.5, params={"temperature": 2.0}),
    "cwd on logits": MethodConfig(name="cwd", params={"on": "logits"}),
    "kd + pairwise": MethodConfig(
        name="kd,pairwise", label_weight=0.5, params={"kd.temperature": 2.0}, pairs={"level.fuse": "level.fuse"}
    ),
}


def compose(folder: Path) -> None:
    """Writes the scenes: train/ and test/ with images/ and masks/, and classes.txt."""
    from sklearn.datasets import load_digits, load_sample_image

    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    digits = load_digits()
    order = np.random.default_rng(0).permutation(np.flatnonzero(digits.target < _DIGITS))
    fifth = len(order) // 5
    for part, count, chosen, left in (("train", TRAIN, order[fifth:], True), ("test", TEST, order[:fifth], False)):
        rng = np.random.default_rng(1 if left else 2)
        grounds = [_half(photograph, left) for photograph in photographs]
        for name in ("images", "masks"):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = _scene(rng, grounds, digits.images[chosen], digits.target[chosen])
            Image.fromarray(image).save(folder / part / "images" / f"{number:05}.png")
            Image.fromarray(mask).save(folder / part / "masks" / f"{number:05}.png")
    names = ["ground", *(f"digit {digit}" for digit in range(_DIGITS))]
    write_atomically(folder / "classes.txt", "\n".join(names).encode())


def _half(photograph: Pixels, left: bool) -> Pixels:
    middle = photograph.shape[1] // 2
    return photograph[:, :middle] if left else photograph[:, middle:]


def _crop(rng: np.random.Generator, photograph: Pixels, side: int) -> Pixels:
    down, across = (int(rng.integers(size - side)) for size in photograph.shape[:2])
    return photograph[down : down + side, across : across + side]


def _scene(
    rng: np.random.Generator, grounds: list[Pixels], images: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> tuple[Pixels, Pixels]:
    """An image (H, W, 3) and its mask (H, W)."""
    which = int(rng.integers(2))
    image = _crop(rng, grounds[which], SIDE).copy()
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    for _ in range(rng.integers(1, 3)):
        chosen, side = int(rng.integers(len(labels))), int(rng.integers(16, 25))
        grey = Image.fromarray((images[chosen] * 15.9).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        shape = np.asarray(grey) > 110
        down, across = rng.integers(SIDE - side + 1, size=2)
        place = np.s_[down : down + side, across : across + side]
        image[place][shape] = _crop(rng, grounds[1 - which], side)[shape]
        mask[place][shape] = labels[chosen] + 1
    return image, mask


def config_of(scenes: Path, width: int, method: MethodConfig | None, seed: int, epochs: int) -> TrainConfig:
    """A run: the same recipe for teacher and students, but for the epochs."""
    return TrainConfig(
        student=ModelConfig(name="unet", options={"width": width}),
        teacher=None if method is None else ModelConfig(name=str(RUNS / "teacher" / "student.safetensors")),
        method=method,
        data=DataConfig(name=f"folder:{scenes}"),
        optim=OptimConfig(optimizer="adamw", lr=4e-3, weight_decay=0.01, schedule="one_cycle"),
        epochs=epochs,
        batch_size=32,
        precision="fp32",
        seed=seed,
    )


def main() -> None:
    """Runs what has no record yet, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method (default: 3)")
    parser.add_argument("--scenes", type=Path, default=RUNS / "scenes", help="where the scenes are written")
    parser.add_argument("--first", default="", help="run this method only, as kd")
    args = parser.parse_args()
    if not (args.scenes / "classes.txt").exists():
        compose(args.scenes)
    make_recorded("teacher", config_of(args.scenes, 24, None, 100, 14), FOLDER, RUNS, teaches=True)
    for seed in range(args.seeds):
        for name, method in METHODS.items():
            if args.first in ("", name):
                make_recorded(_name(name, seed), config_of(args.scenes, 16, method, seed, 8), FOLDER, RUNS)
    text = table()
    write_atomically(FOLDER / "table.md", text.encode())
    print(text)


def _name(method: str, seed: int | str) -> str:
    return f"{method.replace(' + ', '-').replace(' ', '-')}-seed{seed}"


def table() -> str:
    """Markdown: mIoU of teacher and of each method, a mean over its seeds."""
    teacher = json.loads((FOLDER / "teacher.json").read_text())
    figures = teacher["metrics"]
    lines = [
        "# A small network for segmentation, with and without a teacher",
        "",
        f"{line(teacher['surroundings'])}.",
        "",
        "`python -m benchmarks.segmentation`: scenes of 32 × 32 pixels, composed from scikit-learn's digits and "
        f"photographs; {TRAIN:,} for training, {TEST} for the test. Epochs: 14 of the teacher, 8 of students.",
        "",
        "| network | parameters | trained with | mIoU, mean | each seed | against labels only | pixel accuracy |",
        "|---|---:|---|---:|---|---:|---:|",
        f"| teacher | {figures['parameters']:,} | labels only | {figures['test_miou']:.2%} | | "
        f"| {figures['test_pixel_accuracy']:.2%} |",
    ]
    alone: list[float] = []
    for name in METHODS:
        runs = metrics_of(FOLDER, _name(name, "*"))
        if not runs:
            continue
        values = [run["test_miou"] for run in runs]
        alone = alone or values
        mean = summarise(values)
        gain = summarise([one - other for one, other in zip(values, alone, strict=False)])
        gained = "" if name == "labels only" else MIOU.points(gain.mean, gain.half_width)
        accuracy = sum(run["test_pixel_accuracy"] for run in runs) / len(runs)
        lines.append(
            f"| student | {runs[0]['parameters']:,} | {name} | {MIOU.text(mean.mean, half_width=mean.half_width)} "
            f"| {', '.join(f'{value:.2%}' for value in values)} | {gained} | {accuracy:.2%} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
