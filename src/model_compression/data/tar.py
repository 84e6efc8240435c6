"""Tar archives of images and labels, as WebDataset writes them, as a dataset that is decoded on demand."""

import glob
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, NotThereError, SizesDifferError
from model_compression.core.files import user_path
from model_compression.core.fitting import WHOLE, Fitting
from model_compression.core.options import setting
from model_compression.data.class_numbers import class_numbers
from model_compression.data.dataset import Dataset, Labels, check_pair, check_same_size
from model_compression.data.folder import TEST, TRAIN
from model_compression.data.hold_out import hold_out_test
from model_compression.data.image_files import decode_crop, decode_image, decode_scaled
from model_compression.data.listing import is_hidden
from model_compression.data.on_demand import Choose, Images, OnDemandImages, mean_and_std
from model_compression.data.tar_shards import Report, Shards, list_shards

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")
_MAX_SHARDS = 1_000_000
_NAMED = 3  # that a note names
_EXPECTED = "expected a folder of .tar files, or a pattern, as shards/train-{000..146}.tar"


@dataclass(frozen=True, eq=False)
class TarImages:
    """Images in shards, as RGB of one size."""

    shards: Shards
    size: tuple[int, int]
    """Height and width."""
    is_scaled: bool
    fit: Fitting = WHOLE

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        return (3, *self.size)

    @property
    def threads(self) -> int:
        """One for each processor: decoding releases the interpreter's lock."""
        return os.cpu_count() or 1

    def decode(self, number: int) -> Images:
        """The image (3, H, W). Raises DataError with its shard and name."""
        size = self.size if self.is_scaled else None
        image = decode_scaled(io.BytesIO(self.content(number)), self.shards.name(number), 3, size, self.fit)
        if image.shape != self.image_shape:
            raise SizesDifferError(
                f"images differ in size: the first is {self.size[1]} × {self.size[0]} pixels, "
                f"{self.shards.name(number)} {image.shape[2]} × {image.shape[1]}; give a side to scale them to, as "
                f"{setting('image_size', 224)}"
            )
        return image

    def decode_crop(self, number: int, choose: Choose) -> Images:
        """The part of the image that ``choose`` takes, scaled to (3, H, W). Raises as `decode` does."""
        file, what = io.BytesIO(self.content(number)), self.shards.name(number)
        return decode_crop(file, what, 3, self.size, choose, self.fit.interpolation)

    def identity(self, number: int) -> bytes:
        """Shard, name in it, and size in bytes."""
        return self.shards.identity(number)

    def content(self, number: int) -> bytes:
        """The encoded image."""
        return self.shards.content(number)


