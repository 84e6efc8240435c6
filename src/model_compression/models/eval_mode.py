"""Networks in eval mode for as long as something is seen of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def evaluating(model: nn.Module, handles: Sequence[RemovableHandle] = ()) -> Iterator[None]:
    """Eval mode inside, what it was after; the hooks of ``handles`` are removed then."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
