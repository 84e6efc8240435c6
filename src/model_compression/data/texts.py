"""Texts as samples: tokenised once, shown in batches of about one length, with a share of the tokens masked."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_compression.core.counter_random import derived_seed, uniform
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.inputs import Inputs
from model_compression.core.options import setting
from model_compression.data.batches import ALL, Batch, Loader, Part, to_tensors
from model_compression.data.samples import Rows, Samples
from model_compression.data.tokenizers import FILE, IDS, MASK, Ragged, Tokenizer

_POOL = 50  # batches whose texts are sorted by length
_TOKENS = 2**14  # in a batch of an evaluation
_MASKING = 101  # the number of this random operation; see data/augment.py
_LONGEST = 2**20  # tokens of a text
_EXCERPT = 400  # characters


@dataclass(frozen=True, eq=False)
class Texts(Samples):
    """``texts`` and their ``tokens``, as ``tokenizer`` gives them.

    ``length`` is that to which every batch is padded, where answers have one for each token; 0: the batch's longest.
    """

    texts: Sequence[str]
    tokens: Ragged
    tokenizer: Tokenizer
    length: int = 0
    noun: ClassVar[str] = "texts"
    signature: ClassVar[Mapping[str, tuple[int | str, ...]]] = {IDS: ("length",), MASK: ("length",)}

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Rows, length: int = 0) -> dict[str, npt.NDArray[Any]]:
        """{"input_ids", "attention_mask"} (B, L) int64, L being the longest of ``rows``, or ``length``."""
        ids, mask = self.tokens.subset(rows).padded(self.tokenizer.pad, self.length or length)
        return {IDS: ids, MASK: mask}

    def subset(self, rows: Rows) -> "Texts":
        """Those at ``rows``."""
        return replace(self, texts=[self.texts[row] for row in rows], tokens=self.tokens.subset(rows))

    def digest(self, targets: npt.NDArray[Any]) -> str:
        """Of tokens, tokenizer and targets."""
        hasher = hashlib.sha256(f"texts {self.tokenizer.sha256} {self.length}\n".encode())
        for array in (self.tokens.bounds, self.tokens.values, targets):
            hasher.update(f"{array.dtype.kind}{array.shape}".encode())
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.hexdigest()

    def loader(self, targets: npt.NDArray[Any], config: DataConfig, device: torch.device) -> "TextLoader":
        """See `TextLoader`."""
        return TextLoader(self, targets, config, device)

    def excerpts(self, rows: Rows) -> list[str]:
        """The beginning of each text."""
        return [self.texts[row][:_EXCERPT] + "…" * (len(self.texts[row]) > _EXCERPT) for row in rows]

    @property
    def companions(self) -> dict[str, bytes]:
        """The tokenizer."""
        return {FILE: self.tokenizer.to_bytes()}


class TextLoader(Loader):
    """Batches of texts of about the same length, padded to the longest, in an order that (seed, epoch) gives.

    The texts of some batches are sorted by length, and these batches come in random order. In each view other tokens
    are masked, by a draw that depends on view seed, view, text and position alone.
    """

    def __init__(self, texts: Texts, targets: npt.NDArray[Any], config: DataConfig, device: torch.device):
        if config.augmentation != "none" or config.mixes:
            raise UsageError(
                f"augmentation, mixup and cutmix are for images, and these samples are {texts.noun}: use "
                f"{setting('mask_tokens', 0.1)}"
            )
        super().__init__(targets, config, device)
        self.noun = texts.noun
        self._texts, self._lengths = texts, torch.from_numpy(texts.tokens.lengths)
        self._mask, self._special = texts.tokenizer.mask, torch.tensor(texts.tokenizer.special, device=device)
        if config.mask_tokens and self._mask is None:
            raise UsageError(f"the tokenizer has no mask token: leave {setting('mask_tokens')} out")

    def inputs(self, indices: Tensor, view: int) -> Inputs:
        """Token numbers and attention mask (B, L) at ``indices`` (B,)."""
        return self._padded_like(indices, indices)

    def _padded_like(self, indices: Tensor, whole: Tensor) -> Inputs:
        """Of those at ``indices``, as long as the longest at ``whole``."""
        rows = indices.cpu()
        longest = int(self._lengths[whole.cpu()].max())
        return to_tensors(self._texts.take(rows.numpy(), longest), self.targets.device)

    def build_batch(self, inputs: Inputs, rows: Tensor, count: int, view: int) -> Batch:
        """With the masks of ``view``."""
        if self.config.mask_tokens:
            assert isinstance(inputs, dict)
            inputs = {**inputs, IDS: self._masked(inputs, rows, view)}
        return super().build_batch(inputs, rows, count, view)

    def _masked(self, inputs: dict[str, Tensor], rows: Tensor, view: int) -> Tensor:
        ids = inputs[IDS]
        places = rows[:, None] * _LONGEST + torch.arange(ids.shape[1], device=ids.device)
        drawn = uniform(places, self.config.view_seed, view, _MASKING) < self.config.mask_tokens
        kept = (inputs[MASK] == 0) | torch.isin(ids, self._special)
        assert self._mask is not None
        return torch.where(drawn & ~kept, self._mask, ids)

    def batches(self, *, epoch: int, seed: int, batch_size: int) -> list[Tensor]:
        """Rows of each batch of an epoch; as many batches, and of the same sizes, as without sorting."""
        plain = super().batches(epoch=epoch, seed=seed, batch_size=batch_size)
        found: list[Tensor] = []
        for first in range(0, len(plain), _POOL):
            pool = plain[first : first + _POOL]
            rows = torch.cat(pool)
            order = self._lengths[rows.cpu()].argsort(stable=True).to(rows.device)
            found += rows[order].split([len(batch) for batch in pool])
        generator = torch.Generator().manual_seed(derived_seed(seed, epoch, _MASKING))
        return [found[number] for number in torch.randperm(len(found), generator=generator)]

    def in_order(self, *, view: int, batch_size: int, rows: slice = ALL) -> Iterator[Batch]:
        """Smaller batches where texts are long."""
        longest = int(self._lengths.max())
        return super().in_order(view=view, batch_size=max(1, min(batch_size, _TOKENS // longest)), rows=rows)

    def show(self, batches: Sequence[Tensor], view: int, part: Part | None = None) -> Iterator[Batch]:
        """Of several processes each pads to the longest text of the whole batch, as one would."""
        for whole in batches:
            indices = whole if part is None else whole[part(len(whole))]
            batch = self.build_batch(self._padded_like(indices, whole), indices, len(indices), view)
            yield batch if part is None else replace(batch, total=len(whole))
