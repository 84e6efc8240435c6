"""Activations that are computed again for gradients, instead of kept: less memory for a third more time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from model_compression.core.errors import UsageError
from model_compression.core.options import setting

_CONTAINERS = (nn.Sequential, nn.ModuleList)


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The members of a network's rows of blocks, as its residual blocks or transformer layers, none within another."""
    if isinstance(network, _CONTAINERS):
        found = []
        for member in network:
            if isinstance(member, _CONTAINERS):
                found += repeated_blocks(member)
            elif any(True for _ in member.children()) and any(True for _ in member.parameters()):
                found.append(member)
        return found
    return [block for child in network.children() for block in repeated_blocks(child)]


def blocks_to_recompute(network: nn.Module, name: str) -> list[nn.Module]:
    """`repeated_blocks`. Raises UsageError for a network that has fewer than two."""
    blocks = repeated_blocks(network)
    if len(blocks) < 2:
        raise UsageError(
            f"{name} is no row of blocks whose activations could be computed again; leave "
            f"{setting('checkpoint_activations')} out, or use {setting('accumulate', 4)}"
        )
    return blocks


@contextmanager
def recomputed(
    blocks: Sequence[nn.Module], around: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Iterator[None]:
    """Inside, only what goes in and out of each of ``blocks`` is kept for the backward pass.

    The rest is computed again, ``around`` which is a context, and changes no statistics of BatchNorm a second time.
    """
    for block in blocks:
        context = partial(_contexts, block, around)
        block.__dict__["forward"] = partial(checkpoint, block.forward, use_reentrant=False, context_fn=context)
    try:
        yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]


def _contexts(
    block: nn.Module, around: Callable[[], AbstractContextManager[Any]]
) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _again(block, around)


@contextmanager
def _again(block: nn.Module, around: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    kept = [(buffer, buffer.clone()) for buffer in block.buffers()]
    try:
        with around():
            yield
    finally:  # it ends with an exception, as soon as what is needed is there
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
