"""A folder of one folder for each class, with images in them, as a data set in memory."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from model_compression.data.dataset import Dataset, Images, Labels, hold_out
from model_compression.errors import DataError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_TRAIN, _TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")
_HELD_OUT = 0.2  # of the images, where there is no folder for the test


def load_folder(
    path: str | Path, image_size: int = 0, report: Callable[[str], None] | None = None
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of ``path``, which holds train/ and test/ or val/ with class folders, or class folders.

    Without a folder for the test a fifth of each class is held out, the same images every time. ``image_size`` is the
    side to which the shorter side is scaled and the longer one cropped; 0 takes images as they are, all of one size.
    Images are turned as their EXIF data say, and become RGB. Mean and deviation are those of the training images.

    Raises DataError for a folder that is something else, classes that differ, and images that cannot be read.
    """
    root, say = Path(path).expanduser(), report or (lambda text: None)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one that holds a folder of images for each class")
    train_root, test_root = (_first_of(root, names) for names in (_TRAIN, _TEST))
    if train_root is None and test_root is not None:
        raise DataError(f"{root} has {test_root.name}/ but no train/; expected both, or class folders alone")
    classes = _classes(train_root or root)
    files = _files(train_root or root, classes)
    images, labels = _read(files, image_size), _labels(files)
    if test_root is None:
        whole = _dataset(root.name, images, labels, classes, root)
        train, test = hold_out(whole, max(1, round(_HELD_OUT * len(whole))), seed=0)
        say(f"{root} has no test/ or val/: {len(test)} of {len(whole)} images are held out for the test")
        return train, test
    unused = [name for name in _TEST if (root / name).is_dir() and name != test_root.name]
    if unused:
        say(f"{root}: the test is on {test_root.name}/; {', '.join(unused)}/ is not used")
    _check_same_classes(classes, _classes(test_root), train_root or root, test_root)
    test_files = _files(test_root, classes)
    test_images = _read(test_files, image_size)
    if test_images.shape[1:] != images.shape[1:]:
        sizes = [f"{shape[3]} × {shape[2]}" for shape in (images.shape, test_images.shape)]
        raise DataError(f"images of {train_root} are {sizes[0]} pixels, of {test_root} {sizes[1]}; give --image-size")
    train = _dataset(root.name, images, labels, classes, root)
    return train, Dataset(
        name=f"{root.name}-test",
        images=test_images,
        labels=_labels(test_files),
        class_names=train.class_names,
        mean=train.mean,
        std=train.std,
        source="folder",
        path=test_root,
    )


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


def _files(root: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """Image files with their class number, in the order of class and path."""
    files: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (root / name).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not found:
            raise DataError(f"{root / name} holds no images ({', '.join(sorted(SUFFIXES))}); fill it, or delete it")
        files += [(path, label) for path in found]
    return files


def _labels(files: Sequence[tuple[Path, int]]) -> Labels:
    return np.array([label for _, label in files], dtype=np.int64)


def _read(files: Sequence[tuple[Path, int]], image_size: int) -> Images:
    """All images (N, 3, H, W). Raises DataError with the first that cannot be read, or that is of another size."""
    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter's lock
        images = list(pool.map(lambda entry: _decoded(entry[0], image_size), files))
    other = next((number for number, image in enumerate(images) if image.shape != images[0].shape), None)
    if other is not None:
        (h, w), (height, width) = images[0].shape[:2], images[other].shape[:2]
        raise DataError(
            f"images differ in size: {files[0][0]} is {w} × {h} pixels, {files[other][0]} {width} × {height}; "
            "give a side to scale them to, as --image-size 64"
        )
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def _decoded(path: Path, image_size: int) -> Images:
    """One image (H, W, 3)."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"its mode is {image.mode!r}, of more than 8 bits; save it with 8 bits a channel")
            image = image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}; repair or delete it") from None
    if image_size:
        image = ImageOps.fit(image, (image_size, image_size), method=Image.Resampling.BICUBIC)
    return np.asarray(image)


def _dataset(name: str, images: Images, labels: Labels, classes: tuple[str, ...], path: Path) -> Dataset:
    pixels = images.transpose(1, 0, 2, 3).reshape(images.shape[1], -1)
    mean = tuple(round(float(channel.mean()) / 255, 5) for channel in pixels)
    std = tuple(max(round(float(channel.std(dtype=np.float64)) / 255, 5), 1e-5) for channel in pixels)
    return Dataset(
        name=name, images=images, labels=labels, class_names=classes, mean=mean, std=std, source="folder", path=path
    )
