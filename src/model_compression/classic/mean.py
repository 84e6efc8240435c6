"""Mean images, as they lie beside old weights: `.npy` or Caffe's `.binaryproto`."""

import os
from pathlib import Path

import numpy as np

from model_compression.classic.caffe_layers import FloatArray, ImageShape, check_floats, starts_with
from model_compression.classic.caffemodel import read_blob
from model_compression.classic.npy import MAGIC, read_plain_npy
from model_compression.core.errors import WeightsMismatchError


def read_mean(path: str | os.PathLike[str], expected: ImageShape) -> FloatArray:
    """Reads a mean in units of 0 to 255: an image (C, H, W), or one value per channel (C,).

    ``expected`` is the model's input; the file may hold (C, H, W), (H, W, C) or (C,), with leading ones. The channels
    stay in the file's order. Raises FileFormatError, and WeightsMismatchError for another size.
    """
    source = Path(path)
    if starts_with(source, MAGIC):
        values = read_plain_npy(source)
        mean = check_floats(values if values.dtype.kind == "f" else values.astype(np.float64), "the mean", source)
    else:
        mean = read_blob(source)
    channels, height, width = expected
    found = mean.shape
    while mean.ndim > 1 and mean.shape[0] == 1 and mean.shape != expected:
        mean = mean[0]
    if mean.ndim == 3 and mean.shape[1:] == (1, 1):
        mean = mean[:, 0, 0]
    if mean.shape in (expected, (channels,)):
        return np.ascontiguousarray(mean)
    if mean.shape == (height, width, channels):
        return np.ascontiguousarray(mean.transpose(2, 0, 1))
    raise WeightsMismatchError(
        f"{source}: the mean has shape {found}, expected {expected}, {(height, width, channels)} or ({channels},); "
        "cut a larger image at its centre, or give one mean per channel"
    )
