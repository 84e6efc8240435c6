"""What the recipe that a run chooses gives, against the options' plain defaults, and the trials that it was found by.

    python -m benchmarks.default_recipe [--tune] [--fashion FOLDER] [--seeds 3]

The plain defaults are Adam at 1e-3, batches of 256, no augmentation. `--tune` compares rates and weight decays on 2,000
training images of CIFAR-10 that are held out. Without it three sets are trained on and tested on their test images:
5,000 images of CIFAR-10, and two that nothing was tuned on: 5,000 of Fashion-MNIST (FOLDER has the four files
*-ubyte.gz, as the Debian package dataset-fashion-mnist brings them) and scikit-learn's digits, the last 360 as test.
Grey images are given as RGB. The student is resnet8, 10 epochs. A run that has a record in results/default-recipe is
not made again; the table is written from all records.
"""

import argparse
import dataclasses
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.record import line, surroundings
from benchmarks.recorded_runs import make_recorded, metrics_of
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import GIVEN
from model_compression.core.data_config import DataConfig
from model_compression.core.files import write_atomically
from model_compression.core.metric import DEFAULT_METRIC
from model_compression.core.run_options import LEFT_OPEN, with_settings
from model_compression.data.dataset import Dataset
from model_compression.data.sources import load_dataset
from model_compression.engine.parts import Parts
from model_compression.reports.statistics import summarise

FOLDER, RUNS = Path("results/default-recipe"), Path("runs/default-recipe")
COUNT, HELD_OUT, EPOCHS = 5_000, 2_000, 10
TRIALS: dict[str, dict[str, Any]] = {
    "chosen": {},
    "rate 2e-3": {"lr": 2e-3},
    "rate 8e-3": {"lr": 8e-3},
    "weight decay 0.05": {"weight_decay": 0.05},
    "batches of 256": {"batch_size": 256},
}
Pair = tuple[Dataset, Dataset]


def main() -> None:
    """Makes the runs that have no record yet, prints the tables and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="make the trials instead")
    parser.add_argument("--fashion", type=Path, help="folder with the files of Fashion-MNIST (default: left out)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default: 3)")
    args = parser.parse_args()
    if args.tune:
        for name, settings in TRIALS.items():
            _make(f"trial {name}", with_settings(_config("trial", "chosen", 0), settings), _trial_data())
    else:
        pairs = {"CIFAR-10": _cifar10(), "digits": _digits()}
        if args.fashion:
            pairs["Fashion-MNIST"] = _fashion(args.fashion)
        for seed in range(args.seeds):
            for name, pair in pairs.items():
                for recipe in ("plain", "chosen"):
                    _make(f"{name} {recipe} seed{seed}", _config(name, recipe, seed), pair)
    text = tables()
    write_atomically(FOLDER / "table.md", text.encode())
    print(text)


def _config(data: str, recipe: str, seed: int) -> TrainConfig:
    return TrainConfig(
        student=ModelConfig(name="resnet8"),
        data=DataConfig(name=f"{GIVEN}{data}"),
        epochs=EPOCHS,
        seed=seed,
        precision="fp32",
        left_open=[*LEFT_OPEN] if recipe == "chosen" else [],
    )


def _make(name: str, config: TrainConfig, pair: Pair) -> None:
    make_recorded(_file(name), config, FOLDER, RUNS, parts=Parts(data=pair))


def _file(name: str) -> str:
    return name.lower().replace(" ", "-")


def _cifar10() -> Pair:
    train, test = load_dataset("cifar10")
    return _part(train, slice(COUNT)), test


def _trial_data() -> Pair:
    train, _ = load_dataset("cifar10")
    return _part(train, slice(COUNT)), _part(train, slice(COUNT, COUNT + HELD_OUT))


def _part(dataset: Dataset, rows: slice) -> Dataset:
    return dataclasses.replace(dataset, samples=dataset.images[rows], labels=dataset.labels[rows], digest="")


def _digits() -> Pair:
    from sklearn.datasets import load_digits

    found = load_digits()
    images, count = (found.images * 255 / 16).round().astype(np.uint8), len(found.target) - 360
    return _grey("digits", images[:count], found.target[:count], images[count:], found.target[count:])


def _fashion(folder: Path) -> Pair:
    images, labels = (
        [_idx(folder, part, kind) for part in ("train", "t10k")] for kind in ("images-idx3", "labels-idx1")
    )
    return _grey("Fashion-MNIST", images[0][:COUNT], labels[0][:COUNT], images[1], labels[1])


def _idx(folder: Path, part: str, kind: str) -> npt.NDArray[np.uint8]:
    data = gzip.decompress((folder / f"{part}-{kind}-ubyte.gz").read_bytes())
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _grey(name: str, *arrays: npt.NDArray[Any]) -> Pair:
    mean, std = float(arrays[0].mean() / 255), float(arrays[0].std() / 255)
    first, second = (
        Dataset(
            name=name,
            samples=np.repeat(arrays[at][:, None], 3, axis=1),
            labels=arrays[at + 1].astype(np.int64),
            class_names=tuple("0123456789"),
            mean=(mean,) * 3,
            std=(std,) * 3,
        )
        for at in (0, 2)
    )
    return first, second


def tables() -> str:
    """Markdown: accuracy on test images by set and recipe, and that of the trials on held-out images."""
    key, parts = DEFAULT_METRIC.key("test"), []
    rows = []
    for data in ("CIFAR-10", "Fashion-MNIST", "digits"):
        found = {recipe: metrics_of(FOLDER, _file(f"{data} {recipe} seed*")) for recipe in ("plain", "chosen")}
        if not all(found.values()):
            continue
        cells = [summarise([one[key] for one in runs]) for runs in found.values()]
        texts = [DEFAULT_METRIC.text(one.mean, half_width=one.half_width) for one in cells]
        rows.append(f"| {data} | {texts[0]} | {texts[1]} | {cells[1].n} |")
    if rows:
        parts += [
            "| test accuracy, resnet8, 10 epochs | plain defaults | chosen recipe | seeds |",
            "|---|---:|---:|---:|",
        ]
        parts += [*rows, "", "± is the half-width of the 95 % interval over seeds (t distribution).", ""]
    trials = {name: metrics_of(FOLDER, _file(f"trial {name}")) for name in TRIALS}
    if any(trials.values()):
        parts += ["| trial | accuracy on 2,000 held-out training images of CIFAR-10, one seed |", "|---|---:|"]
        parts += [f"| {name} | {DEFAULT_METRIC.text(found[0][key])} |" for name, found in trials.items() if found]
        parts += [""]
    return "\n".join([*parts, line(surroundings(torch.device("cpu"))), ""])


if __name__ == "__main__":
    main()
