"""The batches of a DataLoader that its user made: float images as they come, of which nothing else is known."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import UsageError
from model_compression.data.on_demand import Images, label_bytes

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoaderImages:
    """Images (N, C, H, W) float32, in batches with labels that ``loader`` gives, in an order of its own.

    ``first`` (B, C, H, W) is one of its batches, which dry runs use; ``count`` is N.
    """

    loader: Any
    first: Floats
    count: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        channels, height, width = self.first.shape[1:]
        return self.count, channels, height, width

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: slice) -> Floats:
        """Images of the first batch."""
        return self.first[rows]

    def subset(self, rows: npt.NDArray[np.integer]) -> "LoaderImages":
        """Raises UsageError: they come in an order of their own."""
        raise UsageError(
            "images of a DataLoader cannot be held out; give the loader of validation images in the place of the test's"
        )

    def head(self, count: int, labels: npt.NDArray[Any]) -> "tuple[LoaderImages, npt.NDArray[Any]]":
        """Up to ``count`` images of the first batch as a DataLoader of one batch, and their labels."""
        import torch

        first = self.first[:count]
        labels = labels[: len(first)]
        batch = (torch.from_numpy(first), torch.from_numpy(labels))
        return LoaderImages(loader=[batch], first=first, count=len(labels)), labels

    def digest(self, labels: npt.NDArray[Any]) -> str:
        """SHA-256 of number, size and labels: the images themselves may be other ones each time."""
        hasher = hashlib.sha256(f"opaque {'x'.join(map(str, self.shape))}\n".encode())
        hasher.update(label_bytes(labels))
        return hasher.hexdigest()

    def thumbnails(self, rows: npt.NDArray[np.integer]) -> Images:
        """Images of the first batch, from its smallest value as black to its largest as white."""
        low, span = self.first.min(), max(float(self.first.max() - self.first.min()), 1e-12)
        visible: Images = ((self.first[rows] - low) / span * 255).round().astype(np.uint8)
        return visible
