"""Mask files: class numbers of pixels from palette, grey and coloured images, and the classes that a table names."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_compression.core.errors import DataError, reason_of
from model_compression.core.fitting import WHOLE, Fitting
from model_compression.core.masks import IGNORE, MAX_CLASSES, Masks
from model_compression.core.options import setting
from model_compression.data.image_files import ARRAYS, array_image, open_image, upright
from model_compression.data.scaling import Size, fit_mask

TASK = "segmentation"
TABLE = "classes.txt"
_VOID = "ignore"  # the name in a table of what does not count
_LOSSY = frozenset({"JPEG", "MPO", "AVIF"})  # formats that change numbers
_WEBP_LOSSY = b"VP8 "  # names the chunk of a WebP file that holds a lossy image


@dataclass(frozen=True)
class ClassTable:
    """Names of classes in the order of their numbers, and if masks are coloured a class number by its colour."""

    names: tuple[str, ...] = ()
    colours: dict[int, int] | None = None
    """65,536 · red + 256 · green + blue → class number, or `IGNORE`."""


def read_table(path: Path) -> ClassTable:
    """The table of a file: a line for each class, in order, its name, its number and name, or R G B and its name.

    A line with the name "ignore" gives the colour of pixels that do not count; one that begins with # is a comment.
    Raises DataError that names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from None
    names: list[str] = []
    colours: dict[int, int] = {}
    entries = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    entries = [(number, words) for number, words in entries if not words[0].startswith("#")]
    coloured = bool(entries) and all(_is_coloured(words) for _, words in entries)
    if not coloured:
        entries = _without_numbers(path, entries)
    for number, words in entries:
        name = " ".join(words[3:] if coloured else words)
        if name in names:
            raise DataError(f"{path}, line {number}: the class {name!r} is there twice; expected one line for a class")
        if not coloured and name == _VOID:
            raise DataError(
                f"{path}, line {number}: {_VOID!r} is for the colour of pixels that do not count, as 255 255 255 "
                f"{_VOID}; these masks have the number of such pixels: take the line out, and give "
                f"{setting('ignore_index')}"
            )
        if not coloured:
            names.append(name)
            continue
        red, green, blue = map(int, words[:3])
        colour = red << 16 | green << 8 | blue
        if max(red, green, blue) > 255 or colour in colours:
            raise DataError(
                f"{path}, line {number}: the colour {red} {green} {blue} is of another line, or beyond 255; expected "
                "three numbers from 0 to 255, others in each line"
            )
        colours[colour] = IGNORE if name == _VOID else len(names)
        if name != _VOID:
            names.append(name)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(f"{path} names {len(names)} classes; expected 2 to {MAX_CLASSES}, one a line")
    return ClassTable(tuple(names), colours if coloured else None)


