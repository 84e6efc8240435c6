"""A folder of one folder for each class, with images in them, as a dataset that is decoded when it is asked for."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from model_compression.core.errors import DataError, NotThereError, SizesDifferError
from model_compression.core.files import user_path
from model_compression.core.fitting import WHOLE, Fitting
from model_compression.core.options import setting, settings
from model_compression.data.dataset import Dataset, Labels, check_pair, check_same_size
from model_compression.data.folder_files import Files, Report, list_files
from model_compression.data.folder_images import FolderImages
from model_compression.data.hold_out import hold_out_test
from model_compression.data.image_files import ARRAYS, is_image, num_channels, size_of
from model_compression.data.listing import is_hidden
from model_compression.data.on_demand import OnDemandImages, mean_and_std

T = TypeVar("T")

_NO_CLASS = "unlabelled"
_USUAL_SIZE = 224  # pixels, of images that differ in size where nobody names one
_AT_ONCE = 10_000  # files that wait to be opened
TRAIN, TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")


@dataclass(frozen=True)
class Form:
    """What images become, as `load_folder` says, and who is told."""

    image_size: int
    fit: Fitting
    say: Report


def load_folder(
    path: str | Path,
    image_size: int = 0,
    report: Callable[[str], None] | None = None,
    fit: Fitting = WHOLE,
    *,
    needs_labels: bool = True,
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of ``path``, which holds train/ and test/ or val/ with class folders, or class folders.

    Without a folder for the test a fifth of each class is held out, the same images every time. A train/ with images
    and no class folders, beside a test/ with class folders, is an unlabelled training set. ``image_size`` is the side
    of the square that images become, as ``fit`` says; 0 takes them as they are, all of one size. Images are turned as
    their EXIF data say, and become RGB; files .npy hold (C, H, W) or (H, W) of any number of channels. Unless it
    ``needs_labels`` the folder may hold images in no class folders, at any depth: a fifth of them is held out, and
    images of several sizes become squares of 224 pixels. Mean and deviation are those of up to 1,000 training images.
    Images are decoded when they are asked for, see `OnDemandImages`. Hidden files and folders are no data; what else is
    no image is named in the dataset's ``notes``.

    Raises DataError for a folder that is something else, classes that differ, and images that cannot be read.
    """
    root, say = user_path(path), report or (lambda text: None)
    form = Form(image_size, fit, say)
    if not root.exists():
        raise NotThereError(f"{root} is not there; expected a folder that holds a folder of images for each class")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one that holds a folder of images for each class")
    train_root, test_root = (first_of(root, names) for names in (TRAIN, TEST))
    if train_root is None and test_root is not None:
        raise DataError(f"{root} has {test_root.name}/ but no train/; expected both, or class folders alone")
    if test_root is None:
        return _split_off_test(train_root or root, root, form, needs_labels=needs_labels)
    assert train_root is not None
    unused = [name for name in _subfolders(root) if name not in (train_root.name, test_root.name)]
    if unused:
        say(f"{root}: {train_root.name}/ and {test_root.name}/ are used; not used: {', '.join(unused)}")
    test_classes = classes_in(test_root)
    if _is_unlabelled(train_root):
        say(f"{train_root} holds images and no class folders: they are trained on without labels")
        train = _load_unlabelled(train_root, root.name, test_classes, form)
    else:
        classes = classes_in(train_root)
        check_same_classes(classes, test_classes, train_root, test_root)
        train = _load_labelled(train_root, root.name, classes, form)
    test = _load_labelled(test_root, f"{root.name}-test", test_classes, form, like=train)
    check_pair(train, test)
    check_same_size(train, test)
    return train, test


