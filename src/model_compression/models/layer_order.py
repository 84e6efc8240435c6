"""Which of a network's layers is the last one, and how far from it each parameter is."""

import torch
from torch import nn

from model_compression.core.errors import UsageError
from model_compression.models.base import Network
from model_compression.models.recomputing import repeated_blocks


def last_layer(network: Network, num_outputs: int, asked: str) -> nn.Module:
    """The layer that gives the ``num_outputs`` numbers of an answer.

    A network of timm names it by ``get_classifier``. In others it is the last layer with a weight matrix, which must
    have as many outputs. Raises UsageError for a network without such a layer, which the option ``asked`` needs.
    """
    named = getattr(network.body, "get_classifier", None)
    layer = named() if callable(named) else None
    if isinstance(layer, tuple):  # one for the class token and one for that of distillation
        layer = nn.ModuleList(layer)
    if isinstance(layer, nn.Module) and any(True for _ in layer.parameters()):
        return layer
    matrices = [(path, one) for path, one in network.named_modules() if _has_matrix(one)]
    path, found = matrices[-1] if matrices else ("", network)
    outputs = len(found.weight) if matrices and isinstance(found.weight, torch.Tensor) else 0
    if outputs == num_outputs and any(parameter.requires_grad for parameter in found.parameters()):
        return found
    there = f"its last layer with weights, {path}, has {outputs} outputs" if matrices else "none has a weight matrix"
    if outputs == num_outputs:
        there = f"its last layer, {path}, does not learn"
    raise UsageError(
        f"{asked} needs a network whose last layer gives the {num_outputs} numbers of an answer; of {network.name} "
        f"{there}: leave {asked} out"
    )


def block_factors(network: Network, decay: float, asked: str) -> dict[nn.Parameter, float]:
    """The factor of the rate of each parameter: ``decay`` to the power of the number of blocks from there on.

    Blocks are `repeated_blocks`. What follows the last block has the factor 1; what stands between two blocks has that
    of the block before it. Raises UsageError for a network of fewer than two blocks, for the option ``asked``.
    """
    blocks = repeated_blocks(network.body)
    if len(blocks) < 2:
        raise UsageError(f"{asked} needs a network that is a row of blocks, and {network.name} is none: leave it out")
    number = {id(parameter): place for place, block in enumerate(blocks) for parameter in block.parameters()}
    last = [*blocks[-1].parameters()][-1]
    factors, place = {}, -1
    for parameter in network.parameters():
        place = number.get(id(parameter), place)
        factors[parameter] = decay ** (len(blocks) - place)
        if parameter is last:
            place = len(blocks)
    return factors


def _has_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim > 1 and not any(True for _ in module.children())
