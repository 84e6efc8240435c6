"""A folder of images and a folder of masks of the same names, as a dataset with a class for each pixel."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from model_compression.core.errors import DataError, UsageError
from model_compression.core.files import user_path
from model_compression.core.fitting import WHOLE, Fitting
from model_compression.core.masks import PREDICTED, Masks
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset, check_pair, check_same_size
from model_compression.data.folder import TEST, TRAIN, Form, first_of, open_images
from model_compression.data.folder_files import Files, list_files
from model_compression.data.hold_out import hold_out_test
from model_compression.data.image_files import size_of
from model_compression.data.masks import TABLE, TASK, ClassTable, number_classes, read_mask, read_table
from model_compression.data.on_demand import OnDemandImages, Rows, mean_and_std

_AT_ONCE = 1000  # masks that wait to be put in place
_NAMED = 3  # files that a message names
Report = Callable[[str], None]


def folder_names(text: str) -> tuple[str, str]:
    """(folder of images, folder of masks) of "images,masks". Raises UsageError for other texts."""
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise UsageError(
            f"{setting('mask_folders')} must name a folder of images and one of masks, as images,masks; got {text!r}"
        )
    return names[0], names[1]


def has_masks(path: str | Path, names: tuple[str, str]) -> bool:
    """Whether ``path``, or the folder of training images in it, holds both folders."""
    root = user_path(path)
    part = first_of(root, TRAIN) if root.is_dir() else None
    return any((one / names[0]).is_dir() and (one / names[1]).is_dir() for one in (root, part) if one is not None)


def load_mask_folder(
    path: str | Path,
    names: tuple[str, str],
    ignore: int,
    image_size: int = 0,
    report: Report | None = None,
    fit: Fitting = WHOLE,
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of ``path``, which holds train/ and test/ or val/ with both folders, or both folders.

    Each image has a mask of the same name, but for the ending, and of the same size. A mask is a palette or grey
    image of class numbers, or a coloured one where `TABLE` gives each class its colour; ``ignore`` is the number of
    pixels that do not count. `TABLE` names the classes, see `read_table`; without it they are numbers. Without a
    folder for the test a fifth of the images is held out. ``image_size`` and ``fit`` are those of `load_folder`; masks
    are scaled alike, without blending. All masks are read at once and stay in memory, a byte a pixel.

    Raises DataError with the file for an image without a mask, a mask of another size, and values that are no classes.
    """
    root, say = user_path(path), report or (lambda text: None)
    table = read_table(root / TABLE) if (root / TABLE).exists() else ClassTable()
    train_root, test_root = (first_of(root, folders) for folders in (TRAIN, TEST))
    if test_root is not None and train_root is None:
        raise DataError(f"{root} has {test_root.name}/ but no train/; expected both, or {' and '.join(names)} alone")
    parts = [(train_root or root, root.name)] + ([(test_root, f"{root.name}-test")] if test_root else [])
    found = [_read(folder, names, table, ignore, Form(image_size, fit, say)) for folder, _ in parts]
    classes = table.names or number_classes([masks for *_, masks in found])
    train, *test = (
        _dataset(name, one, classes, like) for (_, name), one, like in zip(parts, found, [None, found[0]], strict=False)
    )
    if not test:
        return hold_out_test(train, f"{root} has no test/ or val/", say)
    check_pair(train, test[0])
    check_same_size(train, test[0])
    return train, test[0]


def _read(
    folder: Path, names: tuple[str, str], table: ClassTable, ignore: int, form: Form
) -> tuple[Files, OnDemandImages, tuple[str, ...], Masks]:
    """The images of a folder, notes on what was left out, and the masks (N, H, W)."""
    for name in names:
        if not (folder / name).is_dir():
            raise DataError(f"{folder} has no folder {name!r}; expected {' and '.join(names)} in it")
    files = list_files(folder / names[0], ("",), form.say)
    images = open_images(files, form)
    masks = list_files(folder / names[1], ("",), form.say)
    rows = np.array([number for number in range(len(files)) if not files[number].name.endswith(PREDICTED)], int)
    if not len(rows):
        raise DataError(f"{files.root} holds no images but masks that `predict` has written; bring the images")
    images = images if len(rows) == len(files) else images.subset(rows)
    paths, notes = _masks_of(files, rows, folder / names[1], masks)
    height, width = images.shape[2:]
    size = (height, width) if form.image_size else None

    def read(number: int) -> Masks:
        own = size_of(files[int(rows[number])]) if form.image_size else (height, width)
        path = paths[number]
        return read_mask(path, str(path), files[int(rows[number])], own, table, ignore, size, form.fit)

    found = np.empty((len(rows), height, width), dtype=np.uint8)
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(rows), _AT_ONCE):
            part = range(first, min(first + _AT_ONCE, len(rows)))
            for number, mask in zip(part, pool.map(read, part), strict=True):
                found[number] = mask
    return files, images, (*files.notes, *masks.notes, *notes), found


def _dataset(
    name: str,
    found: tuple[Files, OnDemandImages, tuple[str, ...], Masks],
    classes: tuple[str, ...],
    like: tuple[Files, OnDemandImages, tuple[str, ...], Masks] | None,
) -> Dataset:
    """With mean and deviation of the images of ``like``, else their own."""
    files, images, notes, masks = found
    mean, std = mean_and_std((images if like is None else like[1]).sample())
    return Dataset(
        name=name,
        samples=images,
        labels=masks,
        class_names=classes,
        mean=mean,
        std=std,
        source="folder",
        path=files.root.parent,
        notes=notes,
        task=TASK,
    )


def _masks_of(files: Files, rows: Rows, folder: Path, masks: Files) -> tuple[list[Path], tuple[str, ...]]:
    """The mask of each image at ``rows``, and a note on masks without one. Raises DataError for images without."""
    known: dict[str, Path] = {}
    for number in range(len(masks)):
        if (other := known.setdefault(_stem(masks, number), masks[number])) != masks[number]:
            raise DataError(f"{other} and {masks[number].name} are masks of one image; take all but one out")
    stems = [_stem(files, int(row)) for row in rows]
    missing = [files[int(row)] for row, stem in zip(rows, stems, strict=True) if stem not in known]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        listed = ", ".join(map(str, missing[:_NAMED]))
        raise DataError(f"{listed}{more}: no mask of that name in {folder}; bring it, or take the image out")
    if len({*stems}) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise DataError(f"{files.root}: several images are called {twice}, and share a mask; rename all but one")
    unused = sorted(known.keys() - {*stems})
    note = f"{folder}: left out, as no image has their name: {len(unused):,} masks ({', '.join(unused[:_NAMED])})"
    return [known[stem] for stem in stems], ((note,) if unused else ())


def _stem(files: Files, number: int) -> str:
    """The name of a file below its folder, without its ending."""
    return str(PurePosixPath(files.names.text_of(number)).with_suffix(""))
