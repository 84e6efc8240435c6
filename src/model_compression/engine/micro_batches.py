"""A step in smaller parts when memory runs out, where that changes nothing; else an error with a size that fits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from model_compression.core.device import give_freed_memory_back
from model_compression.core.errors import OutOfMemoryError
from model_compression.core.memory import is_out_of_memory
from model_compression.core.options import setting
from model_compression.data.loader import Batch
from model_compression.distillation.methods import Method
from model_compression.distillation.step import Learned

Attempt = Callable[[Sequence[Batch]], Learned]


def learn_in_less_memory(
    attempt: Attempt, batch: Batch, size: int | None, obstacle: str | None, report: Callable[[str], None]
) -> tuple[Learned, int | None]:
    """What ``attempt`` gives for ``batch`` after memory has run out, and how many samples go at once from here on.

    The number is halved until it fits, and the parts' gradients are added up, where no ``obstacle`` looks at several
    samples at once: gradients are those of the whole batch, to rounding. Dropout draws another, equally good mask.
    ``size`` is the number that was too large; None: the whole batch. ``report`` is told.

    Raises OutOfMemoryError with a number of images that fits where they may not be split, or when not even one does.
    """
    whole = min(size or len(batch.targets), len(batch.targets))
    # Once more, as the first attempt has made the memory that is kept from step to step the system's again.
    give_freed_memory_back(batch.inputs.device)
    learned = _tried(attempt, batch, whole)
    if learned is not None:
        if obstacle is not None:
            report(f"out of memory in a step, which was begun anew; its batch may count twice, as {obstacle}")
        return learned, size
    fits = whole
    while learned is None and fits > 1:
        fits = -(-fits // 2)
        learned = _tried(attempt, batch if obstacle is None else part_of(batch, 0, fits), fits)
    if learned is None:
        raise OutOfMemoryError("out of memory with one image a step; take a smaller student or smaller images")
    if obstacle is not None:
        raise OutOfMemoryError(
            f"out of memory with {whole} images a step; {fits} fit: {setting('batch_size', fits)}. The batch is not "
            f"split, as {obstacle}: the student would learn something else"
        )
    report(
        f"out of memory with {whole} images at once: from here on {fits} at a time, their gradients added up, "
        "which gives the same step"
    )
    return learned, fits


def _tried(attempt: Attempt, batch: Batch, size: int) -> Learned | None:
    """What parts of ``size`` samples give, None when memory runs out."""
    try:
        return attempt(split(batch, size))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    give_freed_memory_back(batch.inputs.device)  # out here, where the error no longer holds what was computed
    return None


def split(batch: Batch, size: int | None) -> list[Batch]:
    """``batch`` in parts of ``size`` samples; None: whole."""
    count = len(batch.targets)
    if size is None or size >= count:
        return [batch]
    return [part_of(batch, start, size) for start in range(0, count, size)]


def part_of(batch: Batch, start: int, size: int) -> Batch:
    """``size`` images of a batch from ``start`` on."""
    rows = slice(start, start + size)
    mixed = batch.mixed and replace(batch.mixed, targets=batch.mixed.targets[rows], share=batch.mixed.share[rows])
    return replace(batch, inputs=batch.inputs[rows], targets=batch.targets[rows], ids=batch.ids[rows], mixed=mixed)


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
