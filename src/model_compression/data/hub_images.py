"""Images of a split of a Hugging Face dataset, decoded when they are asked for."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from model_compression.core.errors import DataError, SizesDifferError
from model_compression.core.fitting import WHOLE, Fitting
from model_compression.core.options import setting
from model_compression.data.image_files import decode_crop, decode_image, decode_scaled
from model_compression.data.on_demand import Choose, Images, Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class HubImages:
    """The column ``column`` of encoded images of a split, as RGB of one size."""

    split: Any
    column: str
    name: str
    sizes_bytes: Rows
    size: tuple[int, int]
    """Height and width."""
    is_scaled: bool
    fit: Fitting = WHOLE
    threads: int = 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        return (3, *self.size)

    def decode(self, number: int) -> Images:
        """The image (3, H, W). Raises DataError with its number."""
        row, size = self._row(number), self.size if self.is_scaled else None
        what = self._describe(number, row)
        image = decode_scaled(io.BytesIO(self._content(number, row)), what, 3, size, self.fit)
        if image.shape != self.image_shape:
            raise SizesDifferError(
                f"images of {self.name} differ in size: the first is {self.size[1]} × {self.size[0]} pixels, number "
                f"{number} {image.shape[2]} × {image.shape[1]}; give a side to scale them to, as "
                f"{setting('image_size', 224)}"
            )
        return image

    def decode_crop(self, number: int, choose: Choose) -> Images:
        """The part of the image that ``choose`` takes, scaled to (3, H, W). Raises as `decode` does."""
        row = self._row(number)
        file = io.BytesIO(self._content(number, row))
        return decode_crop(file, self._describe(number, row), 3, self.size, choose, self.fit.interpolation)

    def identity(self, number: int) -> bytes:
        """Its encoded size in bytes."""
        return str(self.sizes_bytes[number]).encode()

    def content(self, number: int) -> bytes:
        """The encoded image."""
        return self._content(number, self._row(number))

    def first(self) -> Image.Image:
        """The first image, of its own size."""
        row = self._row(0)
        return decode_image(io.BytesIO(self._content(0, row)), self._describe(0, row))

    def _row(self, number: int) -> Mapping[str, Any] | None:
        """Its bytes, and the path of its file, of which one may be missing."""
        row: Mapping[str, Any] | None = self.split[number][self.column]
        return row

    def _content(self, number: int, row: Mapping[str, Any] | None) -> bytes:
        if row is None or not (row["bytes"] or row["path"]):
            raise DataError(f"image {number} of {self.name} is missing")
        try:
            return row["bytes"] or Path(row["path"]).read_bytes()
        except OSError as error:
            raise DataError(f"{self._describe(number, row)} cannot be read: {error}") from None

    def _describe(self, number: int, row: Mapping[str, Any] | None) -> str:
        """What an error calls an image: its number, and its file where there is one."""
        file = f" ({row['path']})" if row and row["path"] else ""
        return f"image {number} of {self.name}{file}"
