"""Image files: which there are below a folder, and what is decoded from one. Torch is not imported."""

import functools
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from model_compression.core.errors import DataError
from model_compression.data.on_demand import Images

ARRAYS = ".npy"  # an image (C, H, W) or (H, W), uint8: of any number of channels
# What Pillow knows by name only, or leaves to other programs.
_NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
_HIDDEN = frozenset({"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"})  # and names that begin with a dot
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
_NAMED = 3  # files that a note names


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
    return Path(path).suffix.lower() in image_suffixes()


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is what a system or an editor keeps for itself, and never data."""
    return name.startswith(".") or name in _HIDDEN


@dataclass(frozen=True)
class Found:
    """What lies below a folder: image ``files``, sorted, and what is ``left_out``, by the reason."""

    files: tuple[Path, ...]
    left_out: Mapping[str, tuple[Path, ...]]


def find_images(folder: Path) -> Found:
    """The image files in ``folder`` and the folders in it, links followed. What is hidden is passed over.

    Raises DataError where there are none, or ``folder`` itself cannot be opened.
    """
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise DataError(f"{folder} cannot be opened: {error.strerror}; change its permissions, or delete it") from None
    files, left_out = [], defaultdict(list)
    around = frozenset(_key(parent) for parent in folder.resolve().parents)
    for path, reason in _walk(folder, around):
        if reason:
            left_out[reason].append(path)
        else:
            files.append(path)
    if not files:
        others = f"{_list_files(left_out, folder)}, and " if left_out else ""
        raise DataError(f"{folder} holds {others}no images that can be read ({_common()}); fill it, or delete it")
    return Found(tuple(sorted(files)), {reason: tuple(sorted(paths)) for reason, paths in sorted(left_out.items())})


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[tuple[Path, str]]:
    """(path, why it is left out, "" for an image) of what is below ``folder``; ``above`` are the folders around it."""
    try:
        here = _key(folder)
        entries = list(os.scandir(folder))
    except OSError as error:
        yield folder, f"cannot be opened ({error.strerror})"
        return
    if here in above:
        yield folder, "leads back to a folder around it"
        return
    for entry in entries:
        path = Path(entry.path)
        if is_hidden(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(path, above | {here})
        elif not entry.is_file():
            yield path, "broken link" if entry.is_symlink() else "no regular file"
        else:
            yield path, "" if is_image(path) else path.suffix.lower() or "without an ending"


def _key(folder: Path) -> tuple[int, int]:
    """What a folder is known by, under whichever name."""
    found = folder.stat()
    return found.st_dev, found.st_ino


def left_out_note(root: Path, found: list[Found]) -> list[str]:
    """A line on what was left out below ``root``, if anything was."""
    left_out: dict[str, list[Path]] = defaultdict(list)
    for one in found:
        for reason, paths in one.left_out.items():
            left_out[reason] += paths
    return (
        [f"{root}: left out, as they are no images that can be read: {_list_files(left_out, root)}"] if left_out else []
    )


def _list_files(left_out: Mapping[str, Any], root: Path) -> str:
    parts = []
    for reason, paths in sorted(left_out.items()):
        named = ", ".join(path.relative_to(root).as_posix() for path in paths[:_NAMED])
        parts.append(f"{len(paths):,} {reason} ({named}{', …' if len(paths) > _NAMED else ''})")
    return "; ".join(parts)


def _common() -> str:
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
    if channels not in _MODES:
        raise DataError(f"{what} cannot be an image of {channels} channels; give a file {ARRAYS} of (C, H, W)")
    try:
        with open_image(source) as file:
            if _is_too_large(file) and not file.info.get("progressive"):  # which is held whole, whatever its scale
                file.draft(None, (file.width // 2, file.height // 2))
            _refuse_too_large(file)
            file.load()
            turn = _TURNS.get(_orientation(file))
            image = file if turn is None else file.transpose(turn)
            return _of_8_bits(image, file.format).convert(_MODES[channels])
    except Exception as error:  # a damaged file meets code that expects none, in one of forty formats
        raise _unreadable(what, error) from None


def size_of(path: Path) -> tuple[int, int]:
    """(H, W) of an image file as it is decoded, from its header. Raises DataError that names it."""
    try:
        if path.suffix.lower() == ARRAYS:
            shape = _map_array(path).shape
            return shape[-2], shape[-1]
        with open_image(path) as file:
            _refuse_too_large(file)
            turned = _orientation(file) >= 5  # by 90 degrees, one way or the other
            if turned and file.format == "TIFF":  # Pillow turns these itself, when it loads them
                file.load()
                turned = False
            width, height = file.size
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(str(path), error) from None
    return (width, height) if turned else (height, width)


def _is_too_large(file: Image.Image) -> bool:
    return file.width * file.height > MAX_PIXELS


def _refuse_too_large(file: Image.Image) -> None:
    if _is_too_large(file):
        raise ValueError(
            f"it has {file.width:,} × {file.height:,} pixels, expected at most {MAX_PIXELS:,}; scale it down"
        )


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


def scale(image: Image.Image | Images, size: tuple[int, int] | None) -> Images:
    """(C, H, W) of an image, scaled and cropped to ``size`` (H, W), or as it is."""
    if isinstance(image, np.ndarray):  # Pillow has no images of any number of channels: one after the other
        if size is None or image.shape[1:] == size:
            return image
        return np.concatenate([scale(Image.fromarray(channel), size) for channel in image])
    if size is not None:
        image = ImageOps.fit(image, (size[1], size[0]), method=Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)  # (H, W, C) → (C, H, W)


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
    reason = str(error).partition("\n")[0] or type(error).__name__
    return DataError(f"{what} cannot be read as an image: {reason}; repair it, or take it out")
