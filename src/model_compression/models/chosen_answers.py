"""A network of which some answers are used, as ten of ImageNet's 1,000 classes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from model_compression.models.base import Network
from model_compression.models.features import logits_of

_BUFFER = "chosen_answers"


def choose_answers(network: Network, numbers: Sequence[int]) -> None:
    """``network`` answers from here on with its logits of ``numbers`` only, in that order.

    The numbers are a buffer, so that a digest of the network covers them.
    """
    network.body.register_buffer(_BUFFER, torch.tensor(numbers))
    network.body.register_forward_hook(_chosen)


def _chosen(body: nn.Module, inputs: Any, answer: Any) -> torch.Tensor:
    return logits_of(answer).index_select(1, body.get_buffer(_BUFFER))
