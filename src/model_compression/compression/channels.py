"""Removes whole channels of a network, with everything that is computed from them, down to a target cost.

`groups` finds which layers share channels. Channels go in the order of what they change in the answers for what they
cost. The change is the growth of the KL divergence from the answers before, to second order: half the Fisher
information of a gate on the channel (Theis et al. 2018, "Faster gaze prediction with dense networks and Fisher
pruning", arXiv 1801.05787, equation 9). It needs neither labels nor a teacher, as classes are drawn from the network's
own answers.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from model_compression.compression.config import ROUND_TO
from model_compression.compression.groups import Group, channels_of, copy_network, find_groups, remove, smallest
from model_compression.core.errors import UsageError
from model_compression.data.dataset import Dataset
from model_compression.engine.observer import Observer
from model_compression.models.base import Network
from model_compression.models.pruned import as_pruned
from model_compression.models.summary import summarize
from model_compression.tasks.answers import Answer, drawn_loss

Resource = Literal["macs", "params"]
_SHOWN, _BATCH = 1024, 64  # images that show what channels are worth
SMALLEST = 4  # channels that every layer keeps
_ROUND = 0.8  # of the cost at most goes in a round, after which what channels are worth is seen anew


def cost_of(network: Network, resource: Resource, image_shape: tuple[int, int, int]) -> int:
    """Parameters, or multiply-accumulates for an image of ``image_shape`` (C, H, W)."""
    summary = summarize(network, seen_shape(network, image_shape))
    return summary.macs if resource == "macs" else summary.parameters


def seen_shape(network: Network, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(C, H, W) of what the layers see of an image of ``image_shape``, which may be scaled first."""
    height, width = network.preprocessing.size or image_shape[1:]
    return image_shape[0], height, width


