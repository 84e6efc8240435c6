"""A folder of one folder for each class, with images in them, as a dataset that is decoded when it is asked for."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from model_compression.core.errors import DataError, NotThereError
from model_compression.core.files import user_path
from model_compression.core.options import setting, settings
from model_compression.data.dataset import Dataset, Labels, check_pair
from model_compression.data.hold_out import hold_out_test
from model_compression.data.image_files import (
    ARRAYS,
    Found,
    array_image,
    decode_image,
    find_images,
    is_hidden,
    is_image,
    left_out_note,
    num_channels,
    scale,
    size_of,
)
from model_compression.data.on_demand import Images, OnDemandImages, mean_and_std

T = TypeVar("T")

_TRAIN, _TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Image files below ``root``, of one size and number of channels."""

    root: Path
    files: tuple[Path, ...]
    size: tuple[int, int]
    """Height and width."""
    is_scaled: bool
    """Whether images are scaled and cropped to ``size``; else they have it."""
    channels: int = 3
    """3: RGB; 1: grey; other numbers only .npy files have."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, *self.size)

    @property
    def threads(self) -> int:
        """One for each processor: decoding releases the interpreter's lock."""
        return os.cpu_count() or 1

    def decode(self, number: int) -> Images:
        """The image (C, H, W). Raises DataError that names the file."""
        path = self.files[number]
        is_array = path.suffix.lower() == ARRAYS
        found = array_image(path) if is_array else decode_image(path, str(path), self.channels)
        image = scale(found, self.size if self.is_scaled else None)
        if image.shape != self.image_shape:
            shapes = [" × ".join(map(str, shape)) for shape in (image.shape, self.image_shape)]
            raise DataError(f"{path} is {shapes[0]}, channels × height × width; expected {shapes[1]}")
        return image

    def identity(self, number: int) -> bytes:
        """Path below the root, and size in bytes."""
        path = self.files[number]
        return f"{path.relative_to(self.root).as_posix()}\0{path.stat().st_size}".encode(errors="surrogateescape")

    def content(self, number: int) -> bytes:
        """The file."""
        return self.files[number].read_bytes()


def load_folder(
    path: str | Path, image_size: int = 0, report: Callable[[str], None] | None = None
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of ``path``, which holds train/ and test/ or val/ with class folders, or class folders.

    Without a folder for the test a fifth of each class is held out, the same images every time. A train/ with images
    and no class folders, beside a test/ with class folders, is an unlabelled training set. ``image_size`` is the side
    to which the shorter side is scaled and the longer one cropped; 0 takes images as they are, all of one size. Images
    are turned as their EXIF data say, and become RGB; files .npy hold (C, H, W) or (H, W) of any number of channels.
    Mean and deviation are those of up to 1,000 training images. Images are decoded when they are asked for, see
    `OnDemandImages`. Hidden files and folders are no data; what else is no image is named in the dataset's ``notes``.

    Raises DataError for a folder that is something else, classes that differ, and images that cannot be read.
    """
    root, say = user_path(path), report or (lambda text: None)
    if not root.exists():
        raise NotThereError(f"{root} is not there; expected a folder that holds a folder of images for each class")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one that holds a folder of images for each class")
    train_root, test_root = (_first_of(root, names) for names in (_TRAIN, _TEST))
    if train_root is None and test_root is not None:
        raise DataError(f"{root} has {test_root.name}/ but no train/; expected both, or class folders alone")
    if test_root is None:
        return _split_off_test(train_root or root, root, image_size, say)
    assert train_root is not None
    unused = [name for name in _subfolders(root) if name not in (train_root.name, test_root.name)]
    if unused:
        say(f"{root}: {train_root.name}/ and {test_root.name}/ are used; not used: {', '.join(unused)}")
    test_classes = _classes(test_root)
    if _is_unlabelled(train_root):
        say(f"{train_root} holds images and no class folders: they are trained on without labels")
        train = _load_unlabelled(train_root, test_classes, image_size)
    else:
        classes = _classes(train_root)
        _check_same_classes(classes, test_classes, train_root, test_root)
        train = _load_labelled(train_root, root.name, classes, image_size)
    test = _load_labelled(test_root, f"{root.name}-test", test_classes, image_size, like=train)
    check_pair(train, test)
    if test.image_shape != train.image_shape:
        sizes = [f"{width} × {height}" for _, height, width in (train.image_shape, test.image_shape)]
        raise DataError(
            f"images of {train_root} are {sizes[0]} pixels, of {test_root} {sizes[1]}; give {setting('image_size')}"
        )
    return train, test


def load_unlabelled(path: str | Path, like: Dataset) -> Dataset:
    """All images below ``path``, without labels, scaled and cropped to the size of ``like``, with its classes and mean.

    Raises DataError where there are none, or one cannot be read.
    """
    root = user_path(path)
    if not root.exists():
        raise NotThereError(f"{root} is not there; expected a folder that holds images")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one that holds images")
    channels, height, width = like.image_shape
    found = find_images(root)
    source = FolderImages(root, found.files, (height, width), True, channels)
    images = OnDemandImages(source=source, rows=np.arange(len(found.files)))
    return _dataset(root.name, root, images, [found], like.class_names, like=like)


def _first_of(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _subfolders(root: Path) -> list[str]:
    """The names of the folders in ``root`` that are not hidden, sorted."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def _classes(root: Path) -> tuple[str, ...]:
    names = _subfolders(root)
    if len(names) < 2:
        found = f"the folder {names[0]!r} alone" if names else "no folders"
        raise DataError(f"{root} holds {found}; expected a folder of images for each of at least two classes")
    return tuple(names)


def _check_same_classes(train: tuple[str, ...], test: tuple[str, ...], train_root: Path, test_root: Path) -> None:
    missing, added = sorted(set(train) - set(test)), sorted(set(test) - set(train))
    if missing or added:
        parts = [f"{test_root} lacks {', '.join(missing)}"] * bool(missing)
        parts += [f"{train_root} lacks {', '.join(added)}"] * bool(added)
        raise DataError(f"the classes differ: {'; '.join(parts)}; expected the same class folders in both")


def _is_unlabelled(root: Path) -> bool:
    return not _subfolders(root) and bool(_loose_images(root))


def _loose_images(root: Path) -> list[str]:
    """The names of the images that lie in ``root`` itself, sorted."""
    return sorted(
        entry.name for entry in root.iterdir() if is_image(entry) and not is_hidden(entry.name) and not entry.is_dir()
    )


def _split_off_test(folder: Path, root: Path, image_size: int, say: Callable[[str], None]) -> tuple[Dataset, Dataset]:
    if _is_unlabelled(folder):
        raise DataError(
            f"{folder} holds images and no class folders; to train on them without labels, name a dataset with "
            f"labels for the test beside them: {settings(data='NAME', unlabelled=f'folder:{folder}')}"
        )
    whole = _load_labelled(folder, root.name, _classes(folder), image_size)
    return hold_out_test(whole, f"{root} has no test/ or val/", say)


def _load_labelled(
    folder: Path, name: str, classes: tuple[str, ...], image_size: int, like: Dataset | None = None
) -> Dataset:
    """The images in the folders ``classes`` of ``folder``, with the mean and deviation of ``like``, else their own."""
    by_class = [find_images(folder / name) for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(found.files) for found in by_class]).astype(np.int64)
    images = _images(folder, tuple(path for found in by_class for path in found.files), image_size)
    return _dataset(name, folder, images, by_class, classes, labels, like)