def load_tar(
    text: str, image_size: int = 0, report: Callable[[str], None] | None = None, fit: Fitting = WHOLE
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of a folder of .tar files, or of a pattern, as "shards/{train,val}-{00..99}.tar".

    A sample is the members of a shard that share a key, the name up to its first dot: KEY.jpg, or another image, and
    KEY.cls or KEY.json with a field "label": class numbers, or texts, which become classes in sorted order. Shards are
    of the training or the test as the words train, test or val in their names or their folder's name say; those that
    say nothing are of the training. Without any for the test a fifth of each class is held out. Training shards without
    one label, beside a labelled test, are an unlabelled training set. ``image_size`` and
    ``fit`` as in `load_folder`. What is not
    used is named in the dataset's ``notes``.

    Raises DataError for shards that are damaged or hold no such samples, NotThereError where there are none.
    """
    say = report or (lambda text: None)
    train_paths, test_paths = _split(text, find_shards(text), say)
    parts = [list_shards(paths, say) for paths in (train_paths, test_paths) if paths]
    chosen = [_labels(shards, may_lack=shards is not parts[-1]) for shards in parts]
    rows, labels = zip(*chosen, strict=True)
    known = [one for one in labels if one is not None]
    names = [_namer(*part) for part, one in zip(zip(parts, rows, strict=True), labels, strict=True) if one is not None]
    numbers, classes = class_numbers(known, f"tar:{text}", names)
    if len(known) < len(parts):
        say(f"the training shards of {text} hold no labels: they are trained on without")
        numbers = [np.zeros(len(rows[0]), dtype=np.int64), *numbers]
    made: list[Dataset] = []
    for shards, own_rows, own, given, ending in zip(parts, rows, numbers, labels, ("", "-test"), strict=False):
        made.append(_dataset(shards, own_rows, own, classes, text + ending, image_size, fit, given is not None, made))
    if len(made) == 1:
        return hold_out_test(made[0], f"{text} has no shards for the test", say)
    train, test = made
    check_pair(train, test)
    check_same_size(train, test)
    return train, test


def _dataset(
    shards: Shards, rows: npt.NDArray[np.int64], labels: Labels, classes: tuple[str, ...], name: str, image_size: int,
    fit: Fitting, labelled: bool, before: list[Dataset],
) -> Dataset:  # fmt: skip
    """With the mean and deviation of the first of ``before``, if there is one."""
    size = (image_size, image_size)
    if not image_size:
        first = int(rows[0])
        image = decode_image(io.BytesIO(shards.content(first)), shards.name(first))
        size = (image.height, image.width)
    images = OnDemandImages(source=TarImages(shards, size, bool(image_size), fit), rows=rows)
    mean, std = (before[0].mean, before[0].std) if before else mean_and_std(images.sample())
    unused = np.setdiff1d(np.arange(len(shards)), rows)
    left_out = [shards.left_out] * bool(shards.left_out)
    if len(unused):
        named = ", ".join(shards.name(int(number)) for number in unused[:_NAMED])
        left_out.append(f"{len(unused):,} image without a label ({named}{', …' if len(unused) > _NAMED else ''})")
    return Dataset(
        name=name,
        samples=images,
        labels=labels,
        class_names=classes,
        mean=mean,
        std=std,
        source="tar shards",
        path=shards.paths[0].parent,
        labelled=labelled,
        notes=(f"{shards.paths[0].parent}: left out: {'; '.join(left_out)}",) if left_out else (),
    )


def _labels(shards: Shards, may_lack: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any] | None]:
    """(rows of the images that are used, their labels); without any label all, and None, where that ``may_lack``."""
    where = f"{shards.paths[0]}" + (f" and {len(shards.paths) - 1:,} more" if len(shards.paths) > 1 else "")
    if not len(shards):
        raise DataError(f"{where}: no images in it; expected KEY.jpg and KEY.cls; found {shards.left_out or 'nothing'}")
    rows = np.flatnonzero(shards.codes >= 0)
    if len(rows):
        is_numbers = all(isinstance(value, int) for value in shards.values)
        return rows, np.array(shards.values, dtype=np.int64 if is_numbers else object)[shards.codes[rows]]
    if may_lack:
        return np.arange(len(shards)), None
    raise DataError(f"{where}: no image has a label; expected KEY.cls or KEY.json, with a 'label', beside KEY.jpg")


def _namer(shards: Shards, rows: npt.NDArray[np.int64]) -> Callable[[int], str]:
    return lambda row: shards.name(int(rows[row]))


def find_shards(text: str) -> list[Path]:
    """The shards that ``text`` names, sorted by folder and name."""
    root = user_path(text)
    if root.is_dir():
        found = [path for pattern in ("*.tar", "*/*.tar") for path in root.glob(pattern)]
        found = [path for path in found if not any(map(is_hidden, path.relative_to(root).parts))]
        if not found:
            raise DataError(f"{root} holds no .tar files; {_EXPECTED}")
        return sorted(found)
    found = []
    for pattern in _expand(str(root)):
        matched = [pattern] if Path(pattern).is_file() else glob.glob(pattern)  # noqa: PTH207  # absolute or not
        if not matched:
            raise NotThereError(f"{pattern} is not there; {_EXPECTED}")
        found += [Path(path) for path in matched]
    return sorted(set(found))


def _expand(pattern: str) -> Iterator[str]:
    """The patterns without braces, as a shell has it: {000..146} and {train,val}."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    numbers = _RANGE.fullmatch(braces[1])
    choices: Sequence[str] = braces[1].split(",")
    if numbers is not None:
        low, high = int(numbers[1]), int(numbers[2])
        if not low <= high < low + _MAX_SHARDS:
            raise DataError(f"{{{braces[1]}}} in {pattern} must be a range of at most {_MAX_SHARDS:,}, low to high")
        choices = [str(number).zfill(len(numbers[1])) for number in range(low, high + 1)]
    for choice in choices:
        yield from _expand(pattern[: braces.start()] + choice + pattern[braces.end() :])


def _split(text: str, paths: list[Path], say: Report) -> tuple[list[Path], list[Path]]:
    """(those of the training, those of the test) by the words in their names; of test and val only one is used."""
    words = [_word(path) for path in paths]
    test_word = next((word for word in TEST if word in words), None)
    train_word = next((word for word in TRAIN if word in words), "")
    train = [path for path, word in zip(paths, words, strict=True) if word == train_word]
    if not train:
        raise DataError(f"{text} has shards for {test_word} but none for the training; {_EXPECTED}")
    unused = sorted(set(words) - {test_word, train_word})
    if unused:
        names = ", ".join(word or "those without such a word" for word in unused)
        say(f"{text}: shards of {train_word or 'no word'} and {test_word or 'no test'} are used; not used: {names}")
    return train, [path for path, word in zip(paths, words, strict=True) if word == test_word]


def _word(path: Path) -> str:
    """Which of the words train, test, val, … the name of a shard has, else its folder's name is; "" for none."""
    known = (*TRAIN, *TEST)
    parts = [*re.split(r"[^a-z]+", path.stem.lower()), path.parent.name.lower()]
    return next((part for part in parts if part in known), "")