def shown_images(train: Dataset, seed: int, count: int = _SHOWN) -> Iterator[Tensor]:
    """Batches (B, C, H, W) uint8 of ``count`` training images."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:count]
    return (torch.from_numpy(train.images[batch.sort().values.numpy()]) for batch in order.split(_BATCH))


def cut_channels(
    network: Network,
    images: Sequence[Tensor],
    *,
    resource: Resource,
    target: int,
    round_to: int = ROUND_TO,
    seed: int = 0,
    cuttable: Collection[str] | None = None,
    kind: Answer = "categorical",
) -> Network:
    """A copy of ``network`` that costs at most ``target`` parameters or multiply-accumulates.

    Args:
        network: it stays as it is.
        images: batches (B, C, H, W) uint8 that show what each channel is worth; a thousand images are enough.
        resource: what is to be spared.
        target: of it.
        round_to: every layer that loses channels keeps a multiple of it; runtimes are slow with other numbers.
        seed: of the answers that are drawn.
        cuttable: names of the groups that can lose channels, where `check_reachable` has found them already.
        kind: of the network's answers.

    Returns:
        The network with the weights that are left, on the CPU; not trained any further. It can be saved.

    Raises:
        UsageError: it has no channels that can be taken away, or not so many.
        MissingExtraError: without torch-pruning.
    """
    cut = copy_network(network)
    normalised = [network.preprocessing(batch).contiguous() for batch in images]
    shape = tuple(normalised[0].shape[1:])
    assert len(shape) == 3
    if cuttable is None:
        cuttable = check_reachable(network, resource, target, shape, round_to)
    generator = torch.Generator().manual_seed(seed)
    cost = cost_of(cut, resource, shape)
    while cost > target:
        graph, groups = find_groups(cut, shape)
        groups = [group for group in groups if group.name in cuttable and group.count > least_channels(round_to)]
        worth = _fisher(cut, groups, normalised, generator, kind)
        spared = _spared(cut, groups, resource, shape)
        wanted = cost - max(target, round(_ROUND * cost))
        chosen = _cheapest(worth, spared, wanted, round_to)
        assert any(chosen), "no cut spares anything, though the smallest network does"
        for group, channels in zip(groups, chosen, strict=True):
            if channels:
                remove(graph, group, channels)
        cost = cost_of(cut, resource, shape)
    return as_pruned(cut, network.deployed(), normalised[0][:2])


def check_reachable(
    network: Network, resource: Resource, target: int, image_shape: tuple[int, int, int], round_to: int = ROUND_TO,
    observer: Observer | None = None,
) -> frozenset[str]:  # fmt: skip
    """The names of the groups that can lose channels.

    Raises UsageError unless ``network`` can be cut to ``target``, and what `smallest` raises.
    """
    shape, left = seen_shape(network, image_shape), least_channels(round_to)
    cut, cuttable = smallest(network, shape, left, observer)
    least, whole = cost_of(cut, resource, image_shape), cost_of(network, resource, image_shape)
    if least > target:
        remedy = "ask for more" if left == SMALLEST else "ask for more, or for a smaller multiple"
        raise UsageError(
            f"{network.name} cannot be cut to {target:,} {'MACs' if resource == 'macs' else 'parameters'}: with "
            f"{left} channels in every layer that can be cut it has {least:,}, of {whole:,}; {remedy}"
        )
    return cuttable


def least_channels(round_to: int) -> int:
    """What every layer that is cut keeps: `SMALLEST`, or the next multiple of ``round_to``."""
    return -(-SMALLEST // round_to) * round_to


def _fisher(
    network: Network, groups: list[Group], images: Sequence[Tensor], generator: torch.Generator, kind: Answer
) -> list[Tensor]:
    """By group (C,): the mean over ``images`` of (∂ log p / ∂ gate)², for a factor of 1 on what is computed of it."""
    totals = [torch.zeros(group.count, dtype=torch.float64) for group in groups]
    consumers = {id(m.layer): m.layer for group in groups for m in group.members if m.side == "in"}
    weights = [layer.weight for layer in consumers.values()]
    for batch in images:
        logits = network(batch)
        gradients = torch.autograd.grad(drawn_loss(kind, logits, generator), weights)  # type: ignore[arg-type]
        gates = {key: _gates(layer, found) for (key, layer), found in zip(consumers.items(), gradients, strict=True)}
        for total, group in zip(totals, groups, strict=True):
            slope = torch.zeros_like(total)
            for member in group.members:
                if member.side == "in":
                    slope.index_add_(0, member.owners, gates[id(member.layer)][member.indices])
            # Drawn classes make the slopes of images independent with mean 0: the square of the sum is that of each.
            total += slope.square() / (len(batch) * len(images))
    return totals


def _gates(layer: nn.Module, gradient: Tensor) -> Tensor:
    """The derivative with respect to a factor on each input channel (C,), float64."""
    product = (layer.weight.detach() * gradient).double()  # type: ignore[operator]
    return product.transpose(0, 1).flatten(1).sum(dim=1)


def _spared(
    network: Network, groups: list[Group], resource: Resource, image_shape: tuple[int, int, int]
) -> list[Tensor]:
    """By group (C,): what goes of the cost with each channel."""
    macs = {layer.name: layer.macs for layer in summarize(network, image_shape).layers}
    cost = {}
    for name, layer in network.named_modules():
        own = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
        cost[id(layer)] = own if resource == "params" else macs.get(name, 0)
    spared = []
    for group in groups:
        total = torch.zeros(group.count, dtype=torch.float64)
        for member in group.members:
            share = cost[id(member.layer)] / channels_of(member.layer, member.side)
            total.index_add_(0, member.owners, torch.full((len(member.indices),), share, dtype=torch.float64))
        spared.append(total)
    return spared


def _cheapest(worth: list[Tensor], spared: list[Tensor], wanted: float, round_to: int) -> list[list[int]]:
    """By group the channels that are worth least for what they cost, until ``wanted`` is spared; one at least.

    They go in blocks that leave a multiple of ``round_to``. Half of a group's channels go in a round at most, or one
    block, and `least_channels` stay. Of the blocks before the last, which may spare far more than is still wanted,
    those stay that are not needed then.
    """
    blocks: list[tuple[float, int, list[int]]] = []
    for group, (value, cost) in enumerate(zip(worth, spared, strict=True)):
        order = (value / cost.clamp_min(1e-9)).argsort(stable=True)
        first = len(order) % round_to or round_to
        for block in (order[:first], *order[first:].split(round_to)):
            ratio = value[block].sum() / cost[block].sum().clamp_min(1e-9)
            blocks.append((float(ratio), group, block.tolist()))
    taken: list[tuple[float, int, list[int]]] = []
    gone, sum_spared = [0] * len(worth), 0.0
    for _, group, block in sorted(blocks, key=lambda block: block[:2]):
        count, gain = len(worth[group]), float(spared[group][block].sum())
        if gain <= 0 or gone[group] + len(block) > min(max(round_to, count // 2), count - least_channels(round_to)):
            continue
        taken.append((gain, group, block))
        gone[group] += len(block)
        sum_spared += gain
        if sum_spared >= wanted:
            break
    chosen: list[list[int]] = [[] for _ in worth]
    for gain, group, block in reversed(taken):
        if chosen[group] or sum_spared - gain < wanted:  # of a group the first blocks go, to leave a multiple
            chosen[group] = block + chosen[group]
        else:
            sum_spared -= gain
    return chosen
