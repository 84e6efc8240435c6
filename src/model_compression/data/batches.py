"""Batches of a dataset's samples: what is in one, and the order in which they come."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_compression.core.counter_random import derived_seed
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.inputs import Inputs, map_inputs

ALL = slice(None)
_BALANCING = 3  # keeps the numbers of the classes' orders apart from those of epochs, steps and methods
Part = Callable[[int], slice]
"""Which rows of a batch of so many one process of several takes."""


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """What else is in the images of a batch: the partners' ``targets`` (B, …); ``share`` (B,), 0 to 1, of the own."""

    targets: Tensor
    share: Tensor

    def main(self, own: Tensor) -> Tensor:
        """(B, …) of the targets ``own`` (B, …) and the partners' those with the larger share."""
        larger = (self.share >= 0.5).view(-1, *[1] * (own.ndim - 1))
        return torch.where(larger, own, self.targets)

    def rows(self, rows: slice) -> "Mixed":
        """Of some of the samples."""
        return Mixed(targets=self.targets[rows], share=self.share[rows])


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs (B, …) as the source has them, images (B, C, H, W) uint8 augmented and not normalised; targets (B, …);
    ids (B,) into the dataset, −1 where the source has none; the view. Where images are mixed, ``mixed`` says with what.
    ``total`` samples are in the global batch of which these are one process's slice; None: these are all.
    """

    inputs: Inputs
    targets: Tensor
    ids: Tensor
    view: int
    mixed: Mixed | None = None
    total: int | None = None

    @property
    def num_global(self) -> int:
        """How many samples are in the global batch."""
        return len(self.targets) if self.total is None else self.total

    @property
    def main_targets(self) -> Tensor:
        """(B, …) the targets that have the larger share in each image."""
        return self.targets if self.mixed is None else self.mixed.main(self.targets)

    def rows(self, rows: slice) -> "Batch":
        """Some of the samples."""
        return replace(
            self,
            inputs=map_inputs(lambda tensor: tensor[rows], self.inputs),
            targets=self.targets[rows],
            ids=self.ids[rows],
            mixed=self.mixed and self.mixed.rows(rows),
        )


class Loader(ABC):
    """The batches of N samples on ``device``, in any order; a subclass says where the inputs come from."""

    noun = "images"
    """What several samples are called."""

    def __init__(self, targets: npt.NDArray[Any], config: DataConfig, device: torch.device):
        self.config = config
        self.targets = torch.from_numpy(targets).to(device)

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def inputs(self, indices: Tensor, view: int) -> Inputs:
        """What `build_batch` makes a batch of: the samples at ``indices`` (B,), as they are or as ``view`` has them."""

    def inputs_in_turn(self, batches: Sequence[Tensor], view: int) -> Iterator[Inputs]:
        """`inputs` of each of ``batches``."""
        return (self.inputs(indices, view) for indices in batches)

    def needed(self, indices: Tensor, view: int) -> Tensor:
        """Indices of the samples that a batch of those at ``indices`` (B,) is made of in ``view``, these first."""
        return indices

    def build_batch(self, inputs: Inputs, rows: Tensor, count: int, view: int) -> Batch:
        """The batch of ``count`` samples that is made of ``inputs``, those at ``rows``, as ``view`` shows them."""
        return Batch(inputs=inputs, targets=self.targets[rows], ids=rows, view=view)

    def view_of(self, epoch: int) -> int:
        """The view that ``epoch`` shows; without augmentation there is one."""
        if not self.config.has_views:
            return 0
        return epoch % self.config.views if self.config.views else epoch

    def steps(self, batch_size: int) -> int:
        """How many batches an epoch has."""
        return num_batches(len(self), batch_size)

    def epoch(
        self, *, epoch: int, seed: int, batch_size: int, first: int = 0, part: Part | None = None
    ) -> Iterator[Batch]:
        """The batches of ``epoch`` from number ``first`` on, in the order that (seed, epoch) gives.

        ``part`` says which rows one process of several takes.
        """
        batches = self.batches(epoch=epoch, seed=seed, batch_size=batch_size)
        return self.show(batches[first:], self.view_of(epoch), part)

    def batches(self, *, epoch: int, seed: int, batch_size: int) -> list[Tensor]:
        """Indices of the samples of each batch of ``epoch``, as (seed, epoch) gives them.

        No sample is dropped: one that would be alone in the last batch, where BatchNorm fails and methods that compare
        samples have nothing to compare, joins the batch before.
        """
        balanced = self.config.sampling == "balanced"
        order = balanced_order(self.targets.cpu(), seed, epoch) if balanced else epoch_order(len(self), seed, epoch)
        order = order.to(self.targets.device)
        batches = list(order.split(batch_size))
        if len(batches) > num_batches(len(self), batch_size):
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def in_order(self, *, view: int, batch_size: int, rows: slice = ALL) -> Iterator[Batch]:
        """All batches of a view, or those of its ``rows``, in index order."""
        return self.show(torch.arange(len(self), device=self.targets.device)[rows].split(batch_size), view)

    def batch(self, indices: Tensor, view: int) -> Batch:
        """The samples at ``indices`` (B,) as ``view`` shows them."""
        rows = self.needed(indices, view)
        return self.build_batch(self.inputs(rows, view), rows, len(indices), view)

    def show(self, batches: Sequence[Tensor], view: int, part: Part | None = None) -> Iterator[Batch]:
        """A batch of the samples at each of ``batches`` (B,), as ``view`` shows them; workers decode ahead.

        Of each the rows that ``part`` gives; None: all.
        """
        wanted = batches if part is None else [indices[part(len(indices))] for indices in batches]
        rows = [self.needed(indices, view) for indices in wanted]
        for whole, indices, needed, inputs in zip(batches, wanted, rows, self.inputs_in_turn(rows, view), strict=True):
            batch = self.build_batch(inputs, needed, len(indices), view)
            yield batch if part is None else replace(batch, total=len(whole))


class SampleLoader(Loader):
    """The batches of samples that every view shows as they are; ``take`` gives those at some rows, on the CPU."""

    def __init__(
        self,
        take: Callable[[npt.NDArray[np.integer]], npt.NDArray[Any] | dict[str, npt.NDArray[Any]]],
        noun: str,
        targets: npt.NDArray[Any],
        config: DataConfig,
        device: torch.device,
    ):
        if config.has_views:
            raise UsageError(
                f"augmentation, mixup and cutmix are for images, and these samples are {noun}: leave them out"
            )
        self.noun = noun
        super().__init__(targets, config, device)
        self._take = take

    def inputs(self, indices: Tensor, view: int) -> Inputs:
        """The samples at ``indices`` (B,), as a network takes them."""
        return to_tensors(self._take(indices.cpu().numpy()), self.targets.device)


def to_tensors(arrays: npt.NDArray[Any] | dict[str, npt.NDArray[Any]], device: torch.device | str = "cpu") -> Inputs:
    """The same as tensors on ``device``."""
    if isinstance(arrays, dict):
        return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    return torch.from_numpy(arrays).to(device)


def slice_bounds(total: int, parts: int) -> list[int]:
    """Where each of ``parts`` slices of ``total`` rows begins, and the end: lengths differ by at most 1."""
    return [total * part // parts for part in range(parts + 1)]


def num_batches(count: int, batch_size: int) -> int:
    """How many batches ``count`` samples make, when one that would be alone in the last joins the batch before."""
    alone = count % batch_size == 1 and count > batch_size
    return -(-count // batch_size) - alone


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """A permutation (count,) that is a function of (seed, epoch) alone."""
    return torch.randperm(count, generator=_generator(seed, epoch))


def balanced_order(targets: Tensor, seed: int, epoch: int) -> Tensor:
    """(N,) numbers of samples, of each class equally many, to one; a function of (seed, epoch) and the classes (N,).

    A sample comes again only when all others of its class have come as often: over epochs the samples of a class are
    shown equally often as well, to one.
    """
    _, classes, counts = targets.unique(return_inverse=True, return_counts=True)
    members = classes.argsort(stable=True).split(counts.tolist())
    drawn = torch.arange(epoch * len(targets), (epoch + 1) * len(targets))  # of one endless row: 0, 1, … K−1, 0, 1, …
    order = torch.empty_like(drawn)
    for number, own in enumerate(members):
        here = (drawn % len(members) == number).nonzero().flatten()
        place = drawn[here] // len(members)
        rounds = place // len(own)
        shuffled = {
            turn: own[torch.randperm(len(own), generator=_generator(seed, _BALANCING, number, turn))]
            for turn in rounds.unique().tolist()
        }
        order[here] = torch.cat([shuffled[turn][place[rounds == turn] % len(own)] for turn in shuffled])
    return order[epoch_order(len(targets), seed, epoch)]


def _generator(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(derived_seed(*numbers))
