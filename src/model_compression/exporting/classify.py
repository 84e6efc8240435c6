"""What an exported network answers to an image file. Torch is not imported."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, NumericalError, UsageError
from model_compression.core.options import setting
from model_compression.core.windows import slide
from model_compression.data.folder_images import read_image
from model_compression.data.image_files import read_whole
from model_compression.exporting.metadata import Metadata
from model_compression.exporting.runtimes import ExportedFile
from model_compression.reports.sections import Description, section_named

FullSize = Literal["", "whole", "windows"]


def describe(file: ExportedFile, logits: npt.NDArray[np.float64]) -> Description:
    """What the file's task says of logits (K, …), see `Section.describe`; nothing where it has no section."""
    section, known = section_named(file.metadata.task), file.metadata
    return Description() if section is None else section.describe(logits, known.class_names, known.facts)


def answer(file: ExportedFile, path: Path, full_size: FullSize = "") -> npt.NDArray[np.float64]:
    """The logits (K, …) of the image at ``path``.

    The image gets the file's size as the images did that it was trained on; with ``full_size`` "whole" it keeps its
    own, with "windows" its parts of the file's size are answered, and overlaps averaged. It becomes RGB, or grey for a
    file of one channel; for other numbers of channels it is a .npy file. Raises DataError for what is no such image.
    """
    known = file.metadata
    if len(known.image_shape) != 3:
        taken = ", ".join(entry.name for entry in known.inputs)
        raise UsageError(f"the file takes no images, but {taken}: it cannot answer {path}")
    channels, height, width = known.image_shape
    if full_size:
        _check_full_size(known, full_size)
        pixels = read_whole(path, channels)[None]
        rows, columns = pixels.shape[2:]
        if not known.is_of_any_size and (rows < height or columns < width):
            raise DataError(f"{path} has {columns} × {rows} pixels; the file takes windows of {width} × {height}")
        size = (height, width) if full_size == "windows" else (rows, columns)
        found = slide(lambda part: file.run(np.ascontiguousarray(_prepared(known, part))), pixels, size)[0]
    else:
        pixels = read_image(path, (channels, height, width), is_scaled=True, fit=known.fitting)[None]  # (1, C, H, W)
        found = file.run(np.ascontiguousarray(_prepared(known, pixels)))[0]
    logits: npt.NDArray[np.float64] = found.astype(np.float64)
    if not np.isfinite(logits).all():
        raise NumericalError(
            f"{path}: the file answers with NaN or infinity; compare it with its network: "
            "model-compression verify FILE --model RUN"
        )
    return logits


def _check_full_size(known: Metadata, full_size: FullSize) -> None:
    """Raises UsageError for a file that cannot answer images at their own size."""
    if len(known.answer_shape) != 3:
        raise UsageError(f"{setting('full_size', full_size)} is for files that answer each pixel; leave it out")
    if full_size == "whole" and not known.is_of_any_size:
        height, width = known.image_shape[1:]
        raise UsageError(f"the file takes {height} × {width} pixels only; give {setting('full_size', 'windows')}")


def _prepared(known: Metadata, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Pixels (1, C, H, W) as the file takes them."""
    if known.preprocessing_inside:
        return pixels
    ordered = pixels[:, ::-1] if known.channel_order == "bgr" else pixels
    mean, std = (np.array(values, dtype=np.float32).reshape(1, -1, 1, 1) for values in (known.mean, known.std))
    return ((ordered / np.float32(255) - mean) / std).astype(np.float32)
