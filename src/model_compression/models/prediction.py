"""What a network answers on a whole dataset."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from model_compression.core.data_config import DataConfig
from model_compression.core.device import autocast
from model_compression.core.inputs import Inputs
from model_compression.core.memory import in_parts
from model_compression.core.windows import slide
from model_compression.data.batches import ALL
from model_compression.data.dataset import Dataset
from model_compression.data.streaming import loader_for
from model_compression.models.base import Network
from model_compression.models.eval_mode import evaluating

_BATCH = 500
_MOST_LOGITS = 2**26  # of a batch
_LARGE = 64 * 64  # pixels, from which on batches are smaller


@torch.no_grad()
def predict(
    model: Network,
    dataset: Dataset,
    device: torch.device,
    precision: torch.dtype,
    watch: Callable[[int], None] | None = None,
    rows: slice = ALL,
    keep: Callable[[Tensor], Tensor] = lambda logits: logits,
    window: int = 0,
) -> Tensor:
    """Logits (N, …) float32, on the CPU, of every sample in index order, without augmentation, in eval mode.

    ``watch`` is told how many samples are done; ``rows`` are those that are wanted. ``keep`` says what is kept of the
    logits of a batch, see `tasks.base.Task.kept`. ``window``: the side of windows that images are answered in, see
    `slide`; 0: whole.
    """

    def answer(inputs: Inputs) -> Tensor:
        logits: Tensor = model(model.preprocessing(inputs))
        return logits

    whole = answer if not window else lambda inputs: slide(answer, inputs, (window, window))

    loader = loader_for(dataset, DataConfig(name=dataset.name), device)
    with evaluating(model), autocast(device, precision):
        logits: list[Tensor] = []
        for batch in loader.in_order(view=0, batch_size=batch_size(dataset, [model]), rows=rows):
            logits.append(in_parts(lambda inputs: keep(whole(inputs).float()).cpu(), batch.inputs))
            if watch is not None:
                watch(sum(map(len, logits)))
        return torch.cat(logits).contiguous()  # maps come channels-last


def batch_size(dataset: Dataset, networks: Iterable[Network] = ()) -> int:
    """How many samples are answered at once where nothing is trained: fewer of large images, as they are or as one of
    ``networks`` scales them, and where each pixel has logits.
    """
    sizes = [network.preprocessing.size for network in networks]
    sizes += [dataset.image_shape[1:]] if dataset.holds_images else []
    pixels = max((size[0] * size[1] for size in sizes if size is not None), default=1)
    return max(1, min(_BATCH, _MOST_LOGITS // dataset.num_logits, _BATCH * _LARGE // pixels))
