"""Classes of an image file, by an exported network. Torch is not imported."""

from pathlib import Path

import numpy as np

from model_compression.data.folder import FolderImages
from model_compression.errors import UsageError
from model_compression.export.runtimes import ExportedFile


def classify(file: ExportedFile, path: Path) -> list[tuple[str, float]]:
    """(class name, probability) of the image at ``path``, the most likely first.

    The image is scaled and cropped to the file's size. Raises DataError for what is no image, UsageError for a file of
    images that are not square RGB.
    """
    known = file.metadata
    channels, height, width = known.image_shape
    if channels != 3 or height != width:
        raise UsageError(f"the file takes images of {known.image_shape}; expected (3, S, S)")
    pixels = FolderImages(path.parent, (path,), (height, width), is_scaled=True).decode(0)[None]  # (1, 3, S, S)
    if not known.preprocessing_inside:
        ordered = pixels[:, ::-1] if known.channel_order == "bgr" else pixels
        mean, std = (np.array(values, dtype=np.float32).reshape(1, -1, 1, 1) for values in (known.mean, known.std))
        pixels = ((ordered / np.float32(255) - mean) / std).astype(np.float32)
    logits = file.run(np.ascontiguousarray(pixels))[0].astype(np.float64)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    return [(known.class_names[number], float(probabilities[number])) for number in order]
