"""What an exported network answers to an image file. Torch is not imported."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import NumericalError
from model_compression.data.folder import FolderImages
from model_compression.exporting.runtimes import ExportedFile


def classify(file: ExportedFile, path: Path) -> list[tuple[str, float]]:
    """(class name, probability) of the image at ``path``, the most likely first; see `answer`."""
    logits, names = answer(file, path), file.metadata.class_names
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    return [(names[number], float(probabilities[number])) for number in order]


def answer(file: ExportedFile, path: Path) -> npt.NDArray[np.float64]:
    """The logits (K,) of the image at ``path``.

    The image is scaled and cropped to the file's size, and becomes RGB, or grey for a file of one channel; for other
    numbers of channels it is a .npy file. Raises DataError for what is no such image.
    """
    known = file.metadata
    channels, height, width = known.image_shape
    pixels = FolderImages(path.parent, (path,), (height, width), True, channels).decode(0)[None]  # (1, C, H, W)
    if not known.preprocessing_inside:
        ordered = pixels[:, ::-1] if known.channel_order == "bgr" else pixels
        mean, std = (np.array(values, dtype=np.float32).reshape(1, -1, 1, 1) for values in (known.mean, known.std))
        pixels = ((ordered / np.float32(255) - mean) / std).astype(np.float32)
    logits: npt.NDArray[np.float64] = file.run(np.ascontiguousarray(pixels))[0].astype(np.float64)
    if not np.isfinite(logits).all():
        raise NumericalError(
            f"{path}: the file answers with NaN or infinity; compare it with its network: "
            "model-compression verify FILE --model RUN"
        )
    return logits
