"""Images that stay where they are, and are decoded when they are asked for."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError

Images = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.integer]

PixelBox = tuple[int, int, int, int]
"""Top, left, height and width, in pixels."""
Choose = Callable[[int, int], PixelBox]
"""Gives the part of an image that is wanted, of its height and width before it is scaled."""

SAMPLE = 1000  # images, evenly spaced, that stand for all where all would have to be read


class ImageSource(Protocol):
    """Where images come from, each by its number. It is sent to other processes, and reads in any order."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""

    @property
    def threads(self) -> int:
        """How many threads of one process may decode at a time; 1 where it is not known that two may."""

    def decode(self, number: int) -> Images:
        """The image (C, H, W), the same whenever it is asked for. Raises DataError that names it."""

    def identity(self, number: int) -> bytes:
        """What is known of the image without reading it, as its name and size in bytes."""

    def content(self, number: int) -> bytes:
        """What the image is decoded from."""


@runtime_checkable
class OriginalSource(ImageSource, Protocol):
    """A source whose originals may be larger than the images that it gives, or of another shape."""

    def decode_crop(self, number: int, choose: Choose) -> Images:
        """The part of the original that ``choose`` takes, scaled to an image (C, H, W). Raises as `decode` does."""


Shown = Callable[[int, ImageSource, int], Images]
"""What a view shows at a place of a batch: given the place, the source and the number of the image there."""


class Views(Protocol):
    """What shows images otherwise than they are: see `data.image_views`. It is sent to other processes."""

    def shown(self, rows: Rows, view: int) -> Shown:
        """``view`` of a batch of the images at ``rows`` (B,)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OnDemandImages:
    """Images (N, C, H, W) uint8 of a source, indexed by slices and arrays of rows as an array is; none is kept.

    ``rows`` are their numbers in ``source``. ``workers`` processes decode them for a loader, 0: the one that trains.
    """

    source: ImageSource
    rows: Rows
    workers: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return (len(self.rows), *self.source.image_shape)

    @property
    def size_bytes(self) -> int:
        """What they take in memory."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | Rows) -> Images:
        """Decodes the images at ``rows``. Raises DataError for one that cannot be read, or is of another size."""
        numbers = self.rows[rows]
        images = np.empty((len(numbers), *self.source.image_shape), dtype=np.uint8)
        self._decode(numbers, images, None)
        return images

    def decode_into(self, images: Images, rows: Rows, views: Views | None = None, view: int = 0) -> None:
        """Decodes those at ``rows`` (B,) into ``images`` (B, C, H, W), as ``view`` of ``views`` shows them.

        Raises as indexing does.
        """
        self._decode(self.rows[rows], images, None if views is None else views.shown(rows, view))

    def _decode(self, chosen: Rows, images: Images, shown: Shown | None) -> None:
        numbers = [int(number) for number in chosen]

        def decode(place: int) -> None:
            number = numbers[place]
            image = self.source.decode(number) if shown is None else shown(place, self.source, number)
            if image.shape != images.shape[1:]:
                raise DataError(
                    f"image {numbers[place]} is {image.shape}, the first is {images.shape[1:]}; expected one size"
                )
            images[place] = image

        threads = min(self.source.threads, len(numbers))
        if threads <= 1:
            for place in range(len(numbers)):
                decode(place)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(decode, range(len(numbers))))

    def subset(self, rows: Rows) -> "OnDemandImages":
        """Those at ``rows``, not decoded."""
        return replace(self, rows=self.rows[rows])

    def content(self, row: int) -> bytes:
        """What the image at ``row`` is decoded from."""
        return self.source.content(int(self.rows[row]))

    def sample(self) -> Images:
        """Up to 1,000 of them, evenly spaced: always the same."""
        return self[evenly(len(self))]

    def digest(self, labels: npt.NDArray[Any]) -> str:
        """SHA-256 (hexadecimal) of shape and labels of the images, what is known of each, and the content of a sample.

        A change is seen where it changes a name or a size in bytes, or meets one of the 1,000 images whose content is
        read. To read all of a large set would take minutes at each start.
        """
        hasher = hashlib.sha256(f"lazy {'x'.join(map(str, self.shape))}\n".encode())
        hasher.update(label_bytes(labels))
        for number in self.rows:
            identity = self.source.identity(int(number))
            hasher.update(len(identity).to_bytes(4, "little") + identity)
        for row in evenly(len(self)):
            hasher.update(hashlib.sha256(self.content(int(row))).digest())
        return hasher.hexdigest()


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images in memory as a source: what is streamed although it need not be."""

    images: Images

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def threads(self) -> int:
        """One: there is nothing to decode."""
        return 1

    def decode(self, number: int) -> Images:
        """The image."""
        image: Images = self.images[number]
        return image

    def identity(self, number: int) -> bytes:
        """Nothing."""
        return b""

    def content(self, number: int) -> bytes:
        """Its pixels."""
        return self.decode(number).tobytes()


def evenly(count: int, wanted: int = SAMPLE) -> Rows:
    """Up to ``wanted`` of the numbers 0…count−1, evenly spaced, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64))


def mean_and_std(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of images (N, C, H, W), for pixels scaled to 0…1, in five decimals."""
    pixels = images.transpose(1, 0, 2, 3).reshape(images.shape[1], -1)
    mean = tuple(round(float(channel.mean(dtype=np.float64)) / 255, 5) for channel in pixels)
    std = tuple(max(round(float(channel.std(dtype=np.float64)) / 255, 5), 1e-5) for channel in pixels)
    return mean, std


def label_bytes(labels: npt.NDArray[Any]) -> bytes:
    """The content of targets, the same on every machine: little-endian, class numbers of 64 bits, reals doubles."""
    if labels.ndim > 1 and labels.dtype.kind != "f":  # masks of bytes stay so
        return np.ascontiguousarray(labels, dtype=labels.dtype.newbyteorder("<")).tobytes()
    return np.ascontiguousarray(labels, dtype="<f8" if labels.dtype.kind == "f" else "<i8").tobytes()
