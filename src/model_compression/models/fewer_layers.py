"""A transformer with some of its blocks only, as DistilBERT begins (Sanh et al. 2019, arXiv 1910.01108, section 3)."""

from collections.abc import Sequence

from torch import nn

from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.models.base import Network


def keep_layers(network: Network, layers: Sequence[int], role: str = "student") -> Network:
    """``network``, changed in place, with the blocks ``layers`` of it, counted from 0, in this order.

    All else, as embeddings and head, stays. What it is built of again is written into its options.

    Raises UsageError for a network that is none of transformers', and for blocks that it has not.
    """
    config = network.options.get("config")
    name, blocks = _blocks(network.body)
    if not isinstance(config, dict) or blocks is None:
        raise UsageError(
            f"{setting(f'{role}_layers')} is for transformers hf:NAME, and {network.name or 'this network'} has no "
            "blocks to choose from; leave it out"
        )
    count = len(blocks)
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong or len(set(layers)) < len(layers) or not layers:
        raise UsageError(
            f"{setting(f'{role}_layers')} must be different numbers from 0 to {count - 1}, the blocks of "
            f"{network.name}, got {', '.join(map(str, layers))}"
        )
    parent, _, own = name.rpartition(".")
    setattr(network.body.get_submodule(parent), own, nn.ModuleList(blocks[layer] for layer in layers))
    network.options = {**network.options, "config": _shortened(config, layers, count)}
    return network


def _blocks(body: nn.Module) -> tuple[str, nn.ModuleList | None]:
    """The longest list of blocks of one class, and its name."""
    lists = [(name, part) for name, part in body.named_modules() if isinstance(part, nn.ModuleList) and len(part) > 1]
    alike = [(name, part) for name, part in lists if len({type(block) for block in part}) == 1]
    return max(alike, key=lambda item: len(item[1]), default=("", None))


def _shortened(config: dict[str, object], layers: Sequence[int], count: int) -> dict[str, object]:
    """The configuration of the network with ``layers`` of ``count`` blocks."""
    numbers = [key for key in ("num_hidden_layers", "n_layers", "num_layers") if config.get(key) == count]
    lists = {
        key: [value[layer] for layer in layers]
        for key, value in config.items()
        if isinstance(value, list) and len(value) == count and key.endswith(("_types", "_layers"))
    }
    return {**config, **dict.fromkeys(numbers, len(layers)), **lists}
