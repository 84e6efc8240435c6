"""Networks without a head: one vector for each sample, from whatever such a network answers."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from model_compression.core.errors import UsageError

_NAMES = ("pooler_output", "image_embeds", "embedding", "last_hidden_state", "logits")
_CLASS_TOKENS = (1, 2, 5)  # before the patches: a class token, with one for distillation, with four registers


def embedding_of(answer: Any) -> Tensor:
    """The embeddings (B, D) in what a network without a head answers. Raises UsageError where it has none.

    A tensor (B, D) as it is. Maps (B, C, H, W): the mean over positions. Tokens (B, L, D): the first where L less 1, 2
    or 5 is a square, as a class token precedes the patches then; else the mean. An object or mapping that has
    ``pooler_output``, ``image_embeds``, ``embedding``, ``last_hidden_state`` or ``logits``: the first of these; a list
    or tuple: its first entry.
    """
    found = answer[0] if isinstance(answer, list | tuple) and answer else answer
    if not isinstance(found, Tensor):
        get = found.get if isinstance(found, Mapping) else lambda name: getattr(found, name, None)
        found = next((entry for name in _NAMES if isinstance(entry := get(name), Tensor)), None)
    if not isinstance(found, Tensor) or found.ndim not in (2, 3, 4):
        got = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else type(answer).__name__
        raise UsageError(
            f"the network answers with {got}; expected embeddings (batch, width), tokens (batch, length, width), maps "
            f"(batch, channels, height, width), or an object or mapping with {', '.join(_NAMES[:-1])}"
        )
    if found.ndim == 4:
        return found.mean(dim=(2, 3))
    if found.ndim == 3:
        return found[:, 0] if has_class_token(found.shape[1]) else found.mean(dim=1)
    return found


def has_class_token(length: int) -> bool:
    """Whether ``length`` tokens are those of a square of patches and some before them."""
    return math.isqrt(length) ** 2 != length and any(
        length > count and math.isqrt(length - count) ** 2 == length - count for count in _CLASS_TOKENS
    )


def take_head_off(module: nn.Module, name: str) -> None:
    """Replaces the last inner product of ``module``, its classifier, by an identity.

    Raises UsageError for a network that does not end with one.
    """
    weighted = [
        (place, layer)
        for place, layer in module.named_modules()
        if next(layer.parameters(recurse=False), None) is not None
    ]
    place, last = weighted[-1] if weighted else ("", None)
    if not isinstance(last, nn.Linear) or not place:
        raise UsageError(
            f"{name} does not end with an inner product, so it is not known what its embeddings are; choose another "
            "network, or a builder of yours that returns them"
        )
    module.set_submodule(place, nn.Identity())