def _load_unlabelled(folder: Path, classes: tuple[str, ...], image_size: int) -> Dataset:
    found = find_images(folder)
    return _dataset(folder.parent.name, folder, _images(folder, found.files, image_size), [found], classes)


def _dataset(
    name: str, folder: Path, images: OnDemandImages, found: list[Found], class_names: tuple[str, ...],
    labels: Labels | None = None, like: Dataset | None = None,
) -> Dataset:  # fmt: skip
    """``found`` is what lies in ``folder``; without ``like`` mean and deviation are those of ``images``."""
    mean, std = mean_and_std(images.sample()) if like is None else (like.mean, like.std)
    return Dataset(
        name=name,
        images=images,
        labels=np.zeros(len(images), dtype=np.int64) if labels is None else labels,
        class_names=class_names,
        mean=mean,
        std=std,
        source="folder",
        path=folder,
        labelled=labels is not None,
        notes=(*(_loose_note(folder) if labels is not None else ()), *left_out_note(folder, found)),
    )


def _loose_note(folder: Path) -> list[str]:
    loose = _loose_images(folder)
    more = ", …" if len(loose) > 3 else ""
    named = f"({', '.join(loose[:3])}{more})"
    return [f"{folder}: left out, as they lie in no class folder: {len(loose):,} images {named}"] if loose else []


def _images(root: Path, files: tuple[Path, ...], image_size: int) -> OnDemandImages:
    channels = _common_channels(files)
    size = (image_size, image_size) if image_size else _common_size(files)
    source = FolderImages(root, files, size, bool(image_size), channels)
    return OnDemandImages(source=source, rows=np.arange(len(files)))


def _common_channels(files: Sequence[Path]) -> int:
    """C of all images. Raises DataError where files .npy lie among others, or differ."""
    arrays = [path for path in files if path.suffix.lower() == ARRAYS]
    if not arrays:
        return 3
    if len(arrays) < len(files):
        other = next(path for path in files if path.suffix.lower() != ARRAYS)
        raise DataError(f"{arrays[0]} is an array and {other} an image file; expected one kind of file in a dataset")
    return _common(arrays, num_channels, lambda channels: f"of {channels} channels", "expected as many in all")


def _common_size(files: Sequence[Path]) -> tuple[int, int]:
    """(H, W) of all images, as their headers say. Raises DataError with the first that is of another size."""
    remedy = f"give a side to scale them to, as {setting('image_size', 64)}"
    return _common(files, size_of, lambda size: f"{size[1]} × {size[0]} pixels", remedy)


def _common(files: Sequence[Path], value_of: Callable[[Path], T], told: Callable[[T], str], remedy: str) -> T:
    with ThreadPoolExecutor() as pool:
        values = list(pool.map(value_of, files))
    other = next((number for number, value in enumerate(values) if value != values[0]), None)
    if other is not None:
        raise DataError(
            f"images differ in size: {files[0]} is {told(values[0])}, {files[other]} {told(values[other])}; {remedy}"
        )
    return values[0]
