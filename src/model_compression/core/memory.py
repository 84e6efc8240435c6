"""What says that memory has run out, and what can be done about it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from model_compression.core.device import give_freed_memory_back
from model_compression.core.errors import OutOfMemoryError, reason_of
from model_compression.core.inputs import Inputs, map_inputs, tensors_of

# What torch and oneDNN say on a processor, where the error has no type of its own.
_SAID = ("can't allocate memory", "not enough memory", "could not create a memory", "could not create a primitive")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _SAID)


@contextmanager
def named_out_of_memory(remedy: str) -> Iterator[None]:
    """Turns what runs out of memory inside into OutOfMemoryError with ``remedy``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"out of memory ({reason_of(error)}); {remedy}") from None


def in_parts(answer: Callable[[Any], Tensor], inputs: Inputs) -> Tensor:
    """``answer(inputs)``, in halves that are put together where memory does not take all (B, …) at once.

    Right where each answer depends on its own sample alone, as those of a network in eval mode do.
    """
    first = tensors_of(inputs)[0]
    try:
        return answer(inputs)
    except (RuntimeError, MemoryError) as error:
        if len(first) == 1 or not is_out_of_memory(error):
            raise
    give_freed_memory_back(first.device)
    middle = -(-len(first) // 2)
    head, tail = (map_inputs(itemgetter(rows), inputs) for rows in (slice(middle), slice(middle, None)))
    return torch.cat([in_parts(answer, head), in_parts(answer, tail)])
