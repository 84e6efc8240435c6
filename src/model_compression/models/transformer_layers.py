"""What of a transformer's blocks can be compared: the blocks themselves, their queries, keys and values, and attention.

A tap NAME:attention answers with the scores of the block NAME before the softmax, (B, heads, L, L).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from model_compression.core.errors import UsageError

ATTENTION = ":attention"
_PARTS = {
    "query": ("query", "q_lin", "q_proj", "query_proj"),
    "key": ("key", "k_lin", "k_proj", "key_proj"),
    "value": ("value", "v_lin", "v_proj", "value_proj"),
}
_HEADS = ("num_attention_heads", "n_heads", "num_heads")


def map_uniformly(student: Sequence[str], teacher: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of blocks: the m-th of M of the student's, from 1, with the teacher's ⌈m · N / M⌉-th of N.

    As TinyBERT (Jiao et al. 2020, arXiv 1909.10351, section 3.1) maps layers, so that the last belong together.
    """
    count, all_count = len(student), len(teacher)
    return [(name, teacher[-(-(m * all_count) // count) - 1]) for m, name in enumerate(student, start=1)]


def part_of_block(model: nn.Module, block: str, part: str) -> str:
    """The name of the inner product that gives "query", "key" or "value" in the block ``block`` of ``model``.

    Raises UsageError for a block without one, as where all three are one product.
    """
    found = [
        f"{block}.{name}"
        for name, module in model.get_submodule(block).named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in _PARTS[part]
    ]
    if len(found) != 1:
        raise UsageError(
            f"{block} has {f'{len(found)} layers' if found else 'no layer'} for the {part} of its attention; expected "
            "one: choose another method, as hidden"
        )
    return found[0]


def has_attention(model: nn.Module, block: str) -> bool:
    """Whether a layer is a block that holds its query, and no single layer."""
    modules = dict(model.named_modules())
    within = modules[block].named_modules() if block in modules else ()
    return any(name.rpartition(".")[2] in _PARTS["query"] for name, _ in within if name)


def heads_of(model: nn.Module, block: str) -> int:
    """The number of attention heads of a block. Raises UsageError where it does not say."""
    for module in model.get_submodule(block).modules():
        for name in _HEADS:
            if isinstance(found := getattr(module, name, None), int):
                return found
    raise UsageError(f"{block} does not say how many attention heads it has; choose another method, as hidden")


class AttentionTap:
    """Hooks on query and key of a block, of which `scores` are made after a forward pass."""

    def __init__(self, model: nn.Module, block: str):
        self.heads = heads_of(model, block)
        names = [part_of_block(model, block, part) for part in ("query", "key")]
        self._block = block
        self._caught: dict[int, Tensor] = {}
        self.handles = [
            model.get_submodule(name).register_forward_hook(self._catcher(number)) for number, name in enumerate(names)
        ]

    def _catcher(self, number: int) -> Any:
        def catch(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._caught[number] = output

        return catch

    def scores(self) -> Tensor:
        """Q Kᵀ / √d (B, heads, L, L) of the last forward pass. Raises UsageError where the block was not used."""
        if len(self._caught) < 2:
            raise UsageError(f"layer {self._block!r} was not used in the forward pass; tap another")
        query, key = (self._caught.pop(number).unflatten(2, (self.heads, -1)).transpose(1, 2) for number in (0, 1))
        return torch.matmul(query, key.transpose(2, 3)) / math.sqrt(query.shape[3])
