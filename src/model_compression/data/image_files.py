"""Image files: which names are those of one, and what is decoded from it."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from model_compression.core.errors import DataError, reason_of
from model_compression.core.fitting import WHOLE, Fitting, Interpolation
from model_compression.data.on_demand import Choose, Images, PixelBox
from model_compression.data.scaling import MUCH_LARGER, Box, Size, least_sides, scale, scale_crop

Least = Callable[[int, int], Size]

ARRAYS = ".npy"  # an image (C, H, W) or (H, W), uint8: of any number of channels
# What Pillow knows by name only, or leaves to other programs.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODES = {1: "L", 3: "RGB"}  # by the number of channels
MAX_PIXELS = 2**26  # Pillow holds 4 bytes for each, once or twice, in each thread that decodes


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Endings, in small letters, of what this Pillow can decode, and .npy."""
    formats = _formats()
    known = (suffix for suffix, name in Image.registered_extensions().items() if name in formats)
    return frozenset({ARRAYS, *known})


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.OPEN if name not in _NOT_DECODED)


def is_image(path: str | Path) -> bool:
    """Whether the ending of a file's name is that of an image."""
    _, dot, ending = str(path).rpartition(".")
    return dot + ending.lower() in image_suffixes()


def common_suffixes() -> str:
    """The usual ones, for messages."""
    return ", ".join(sorted({".jpg", ".png", ".webp", ".avif", ".tif", ".npy"} & image_suffixes())) + " and others"


def open_image(source: str | Path | IO[bytes]) -> Image.Image:
    """An image file, as `PIL.Image.open`, of the formats that are decoded here and by no other program."""
    return Image.open(source, formats=_formats())


def decode_image(source: str | Path | IO[bytes], what: str, channels: int = 3) -> Image.Image:
    """The image in ``source``, turned as its EXIF data say: RGB of 3 ``channels``, grey of 1, of 8 bits each.

    Of the metadata the orientation alone counts, and damaged ones do not stop an image. What lies behind transparent
    pixels is shown; 16 bits of grey become the upper 8. A JPEG file of more than `MAX_PIXELS` is decoded at half its
    width and height, if it is stored line by line.

    Raises DataError that calls it ``what``, also for other images of more than `MAX_PIXELS`.
    """
    return _decode(source, what, channels, None)[0]


def decode_scaled(
    source: str | Path | IO[bytes], what: str, channels: int, size: Size | None, fit: Fitting = WHOLE
) -> Images:
    """(C, H, W) of what `decode_image` gives, brought to ``size`` (H, W) as ``fit`` says, or as it is.

    A JPEG file that is much larger is decoded at a half, a quarter or an eighth of its width and height.
    """
    image, box = _decode(source, what, channels, None if size is None else lambda height, width: least_sides(size, fit))
    return scale(image, size, box, fit)


def decode_crop(
    source: str | Path | IO[bytes],
    what: str,
    channels: int,
    size: Size,
    choose: Choose,
    interpolation: Interpolation = "bicubic",
) -> Images:
    """(C, H, W): the part that ``choose`` takes of what `decode_image` gives, scaled to ``size`` (H, W), whole.

    A JPEG file of which that part is much larger is decoded at a half, a quarter or an eighth of its width and height.
    """
    chosen: list[tuple[tuple[int, int], PixelBox]] = []

    def part_of(height: int, width: int) -> PixelBox:
        if not chosen:
            chosen.append(((height, width), choose(height, width)))
        return chosen[0][1]

    def least(height: int, width: int) -> Size:
        _, _, high, wide = part_of(height, width)
        return math.ceil(MUCH_LARGER * size[0] * height / high), math.ceil(MUCH_LARGER * size[1] * width / wide)

    image, (first, upper, last, lower) = _decode(source, what, channels, least)
    top, left, high, wide = part_of(image.height, image.width)
    whole = chosen[0][0]
    down, across = (lower - upper) / whole[0], (last - first) / whole[1]  # decoded pixels to one of the file
    rows = _edges(upper + top * down, high * down, image.height)
    columns = _edges(first + left * across, wide * across, image.width)
    pixels = np.atleast_3d(np.array(image.crop((columns[0], rows[0], columns[1], rows[1]))))
    return scale_crop(pixels.transpose(2, 0, 1), size, interpolation)


def _edges(first: float, length: float, limit: int) -> tuple[int, int]:
    """The whole pixels nearest to a span, at least one."""
    low = min(round(first), limit - 1)
    return low, min(limit, max(low + 1, round(first + length)))