def first_of(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the folders ``names`` that ``root`` has."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def _subfolders(root: Path) -> list[str]:
    """The names of the folders in ``root`` that are not hidden, sorted."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def classes_in(root: Path) -> tuple[str, ...]:
    names = _subfolders(root)
    if len(names) < 2:
        found = f"the folder {names[0]!r} alone" if names else "no folders"
        raise DataError(f"{root} holds {found}; expected a folder of images for each of at least two classes")
    return tuple(names)


def check_same_classes(train: tuple[str, ...], test: tuple[str, ...], train_root: Path, test_root: Path) -> None:
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


def _split_off_test(folder: Path, root: Path, form: Form, *, needs_labels: bool) -> tuple[Dataset, Dataset]:
    if not needs_labels and len(_subfolders(folder)) < 2:
        whole = _load_unlabelled(folder, root.name, (_NO_CLASS,), form, usual_size=_USUAL_SIZE)
        return hold_out_test(whole, f"{root} holds images and no class folders", form.say)
    if _is_unlabelled(folder):
        raise DataError(
            f"{folder} holds images and no class folders; to train on them without labels, name a dataset with "
            f"labels for the test beside them: {settings(data='NAME', unlabelled=f'folder:{folder}')}"
        )
    whole = _load_labelled(folder, root.name, classes_in(folder), form)
    return hold_out_test(whole, f"{root} has no test/ or val/", form.say)


def _load_labelled(
    folder: Path, name: str, classes: tuple[str, ...], form: Form, like: Dataset | None = None
) -> Dataset:
    """The images in the folders ``classes`` of ``folder``, with the mean and deviation of ``like``, else their own."""
    files = list_files(folder, classes, form.say)
    labels = np.repeat(np.arange(len(classes)), files.counts).astype(np.int64)
    return _dataset(name, files, open_images(files, form), classes, labels, like)


def _load_unlabelled(folder: Path, name: str, classes: tuple[str, ...], form: Form, usual_size: int = 0) -> Dataset:
    """All images below ``folder``; those of several sizes become squares of ``usual_size``, if there is one."""
    files = list_files(folder, ("",), form.say)
    if usual_size and not form.image_size:
        try:
            _common_size(files)
        except SizesDifferError:
            form = replace(form, image_size=usual_size)
            form.say(
                f"{folder}: images differ in size, and are scaled to {usual_size} pixels ({setting('image_size')})"
            )
    return _dataset(name, files, open_images(files, form), classes)


def _dataset(
    name: str, files: Files, images: OnDemandImages, class_names: tuple[str, ...],
    labels: Labels | None = None, like: Dataset | None = None,
) -> Dataset:  # fmt: skip
    """Without ``like`` mean and deviation are those of ``images``."""
    mean, std = mean_and_std(images.sample()) if like is None else (like.mean, like.std)
    return Dataset(
        name=name,
        samples=images,
        labels=np.zeros(len(images), dtype=np.int64) if labels is None else labels,
        class_names=class_names,
        mean=mean,
        std=std,
        source="folder",
        path=files.root,
        labelled=labels is not None,
        notes=(*(_loose_note(files.root) if labels is not None else ()), *files.notes),
    )


def _loose_note(folder: Path) -> list[str]:
    loose = _loose_images(folder)
    more = ", …" if len(loose) > 3 else ""
    named = f"({', '.join(loose[:3])}{more})"
    return [f"{folder}: left out, as they lie in no class folder: {len(loose):,} images {named}"] if loose else []


def open_images(files: Files, form: Form) -> OnDemandImages:
    """The images of ``files`` in the ``form`` that is wanted."""
    channels, *size = files.shape or (_common_channels(files),)
    if form.image_size:
        size = [form.image_size, form.image_size]
    else:
        size = size or [*_common_size(files)]
        if len(files.shape) < 3:
            files = files.with_shape((channels, *size), form.say)
    source = FolderImages(files, (size[0], size[1]), bool(form.image_size), channels, form.fit)
    return OnDemandImages(source=source, rows=np.arange(len(files)))


def _common_channels(files: Files) -> int:
    """C of all images. Raises DataError where files .npy lie among others, or differ."""
    if not files.num_arrays:
        return 3
    if files.num_arrays < len(files):
        array = next(path for path in files if path.suffix.lower() == ARRAYS)
        other = next(path for path in files if path.suffix.lower() != ARRAYS)
        raise DataError(f"{array} is an array and {other} an image file; expected one kind of file in a dataset")
    expected, others = _common(files, num_channels)
    if others is not None:
        raise DataError(
            f"images differ in channels: {files[0]} has {expected}, {others[0]} {others[1]}; expected as many in all"
        )
    return expected


def _common_size(files: Files) -> tuple[int, int]:
    """(H, W) of all images, as their headers say. Raises SizesDifferError with the first that is of another size."""
    expected, other = _common(files, size_of)
    if other is not None:
        raise SizesDifferError(
            f"images differ in size: {files[0]} is {expected[1]} × {expected[0]} pixels, {other[0]} {other[1][1]} × "
            f"{other[1][0]} pixels; give a side to scale them to, as {setting('image_size', 224)}"
        )
    return expected


def _common(files: Files, value_of: Callable[[Path], T]) -> tuple[T, tuple[Path, T] | None]:
    """The value of the first file, and the first file that has another one, with that; None where all have it."""
    expected = value_of(files[0])
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(files), _AT_ONCE):
            part = [files[number] for number in range(first, min(first + _AT_ONCE, len(files)))]
            for path, value in zip(part, pool.map(value_of, part), strict=True):
                if value != expected:
                    return expected, (path, value)
    return expected, None
