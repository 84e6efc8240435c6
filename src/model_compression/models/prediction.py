"""What a network answers on a whole dataset."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from model_compression.core.config import DataConfig
from model_compression.core.device import autocast
from model_compression.core.memory import in_parts
from model_compression.data.dataset import Dataset
from model_compression.data.streaming import loader_for
from model_compression.models.base import Network

_BATCH = 500
_LARGE = 512 * 512  # pixels, from which on a network's own size makes batches smaller


@torch.no_grad()
def predict(
    model: Network,
    dataset: Dataset,
    device: torch.device,
    precision: torch.dtype,
    watch: Callable[[int], None] | None = None,
) -> Tensor:
    """Logits (N, K) float32, on the CPU, of every image in index order, without augmentation, in eval mode.

    ``watch`` is told how many images are done.
    """
    loader = loader_for(dataset, DataConfig(name=dataset.name), device)
    with evaluating(model), autocast(device, precision):
        logits: list[Tensor] = []
        height, width = model.preprocessing.size or (1, 1)
        size = max(1, min(_BATCH, _BATCH * _LARGE // (height * width)))
        for batch in loader.in_order(view=0, batch_size=size):
            logits.append(in_parts(lambda images: model(model.preprocessing(images)).float().cpu(), batch.inputs))
            if watch is not None:
                watch(sum(map(len, logits)))
        return torch.cat(logits)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, what it was after."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