def _decode(source: str | Path | IO[bytes], what: str, channels: int, least: Least | None) -> tuple[Image.Image, Box]:
    """The image and where in it the scene is: decoded smaller, its last pixels may be shares of one.

    ``least`` gives the height and width that must be kept, of those of the image; None: all.
    """
    if channels not in _MODES:
        raise DataError(f"{what} cannot be an image of {channels} channels; give a file {ARRAYS} of (C, H, W)")
    try:
        with open_image(source) as file:
            drafted = _draft(file, least)
            _refuse_too_large(file)
            file.load()
            width, height = drafted or file.size
            image, orientation = upright(file)
            width, height = (height, width) if orientation >= 5 else (width, height)
            left = image.width - width if orientation in (2, 3, 6, 7) else 0.0  # where the last pixels come to be
            top = image.height - height if orientation in (3, 4, 7, 8) else 0.0
            box = (left, top, left + width, top + height)
            return _of_8_bits(image, file.format).convert(_MODES[channels]), box
    except Exception as error:  # a damaged file meets code that expects none, in one of forty formats
        raise _unreadable(what, error) from None


def _draft(file: Image.Image, least: Least | None) -> tuple[float, float] | None:
    """Lets a JPEG file be decoded smaller, where ``least`` allows it or it is too large; (width, height)."""
    if not isinstance(file, JpegImageFile):
        return None
    kept = [*file.size]
    if least is not None:
        turned = _orientation(file) >= 5
        height, width = least(*(file.size if turned else file.size[::-1]))
        kept = [height, width] if turned else [width, height]
    if _is_too_large(file) and not file.info.get("progressive"):  # which is held whole, whatever its scale
        kept = [min(side, whole // 2) for side, whole in zip(kept, file.size, strict=True)]
    drafted = file.draft(None, (kept[0], kept[1]))
    return drafted and drafted[1][2:]


def upright(file: Image.Image) -> tuple[Image.Image, int]:
    """(an image that is loaded, turned as its EXIF data say; how these said that it lay, 1 to 8)."""
    orientation = _orientation(file)
    turn = _TURNS.get(orientation)
    return (file if turn is None else file.transpose(turn)), orientation


def size_of(path: Path) -> tuple[int, int]:
    """(H, W) of an image file as it is decoded, from its header. Raises DataError that names it."""
    try:
        if path.suffix.lower() == ARRAYS:
            shape = _map_array(path).shape
            return shape[-2], shape[-1]
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(str(path), error) from None
    return encoded_size(path, str(path))


def encoded_size(source: Path | IO[bytes], what: str) -> tuple[int, int]:
    """The same of an encoded image, also in memory. Raises DataError that calls it ``what``."""
    try:
        with open_image(source) as file:
            _refuse_too_large(file)
            turned = _orientation(file) >= 5  # by 90 degrees, one way or the other
            if turned and file.format == "TIFF":  # Pillow turns these itself, when it loads them
                file.load()
                turned = False
            width, height = file.size
    except Exception as error:
        raise _unreadable(what, error) from None
    return (width, height) if turned else (height, width)


def _is_too_large(file: Image.Image) -> bool:
    return file.width * file.height > MAX_PIXELS


def _refuse_too_large(file: Image.Image) -> None:
    if _is_too_large(file):
        raise ValueError(
            f"it has {file.width:,} × {file.height:,} pixels, expected at most {MAX_PIXELS:,}; scale it down"
        )


def read_whole(path: Path, channels: int) -> Images:
    """The image (C, H, W) of a file at its own size. Raises DataError that names it."""
    image = array_image(path) if path.suffix.lower() == ARRAYS else decode_scaled(path, str(path), channels, None)
    if len(image) != channels:
        raise DataError(f"{path} has {len(image)} channels; expected {channels}")
    return image


def array_image(path: Path) -> Images:
    """The image (C, H, W) of a .npy file. Raises DataError that names it."""
    return np.array(_map_array(path))


def num_channels(path: Path) -> int:
    """C of a .npy file; 3 of other images, which become RGB."""
    return len(_map_array(path)) if path.suffix.lower() == ARRAYS else 3


def _map_array(path: Path) -> Images:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise _unreadable(str(path), error) from None
    array = array[None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or 0 in array.shape:
        found = f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{path} holds {found}; expected an image of uint8 (C, H, W) or (H, W), pixels of 0 to 255")
    if array.shape[2] in (1, 2, 3, 4) and len(array) > 4:
        raise DataError(f"{path} is {array.shape}, channels last; expected (C, H, W): save image.transpose(2, 0, 1)")
    if array.nbytes > 4 * MAX_PIXELS:
        raise DataError(f"{path} holds {array.nbytes:,} bytes; expected at most {4 * MAX_PIXELS:,} for one image")
    return array  # type: ignore[no-any-return]


def _orientation(file: Image.Image) -> int:
    """1 to 8 of its EXIF data; 1, as it is, where these are damaged or say something else."""
    try:
        value = file.getexif().get(_ORIENTATION, 1)
        return int(value) if value in range(1, 9) else 1
    except Exception:
        return 1


def _of_8_bits(image: Image.Image, format: str | None) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and format in ("PNG", "PPM")):  # 0 to 65,535
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its mode is {image.mode!r}, whose black and white nobody states; save it with 8 bits")
    image.info.pop("transparency", None)  # which Pillow warns of where it is left out
    return image


def _unreadable(what: str, error: Exception) -> DataError:
    return DataError(f"{what} cannot be read as an image: {reason_of(error)}; repair it, or take it out")
