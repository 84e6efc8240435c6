"""A step in smaller parts when memory runs out, where that changes nothing; else an error with a size that fits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from model_compression.core.device import give_freed_memory_back
from model_compression.core.errors import OutOfMemoryError
from model_compression.core.memory import is_out_of_memory
from model_compression.data.loader import Batch
from model_compression.distillation.methods import Method


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a part of a batch gave beside its gradients: sums and batch means, scalars on the device."""

    count: int
    loss: Tensor
    terms: dict[str, Tensor]
    correct: Tensor
    inputs: dict[str, Tensor]
    """Sums of what came from outside, for the guard."""
    logits: Tensor
    """(B, K), without gradient."""


def merged(parts: Sequence[Learned]) -> Learned:
    """The parts as one: means by their numbers of images, the rest by addition."""
    if len(parts) == 1:
        return parts[0]
    count = sum(part.count for part in parts)

    def mean(of: Callable[[Learned], Tensor]) -> Tensor:
        return torch.stack([of(part) * (part.count / count) for part in parts]).sum()

    first = parts[0]
    return Learned(
        count=count,
        loss=mean(lambda part: part.loss),
        terms={name: mean(lambda part, name=name: part.terms[name]) for name in first.terms},  # type: ignore[misc]
        correct=torch.stack([part.correct for part in parts]).sum(),
        inputs={name: torch.stack([part.inputs[name] for part in parts]).sum() for name in first.inputs},
        logits=torch.cat([part.logits for part in parts]),
    )


class MicroBatches:
    """How many images go through the networks at once: the whole batch, until memory has run out in a step.

    Then their number is halved until it fits, and the parts' gradients are added up, where ``obstacle`` finds nothing
    that looks at several images at once: gradients are those of the whole batch, to rounding. Dropout draws another,
    equally good mask. ``size`` is the number from there on, and part of a run's state; None: the whole batch.
    """

    def __init__(self, obstacle: Callable[[], str | None]):
        self.size: int | None = None
        self._obstacle = obstacle

    def run(
        self,
        batch: Batch,
        begin: Callable[[], None],
        gradients: Callable[[Batch, float], Learned],
        report: Callable[[str], None],
    ) -> list[Learned]:
        """What ``gradients`` gives for each part, which is told its share of the batch, after ``begin``.

        ``report`` is told when parts become smaller. Raises OutOfMemoryError with a number of images that fits where
        they may not, or when not even one image does.
        """
        count = len(batch.targets)
        size = min(self.size or count, count)
        # Once more, as the first attempt has made the memory that is kept from step to step the system's again.
        learned = _tried(batch, size, begin, gradients)
        if learned is not None:
            return learned
        whole, obstacle = size, self._obstacle()
        learned = _tried(batch, size, begin, gradients)
        if learned is not None:
            if obstacle is not None:
                report(f"out of memory in a step, which was begun anew; its batch may count twice, as {obstacle}")
            return learned
        while learned is None and size > 1:
            size = -(-size // 2)
            learned = _tried(batch if obstacle is None else part_of(batch, 0, size), size, begin, gradients)
        if learned is None:
            raise OutOfMemoryError("out of memory with one image a step; take a smaller student or smaller images")
        if obstacle is not None:
            raise OutOfMemoryError(
                f"out of memory with {whole} images a step; {size} fit: --batch-size {size}. The batch is not split, "
                f"as {obstacle}: the student would learn something else"
            )
        self.size = size
        report(
            f"out of memory with {whole} images at once: from here on {size} at a time, their gradients added up, "
            "which gives the same step"
        )
        return learned


def _tried(
    batch: Batch, size: int, begin: Callable[[], None], gradients: Callable[[Batch, float], Learned]
) -> list[Learned] | None:
    """What parts of ``size`` images give, None when memory runs out."""
    count = len(batch.targets)
    try:
        begin()
        if size >= count:
            return [gradients(batch, 1.0)]
        starts = range(0, count, size)
        return [gradients(part_of(batch, start, size), min(size, count - start) / count) for start in starts]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    give_freed_memory_back(batch.images.device)  # out here, where the error no longer holds what was computed
    return None


def part_of(batch: Batch, start: int, size: int) -> Batch:
    """``size`` images of a batch from ``start`` on."""
    rows = slice(start, start + size)
    mixed = batch.mixed and replace(batch.mixed, targets=batch.mixed.targets[rows], share=batch.mixed.share[rows])
    return replace(
        batch, images=batch.images[rows], targets=batch.targets[rows], indices=batch.indices[rows], mixed=mixed
    )


def batch_obstacle(modules: nn.Module, method: Method | None, name: str, options: Mapping[str, bool]) -> str | None:
    """What makes the step of a whole batch another than the sum of its parts, None when nothing does.

    ``options`` of the run that do, by how a message calls them.
    """
    for reason, present in options.items():
        if present:
            return reason
    if method is not None and not method.per_sample:
        return f"the method {name} compares the images of a batch"
    path = next((path for path, module in modules.named_modules() if _is_batch_norm(module)), None)
    return None if path is None else f"BatchNorm ({path.partition('.')[2]}) takes mean and deviation of the whole batch"


def _is_batch_norm(module: nn.Module) -> bool:
    """Also those of other libraries, which have the name alone."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or "batchnorm" in type(module).__name__.lower()
