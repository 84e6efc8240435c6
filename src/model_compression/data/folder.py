"""A folder of one folder for each class, with images in them, as a data set that is decoded when it is asked for."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from model_compression.data.dataset import Dataset, hold_out
from model_compression.data.lazy import Images, LazyImages, mean_and_std
from model_compression.errors import DataError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_TRAIN, _TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")
_HELD_OUT = 0.2  # of the images, where there is no folder for the test


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Image files below ``root``, as RGB of one size."""

    root: Path
    files: tuple[Path, ...]
    size: tuple[int, int]
    """Height and width."""
    is_scaled: bool
    """Whether images are scaled and cropped to ``size``; else they have it."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        return (3, *self.size)

    @property
    def threads(self) -> int:
        """One for each processor: decoding releases the interpreter's lock."""
        return os.cpu_count() or 1

    def decode(self, number: int) -> Images:
        """The image (3, H, W). Raises DataError that names the file."""
        path = self.files[number]
        try:
            with Image.open(path) as file:
                image = as_rgb(file)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{path} cannot be read as an image: {error}; repair it, or take it out") from None
        return scaled(image, self.size if self.is_scaled else None)

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
    are turned as their EXIF data say, and become RGB. Mean and deviation are those of up to 1,000 training images.
    Images are decoded when they are asked for, see `LazyImages`.

    Raises DataError for a folder that is something else, classes that differ, and images that cannot be read.
    """
    root, say = Path(path).expanduser(), report or (lambda text: None)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one that holds a folder of images for each class")
    train_root, test_root = (_first_of(root, names) for names in (_TRAIN, _TEST))
    if train_root is None and test_root is not None:
        raise DataError(f"{root} has {test_root.name}/ but no train/; expected both, or class folders alone")
    if test_root is None:
        return _held_out(train_root or root, root, image_size, say)
    assert train_root is not None
    unused = [name for name in _TEST if (root / name).is_dir() and name != test_root.name]
    if unused:
        say(f"{root}: the test is on {test_root.name}/; {', '.join(unused)}/ is not used")
    test_classes = _classes(test_root)
    if _is_unlabelled(train_root):
        say(f"{train_root} holds images and no class folders: they are trained on without labels")
        train = _unlabelled(train_root, test_classes, image_size)
    else:
        classes = _classes(train_root)
        _check_same_classes(classes, test_classes, train_root, test_root)
        train = _labelled(train_root, root.name, classes, image_size)
    test = _labelled(test_root, f"{root.name}-test", test_classes, image_size, like=train)
    if test.image_shape != train.image_shape:
        sizes = [f"{width} × {height}" for _, height, width in (train.image_shape, test.image_shape)]
        raise DataError(f"images of {train_root} are {sizes[0]} pixels, of {test_root} {sizes[1]}; give --image-size")
    return train, test


def load_unlabelled(path: str | Path, like: Dataset) -> Dataset:
    """All images below ``path``, without labels, scaled and cropped to the size of ``like``, with its classes and mean.

    Raises DataError where there are none, or one cannot be read.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one that holds images")
    channels, height, width = like.image_shape
    if channels != 3:
        raise DataError(f"images of {root} become RGB, but those of {like.name} have {channels} channels")
    files = images_below(root)
    return Dataset(
        name=root.name,
        images=LazyImages(source=FolderImages(root, files, (height, width), True), rows=np.arange(len(files))),
        labels=np.zeros(len(files), dtype=np.int64),
        class_names=like.class_names,
        mean=like.mean,
        std=like.std,
        source="folder",
        path=root,
        labelled=False,
    )


def as_rgb(file: Image.Image) -> Image.Image:
    """An opened image turned as its EXIF data say, in RGB. Raises ValueError for more than 8 bits a channel."""
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its mode is {image.mode!r}, of more than 8 bits; save it with 8 bits a channel")
    return image.convert("RGB")


def scaled(image: Image.Image, size: tuple[int, int] | None) -> Images:
    """(3, H, W) of an RGB image, scaled and cropped to ``size`` (H, W), or as it is."""
    if size is not None:
        image = ImageOps.fit(image, (size[1], size[0]), method=Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1)  # (H, W, C) → (C, H, W)


def _first_of(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _classes(root: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
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


def images_below(folder: Path) -> tuple[Path, ...]:
    """Image files in ``folder`` and the folders in it, sorted. Raises DataError where there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}); fill it, or delete it")
    return tuple(found)


def _is_unlabelled(root: Path) -> bool:
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    return not any(entry.is_dir() for entry in entries) and any(entry.suffix.lower() in SUFFIXES for entry in entries)


def _held_out(folder: Path, root: Path, image_size: int, say: Callable[[str], None]) -> tuple[Dataset, Dataset]:
    if _is_unlabelled(folder):
        raise DataError(
            f"{folder} holds images and no class folders; to train on them without labels, name a data set with "
            f"labels for the test beside them: --data NAME --unlabelled folder:{folder}"
        )
    whole = _labelled(folder, root.name, _classes(folder), image_size)
    train, test = hold_out(whole, max(1, round(_HELD_OUT * len(whole))), seed=0)
    say(f"{root} has no test/ or val/: {len(test)} of {len(whole)} images are held out for the test")
    return train, test


def _labelled(
    folder: Path, name: str, classes: tuple[str, ...], image_size: int, like: Dataset | None = None
) -> Dataset:
    """The images in the folders ``classes`` of ``folder``, with the mean and deviation of ``like``, else their own."""
    by_class = [images_below(folder / name) for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in by_class]).astype(np.int64)
    images = _lazy(folder, tuple(path for files in by_class for path in files), image_size)
    mean, std = mean_and_std(images.sample()) if like is None else (like.mean, like.std)
    return Dataset(
        name=name, images=images, labels=labels, class_names=classes, mean=mean, std=std, source="folder", path=folder
    )


def _unlabelled(folder: Path, classes: tuple[str, ...], image_size: int) -> Dataset:
    images = _lazy(folder, images_below(folder), image_size)
    mean, std = mean_and_std(images.sample())
    return Dataset(
        name=folder.parent.name,
        images=images,
        labels=np.zeros(len(images), dtype=np.int64),
        class_names=classes,
        mean=mean,
        std=std,
        source="folder",
        path=folder,
        labelled=False,
    )


def _lazy(root: Path, files: tuple[Path, ...], image_size: int) -> LazyImages:
    size = (image_size, image_size) if image_size else _common_size(files)
    return LazyImages(source=FolderImages(root, files, size, bool(image_size)), rows=np.arange(len(files)))


def _common_size(files: Sequence[Path]) -> tuple[int, int]:
    """(H, W) of all images, as their headers say. Raises DataError with the first that is of another size."""
    with ThreadPoolExecutor() as pool:
        sizes = list(pool.map(_size, files))
    other = next((number for number, size in enumerate(sizes) if size != sizes[0]), None)
    if other is not None:
        (h, w), (height, width) = sizes[0], sizes[other]
        raise DataError(
            f"images differ in size: {files[0]} is {w} × {h} pixels, {files[other]} {width} × {height}; "
            "give a side to scale them to, as --image-size 64"
        )
    return sizes[0]


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as file:
            width, height = file.size
            turned = file.getexif().get(0x0112, 1) >= 5  # by 90 degrees, one way or the other
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}; repair it, or take it out") from None
    return (width, height) if turned else (height, width)