def _without_numbers(path: Path, entries: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """The lines without class numbers, where all begin with one. Raises DataError unless these are 0, 1, …"""
    if not all(len(words) > 1 and words[0].isdecimal() for _, words in entries):
        return entries
    for place, (number, words) in enumerate(entries):
        if int(words[0]) != place:
            raise DataError(
                f"{path}, line {number}: the class number is {words[0]}, expected {place}: a line for each class, 0, 1 "
                "and so on in order"
            )
    return [(number, words[1:]) for number, words in entries]


def _is_coloured(words: list[str]) -> bool:
    return len(words) > 3 and all(word.isdecimal() for word in words[:3])


def read_mask(
    source: Path | bytes,
    what: str,
    image: Path | str,
    image_size: Size,
    table: ClassTable,
    ignore: int,
    size: Size | None,
    fit: Fitting = WHOLE,
) -> Masks:
    """(H, W) class numbers of the mask in ``source``, brought to ``size`` as its image is, without blending.

    ``image_size`` (H, W) is that of the ``image``. The value ``ignore`` becomes `IGNORE`, as do the pixels that the
    table ignores. Raises DataError that calls the mask ``what``, for one of another size, and for values or colours
    that are no classes.
    """
    colours = table.colours
    values = _values(source, what) if colours is None else _coloured(source, what, colours)
    if values.shape != image_size:
        found, expected = (f"{width} × {height}" for height, width in (values.shape, image_size))
        raise DataError(f"{what} has {found} pixels, and its image {image} {expected}; expected the same size")
    if colours is None:
        _check_values(what, values, table, ignore)
        values = np.where(values == ignore, IGNORE, values)
    return fit_mask(values.astype(np.uint8), size, fit)


def _values(source: Path | bytes, what: str) -> npt.NDArray[np.int64]:
    """(H, W) numbers of a palette or grey image, or of a .npy file."""
    if isinstance(source, Path) and source.suffix.lower() == ARRAYS:
        array = array_image(source)
        if len(array) != 1:
            raise DataError(f"{what} has {len(array)} channels; expected one, of class numbers")
        return np.asarray(array[0], dtype=np.int64)
    image = _opened(source, what)
    if image.mode == "F":
        raise DataError(f"{what} holds fractions; expected class numbers: save it as whole numbers")
    if image.mode not in ("P", "L", "1", "I") and not image.mode.startswith("I;16"):
        raise DataError(
            f"{what} is coloured ({image.mode}), and nothing says which class a colour is; expected a palette or grey "
            f"image of class numbers, or a {TABLE} in the folder with a line R G B NAME for each class"
        )
    values: npt.NDArray[np.int64] = np.asarray(image).astype(np.int64)
    return values


def _coloured(source: Path | bytes, what: str, colours: dict[int, int]) -> npt.NDArray[np.int64]:
    """(H, W) class numbers of colours. Raises DataError for one that is not in the table."""
    pixels = np.asarray(_opened(source, what).convert("RGB")).astype(np.int64)
    keys = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    known = np.array(sorted(colours))
    numbers = np.array([colours[int(key)] for key in known])
    places = np.searchsorted(known, keys).clip(max=len(known) - 1)
    wrong = known[places] != keys
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{what}: the pixel in row {row}, column {column} is {' '.join(map(str, pixels[row, column]))}, a colour "
            f"which is not in {TABLE}; add a line for it, or save masks without smoothing and JPEG"
        )
    found: npt.NDArray[np.int64] = numbers[places]
    return found


def _opened(source: Path | bytes, what: str) -> Image.Image:
    """The pixels of a mask, turned as its EXIF data say, as those of images are."""
    try:
        content = source if isinstance(source, bytes) else source.read_bytes()
        with open_image(io.BytesIO(content)) as file:
            if file.format in _LOSSY or (file.format == "WEBP" and _WEBP_LOSSY in content[:64]):
                raise ValueError(f"{file.format} changes the numbers of pixels when it saves; save masks as PNG")
            file.load()
            return upright(file)[0].copy()  # its pixels, whatever becomes of the file
    except Exception as error:  # a damaged file meets code that expects none
        raise DataError(
            f"{what} cannot be read as a mask: {reason_of(error)}; repair it, or take image and mask out"
        ) from None


def _check_values(what: str, values: npt.NDArray[np.int64], table: ClassTable, ignore: int) -> None:
    """Raises DataError for a value that is neither a class nor ``ignore``."""
    most = len(table.names) or MAX_CLASSES
    wrong = (values != ignore) & ((values < 0) | (values >= most))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{what}: the pixel in row {row}, column {column} is {values[row, column]}; expected a class number from 0 "
            f"to {most - 1}, or {ignore} where it does not count ({setting('ignore_index')})"
        )


def number_classes(given: Sequence[Masks]) -> tuple[str, ...]:
    """Names "0", "1", … up to the largest class that occurs in masks of training and test."""
    most = max(int(one[one != IGNORE].max(initial=0)) for one in given)
    if most < 1:
        raise DataError(
            f"the masks hold no class but 0; expected at least two: name them in a {TABLE}, with R G B before each "
            "name where masks are black and white"
        )
    return tuple(map(str, range(most + 1)))


def masks_of_arrays(what: str, values: npt.NDArray[Any], shape: tuple[int, ...], ignore: int) -> Masks:
    """Masks (N, H, W) of class numbers that are given in an array, for images of ``shape`` (N, C, H, W).

    Raises DataError, with the number of the mask, for values that are neither a class nor ``ignore``.
    """
    expected = (shape[0], *shape[2:])
    if values.shape != expected or values.dtype.kind not in "iu":
        raise DataError(
            f"{what} masks are {values.dtype} of shape {values.shape}; expected whole numbers {expected}, as the images"
        )
    wrong = ((values != ignore) & ((values < 0) | (values >= MAX_CLASSES))).any(axis=(1, 2))
    if wrong.any():
        number = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{what} mask {number} holds {values[number].min()} to {values[number].max()}; expected class numbers from "
            f"0 to {MAX_CLASSES - 1}, or {ignore} where a pixel does not count ({setting('ignore_index')})"
        )
    return np.where(values == ignore, IGNORE, values).astype(np.uint8)
