"""Image files of one size, each decoded when it is asked for."""

import os
from dataclasses import dataclass
from pathlib import Path

from model_compression.core.errors import DataError
from model_compression.core.fitting import WHOLE, Fitting
from model_compression.data.folder_files import Files
from model_compression.data.image_files import ARRAYS, array_image, decode_crop, decode_scaled
from model_compression.data.on_demand import Choose, Images
from model_compression.data.scaling import crop_array, scale


@dataclass(frozen=True, eq=False)
class FolderImages:
    """Image files of one size and number of channels."""

    files: Files
    size: tuple[int, int]
    """Height and width."""
    is_scaled: bool
    """Whether images are scaled and cropped to ``size``; else they have it."""
    channels: int = 3
    """3: RGB; 1: grey; other numbers only .npy files have."""
    fit: Fitting = WHOLE

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.channels, *self.size)

    @property
    def threads(self) -> int:
        """One for each processor: decoding releases the interpreter's lock."""
        return os.cpu_count() or 1

    def decode(self, number: int) -> Images:
        """The image (C, H, W). Raises DataError that names the file."""
        return read_image(self.files[number], self.image_shape, self.is_scaled, self.fit)

    def decode_crop(self, number: int, choose: Choose) -> Images:
        """The part of the image in a file that ``choose`` takes, scaled to (C, H, W). Raises as `decode` does."""
        path = self.files[number]
        if path.suffix.lower() == ARRAYS:
            return crop_array(array_image(path), self.size, choose, self.fit.interpolation)
        return decode_crop(path, str(path), self.channels, self.size, choose, self.fit.interpolation)

    def identity(self, number: int) -> bytes:
        """Path below the root, and size in bytes."""
        return self.files.identity(number)

    def content(self, number: int) -> bytes:
        """The file."""
        return self.files[number].read_bytes()


def read_image(path: Path, shape: tuple[int, int, int], is_scaled: bool, fit: Fitting = WHOLE) -> Images:
    """The image of a file, of ``shape`` (C, H, W); brought to that, as ``fit`` says, only where ``is_scaled``.

    Raises DataError that names it.
    """
    size = shape[1:] if is_scaled else None
    is_array = path.suffix.lower() == ARRAYS
    what = str(path)
    image = scale(array_image(path), size, fit=fit) if is_array else decode_scaled(path, what, shape[0], size, fit)
    if image.shape != shape:
        shapes = [" × ".join(map(str, one)) for one in (image.shape, shape)]
        raise DataError(f"{path} is {shapes[0]}, channels × height × width; expected {shapes[1]}")
    return image
