"""A step in smaller parts when memory runs out, where that changes nothing; else an error with a size that fits."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from torch import nn

from model_compression.core.device import give_freed_memory_back
from model_compression.core.errors import OutOfMemoryError
from model_compression.core.options import setting
from model_compression.data.batches import Batch, slice_bounds
from model_compression.distillation.methods import Method
from model_compression.distillation.step import Learned

Attempt = Callable[[Sequence[Batch]], Learned | None]
"""What parts of a batch give, None when memory runs out."""


def learn_in_less_memory(
    attempt: Attempt,
    batch: Batch,
    longest: int,
    size: int | None,
    obstacle: str | None,
    report: Callable[[str], None],
) -> tuple[Learned, int | None]:
    """What ``attempt`` gives for ``batch`` after memory has run out, and how many samples go at once from here on.

    The number is halved until it fits, and the parts' gradients are added up, where no ``obstacle`` looks at several
    samples at once: gradients are those of the whole batch, to rounding. Dropout draws another, equally good mask.
    ``size`` is the number that was too large; None: the whole batch. ``longest`` is that of the largest slice, which
    another process may have. ``report`` is told.

    Raises OutOfMemoryError with a number of samples that fits where they may not be split, or when not even one does.
    """
    whole = min(size or longest, longest)
    # Once more, as the first attempt has made the memory that is kept from step to step the system's again.
    give_freed_memory_back(batch.ids.device)
    learned = _tried(attempt, batch, longest, whole)
    if learned is not None:
        if obstacle is not None:
            report(f"out of memory in a step, which was begun anew; its batch may count twice, as {obstacle}")
        return learned, size
    if obstacle is not None and longest < batch.num_global:
        raise OutOfMemoryError(
            f"out of memory with a batch of {batch.num_global} samples; give a smaller {setting('batch_size')}. The "
            f"batch is not split, as {obstacle}: the student would learn something else"
        )
    fits = whole
    while learned is None and fits > 1:
        fits = -(-fits // 2)
        part = batch if obstacle is None else batch.rows(slice(fits))
        learned = _tried(attempt, part, longest if obstacle is None else fits, fits)
    if learned is None:
        raise OutOfMemoryError("out of memory with one sample a step; take a smaller student or smaller samples")
    if obstacle is not None:
        raise OutOfMemoryError(
            f"out of memory with {whole} samples a step; {fits} fit: {setting('batch_size', fits)}. The batch is not "
            f"split, as {obstacle}: the student would learn something else"
        )
    report(
        f"out of memory with {whole} samples at once: from here on {fits} at a time, their gradients added up, "
        "which gives the same step"
    )
    return learned, fits


def _tried(attempt: Attempt, batch: Batch, longest: int, size: int) -> Learned | None:
    """What parts of ``size`` samples give, None when memory runs out."""
    learned = attempt(split(batch, longest, size))
    if learned is None:
        give_freed_memory_back(batch.ids.device)
    return learned


def split(batch: Batch, longest: int, size: int | None) -> list[Batch]:
    """``batch`` in parts of at most ``size`` samples; None: whole. A slice of ``longest`` has as many parts."""
    count = len(batch.targets)
    if size is None or size >= longest:
        return [batch]
    bounds = [*range(0, count, size), count] if count == longest else slice_bounds(count, -(-longest // size))
    return [batch.rows(slice(start, end)) for start, end in pairwise(bounds)]


def batch_obstacle(modules: nn.Module, method: Method | None, name: str, options: Mapping[str, bool]) -> str | None:
    """What makes the step of a whole batch another than the sum of its parts, None when nothing does.

    ``options`` of the run that do, by how a message calls them.
    """
    for reason, present in options.items():
        if present:
            return reason
    if method is not None and not method.per_sample:
        return f"the method {name} compares the samples of a batch"
    path = batch_norm_in(modules)
    return None if path is None else f"BatchNorm ({path}) takes mean and deviation of the whole batch"


def batch_norm_in(modules: nn.Module) -> str | None:
    """The path of the first BatchNorm in the members of ``modules``, None without one."""
    paths = (path.partition(".")[2] for path, module in modules.named_modules() if _is_batch_norm(module))
    return next(paths, None)


def _is_batch_norm(module: nn.Module) -> bool:
    """Also those of other libraries, which have the name alone."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or "batchnorm" in type(module).__name__.lower()
