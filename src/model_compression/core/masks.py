"""What masks are made of: class numbers of pixels, and the colours that show them. Knows nothing of torch."""

import io

import numpy as np
import numpy.typing as npt

Masks = npt.NDArray[np.uint8]

IGNORE = 255
"""The number of a pixel that does not count, in every mask of a dataset; files may use another one."""
MAX_CLASSES = 255
PREDICTED = ".mask.png"
"""The ending of masks that `predict` writes beside their images, and are none themselves."""


def palette(count: int) -> npt.NDArray[np.uint8]:
    """(count, 3) colours of class numbers, those of PASCAL VOC: bits of a number spread over red, green, blue."""
    numbers = np.arange(count)
    colours = np.zeros((count, 3), dtype=np.uint8)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * place + channel) & 1) << (7 - place)).astype(np.uint8)
    return colours


def coloured(masks: Masks) -> npt.NDArray[np.uint8]:
    """(…, H, W, 3) of class numbers (…, H, W); pixels that do not count are white."""
    colours = palette(256)
    colours[IGNORE] = 255
    shown: npt.NDArray[np.uint8] = colours[masks]
    return shown


def mask_png(mask: Masks) -> bytes:
    """A palette PNG of a mask (H, W): its pixels are the class numbers, shown in the colours of `palette`."""
    from PIL import Image

    image = Image.fromarray(mask)
    image.putpalette(coloured(np.arange(256, dtype=np.uint8)).tobytes())  # which makes a palette image of it
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
