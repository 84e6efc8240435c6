"""Samples that are no images: what a source must say of them. Knows nothing of torch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from model_compression.core.data_config import DataConfig

if TYPE_CHECKING:
    import torch

    from model_compression.data.batches import Loader

Rows = npt.NDArray[np.integer]
UNNAMED = "inputs"
"""What the array of samples is called that have only one."""
Arrays = npt.NDArray[Any] | dict[str, npt.NDArray[Any]]


class Samples(ABC):
    """N samples, each known by its number, as the texts of a file; `data.dataset.Dataset` adds their targets.

    A subclass is what a source gives. A network takes what `take` gives as it is: nothing is normalised or augmented,
    unless `loader` returns a `Loader` of the source's own.
    """

    noun: ClassVar[str]
    """What several are called, for messages, as "texts"."""
    signature: ClassVar[Mapping[str, tuple[int | str, ...]]]
    """Sizes behind the batch of each array that `take` gives, for exported files; a name is a size that varies. An
    array that has no name is called "inputs"."""

    @abstractmethod
    def __len__(self) -> int:
        """N."""

    @abstractmethod
    def take(self, rows: Rows) -> Arrays:
        """The samples at ``rows`` (B,) as a network takes them: an array (B, …), or arrays (B, …) by name.

        Samples of different lengths are padded, and an array says where. Where answers have a length too, as those to
        each token, all batches must have the same one.
        """

    @abstractmethod
    def subset(self, rows: Rows) -> Self:
        """Those at ``rows``, in that order."""

    @abstractmethod
    def digest(self, targets: npt.NDArray[Any]) -> str:
        """SHA-256 (hexadecimal) of all samples and their targets: two datasets with equal digests train alike."""

    def excerpts(self, rows: Rows) -> list[str]:
        """What reports show of the samples at ``rows`` (M,), a text each; none where there is nothing to be read."""
        return []

    @property
    def companions(self) -> dict[str, bytes]:
        """Files by name that a network of these samples needs beside its own, as a tokenizer."""
        return {}

    def loader(self, targets: npt.NDArray[Any], config: DataConfig, device: "torch.device") -> "Loader":
        """Their batches on ``device``. Raises UsageError for an augmentation that ``config`` asks for."""
        from model_compression.data.batches import SampleLoader

        return SampleLoader(self.take, self.noun, targets, config, device)
