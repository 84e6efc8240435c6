"""Samples to try and to measure a network with, where any will do."""

import torch
from torch import nn

from model_compression.core.inputs import Inputs
from model_compression.models.hf_texts import OfTokens


def takes_texts(network: nn.Module) -> bool:
    """Whether it is a classifier of texts or words of transformers."""
    return any(isinstance(module, OfTokens) for module in network.modules())


def blank(shape: tuple[int, ...], count: int = 1) -> Inputs:
    """``count`` normalised images of zeros, of ``shape`` (C, H, W); or texts of one token again and again, of (L,)."""
    if len(shape) != 1:
        return torch.zeros(count, *shape)
    ones = torch.ones(count, *shape, dtype=torch.int64)
    return {"input_ids": ones, "attention_mask": ones.clone()}


def described(shape: tuple[int, ...]) -> str:
    """What a sample of ``shape`` is called, for messages, as "an image of 3 × 32 × 32"."""
    return f"a text of {shape[0]} tokens" if len(shape) == 1 else f"an image of {' × '.join(map(str, shape))}"
