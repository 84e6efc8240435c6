"""A built-in dataset of coloured patterns for quick trials and tests: nothing is downloaded, a few steps learn it."""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_compression.data.dataset import Dataset

SIDE = 32
NUM_TRAIN, NUM_TEST = 1000, 500
SEED = 20_160_930
NOISE = 60


class Stripes(NamedTuple):
    """What a class looks like: direction (steps across and down), period in pixels, colour of every other stripe."""

    across: int
    down: int
    period: int
    colour: tuple[int, int, int]


# Direction, width and colour all count: two classes share each colour, two each direction and width. A flip from left
# to right makes no class look like another.
PATTERNS = {
    "red-columns": Stripes(1, 0, 8, (200, 60, 60)),
    "green-columns": Stripes(1, 0, 8, (60, 200, 60)),
    "green-rows": Stripes(0, 1, 8, (60, 200, 60)),
    "blue-rows": Stripes(0, 1, 8, (60, 60, 200)),
    "blue-diagonals": Stripes(1, 1, 10, (60, 60, 200)),
    "yellow-diagonals": Stripes(1, 1, 10, (190, 190, 60)),
    "yellow-pillars": Stripes(1, 0, 20, (190, 190, 60)),
    "cyan-pillars": Stripes(1, 0, 20, (60, 190, 190)),
    "cyan-bands": Stripes(0, 1, 20, (60, 190, 190)),
    "red-bands": Stripes(0, 1, 20, (200, 60, 60)),
}
MEAN = (0.43840, 0.49014, 0.43972)
STD = (0.22842, 0.23423, 0.22875)


def load_synthetic(
    data_dir: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] | None = None,
    allow_download: bool = True,
) -> tuple[Dataset, Dataset]:
    """Ten classes of noisy stripes, 32 × 32 × 3: (training set of 1,000, test set of 500), balanced.

    For smoke runs and tests only; an accuracy on it says nothing about a method. Made by integer arithmetic from a
    fixed seed, so every machine has the same bytes. The arguments are those of every data source; here they change
    nothing.
    """
    generator = np.random.Generator(np.random.PCG64(SEED))
    return _split("synthetic", NUM_TRAIN, generator), _split("synthetic-test", NUM_TEST, generator)


def _split(name: str, count: int, generator: np.random.Generator) -> Dataset:
    labels = generator.permutation(np.arange(count, dtype=np.int64) % len(PATTERNS))
    phases = generator.integers(0, SIDE, size=count)
    noise = generator.integers(-NOISE, NOISE + 1, size=(count, 3, SIDE, SIDE))
    patterns = list(PATTERNS.values())
    images = np.stack([_draw(patterns[label], int(phase)) for label, phase in zip(labels, phases, strict=True)])
    return Dataset(
        name=name,
        samples=np.clip(images + noise, 0, 255).astype(np.uint8),
        labels=labels,
        class_names=tuple(PATTERNS),
        mean=MEAN,
        std=STD,
        source="generated",
    )


def _draw(stripes: Stripes, phase: int) -> npt.NDArray[np.int64]:
    """Stripes on grey, (3, 32, 32), shifted by ``phase`` pixels."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    lit = (stripes.across * columns + stripes.down * rows + phase) % stripes.period < stripes.period // 2  # (32, 32)
    return np.where(lit, np.array(stripes.colour)[:, None, None], 110)
