"""Takes channels away from a network: whole ones, with all that is computed from them, until it costs what it may.

Which layers share channels is found by torch-pruning (Fang et al. 2023, "DepGraph: towards any structural pruning",
arXiv 2301.12900). Which channels go is our own: those that change the answers least for what they cost. The change is
the growth of the KL divergence from the answers before, to second order: half the Fisher information of a gate on the
channel (Theis et al. 2018, "Faster gaze prediction with dense networks and Fisher pruning", arXiv 1801.05787, equation
9). It needs neither labels nor a teacher, as classes are drawn from the network's own answers.
"""

import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.errors import MissingExtraError, UsageError
from model_compression.models.base import Network, copy_of, tied
from model_compression.models.pruned import as_pruned
from model_compression.models.summary import summarize

Resource = Literal["macs", "params"]
ROUND_TO = 4  # of what is left of a layer's channels, unless another is asked for
SMALLEST = 4  # channels that every layer keeps
_ROUND = 0.8  # of the cost at most goes in a round, after which what channels are worth is seen anew
_CUT = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class _Member:
    """A layer that loses something when a channel goes: ``indices`` of its ``side`` belong to channels ``owners``."""

    layer: nn.Module
    side: Literal["in", "out"]
    indices: list[int]
    owners: Tensor


@dataclass(frozen=True)
class _Group:
    """Channels of ``root``, 0 to ``count`` − 1, with all layers that go with them."""

    root: nn.Module
    count: int
    members: list[_Member]


def cost_of(network: Network, resource: Resource, image_shape: tuple[int, int, int]) -> int:
    """Parameters, or multiply-accumulates for an image of ``image_shape`` (C, H, W)."""
    summary = summarize(network, seen_shape(network, image_shape))
    return summary.macs if resource == "macs" else summary.parameters


def seen_shape(network: Network, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(C, H, W) of what the layers see of an image of ``image_shape``, which may be scaled first."""
    height, width = network.preprocessing.size or image_shape[1:]
    return image_shape[0], height, width


def cut_channels(
    network: Network,
    images: Sequence[Tensor],
    *,
    resource: Resource,
    target: int,
    round_to: int = ROUND_TO,
    seed: int = 0,
) -> Network:
    """A copy of ``network`` that costs at most ``target`` parameters or multiply-accumulates.

    Args:
        network: it stays as it is.
        images: batches (B, C, H, W) uint8 that show what each channel is worth; a thousand images are enough.
        resource: what is to be spared.
        target: of it.
        round_to: every layer that loses channels keeps a multiple of it; runtimes are slow with other numbers.
        seed: of the classes that are drawn.

    Returns:
        The network with the weights that are left, on the CPU; not trained any further. It can be saved.

    Raises:
        UsageError: it has no channels that can be taken away, or not so many.
        MissingExtraError: without torch-pruning.
    """
    cut = copied(network)
    normalised = [network.preprocessing(batch).contiguous() for batch in images]
    shape = tuple(normalised[0].shape[1:])
    assert len(shape) == 3
    check_reachable(network, resource, target, shape, round_to)
    generator = torch.Generator().manual_seed(seed)
    cost = cost_of(cut, resource, shape)
    while cost > target:
        with _graph(cut, shape) as (graph, groups):
            groups = [group for group in groups if group.count > _least(round_to)]
            worth = _fisher(cut, groups, normalised, generator)
            spared = _spared(cut, groups, resource, shape)
            wanted = cost - max(target, round(_ROUND * cost))
            chosen = _cheapest(worth, spared, wanted, round_to)
            assert any(chosen), "no cut spares anything, though the smallest network does"
            for group, channels in zip(groups, chosen, strict=True):
                if channels:
                    _remove(graph, group, channels)
        cost = cost_of(cut, resource, shape)
    return as_pruned(cut, network.deployed(), normalised[0][:2])


def check_reachable(
    network: Network, resource: Resource, target: int, image_shape: tuple[int, int, int], round_to: int = ROUND_TO
) -> None:
    """Raises UsageError unless ``network`` can be cut to ``target``, and what `smallest_cost` raises."""
    least, whole = smallest_cost(network, resource, image_shape, round_to), cost_of(network, resource, image_shape)
    if least > target:
        remedy = "ask for more" if _least(round_to) == SMALLEST else "ask for more, or for a smaller multiple"
        raise UsageError(
            f"{network.name} cannot be cut to {target:,} {'MACs' if resource == 'macs' else 'parameters'}: with "
            f"{_least(round_to)} channels in every layer that can be cut it has {least:,}, of {whole:,}; {remedy}"
        )


def smallest_cost(
    network: Network, resource: Resource, image_shape: tuple[int, int, int], round_to: int = ROUND_TO
) -> int:
    """What ``network`` costs when it is cut as far as it can be.

    Raises UsageError when it cannot be cut at all, or not be built again when it is, MissingExtraError without
    torch-pruning.
    """
    smallest, shape, left = copied(network), seen_shape(network, image_shape), _least(round_to)
    with _graph(smallest, shape) as (graph, groups):
        for group in groups:
            if group.count > left:
                _remove(graph, group, list(range(left, group.count)))
    as_pruned(smallest, network.deployed(), torch.zeros(2, *shape))
    return cost_of(smallest, resource, image_shape)


def _least(round_to: int) -> int:
    return -(-SMALLEST // round_to) * round_to


def copied(network: Network) -> Network:
    """A copy of what ships, in float32 on the CPU."""
    return copy_of(network.deployed()).cpu().float().eval()


@contextmanager
def _graph(network: Network, image_shape: tuple[int, int, int]) -> Iterator[tuple[Any, list[_Group]]]:
    """torch-pruning's view of ``network``, and the groups of channels that can go."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its imports
            import torch_pruning
    except ImportError:
        raise MissingExtraError("torch-pruning", "prune", "pruning") from None
    trained = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parameters that are in no layer: see `_group`
            graph = torch_pruning.DependencyGraph().build_dependency(network, torch.zeros(2, *image_shape))
            found = list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))
    except Exception as error:  # it follows what autograd records, and fails in its own way on what it cannot follow
        reason = str(error).partition("\n")[0]
        raise UsageError(f"the channels of {network.name} cannot be followed through its layers: {reason}") from error
    names = {id(layer): name for name, layer in network.named_modules()}
    shared = tied(network)  # a cut would give each layer weights of its own
    groups = [group for raw in found if (group := _group(raw, names, trained, shared)) is not None]
    if not groups:
        ties = f", but for tied weights ({' = '.join(next(iter(shared.values())))})" if shared else ""
        raise UsageError(
            f"{network.name} has no channels that can be taken away: no two layers in turn that share any{ties}"
        )
    yield graph, groups


def _group(raw: Any, names: dict[int, str], trained: dict[str, bool], shared: Container[int]) -> _Group | None:
    """What torch-pruning found, if all in it is of a kind that can be cut, is trained, and has its use in a layer."""
    import torch_pruning

    inputs = (torch_pruning.prune_conv_in_channels, torch_pruning.prune_linear_in_channels)
    members = []
    for item in raw.items:
        layer = item.dep.target.module
        if isinstance(layer, nn.Parameter):
            return None
        if id(layer) not in names:  # an operation in between
            continue
        if not isinstance(layer, _CUT) or any(id(parameter) in shared for parameter in layer.parameters()):
            return None
        if isinstance(layer, nn.Conv2d) and layer.groups not in (1, layer.in_channels):
            return None
        frozen = not trained.get(f"{names[id(layer)]}.weight", True) and not isinstance(layer, _CUT[2:])
        if frozen:
            return None
        side: Literal["in", "out"] = "in" if item.dep.handler in inputs else "out"
        indices = [getattr(index, "idx", index) for index in item.idxs]
        members.append(_Member(layer, side, indices, torch.tensor(item.root_idxs)))
    if not any(member.side == "in" for member in members):
        return None  # these are the logits
    return _Group(raw[0].dep.target.module, len(raw[0].idxs), members)


def _fisher(
    network: Network, groups: list[_Group], images: Sequence[Tensor], generator: torch.Generator
) -> list[Tensor]:
    """By group (C,): the mean over ``images`` of (∂ log p / ∂ gate)², for a factor of 1 on what is computed of it."""
    totals = [torch.zeros(group.count, dtype=torch.float64) for group in groups]
    consumers = {id(m.layer): m.layer for group in groups for m in group.members if m.side == "in"}
    weights = [layer.weight for layer in consumers.values()]
    for batch in images:
        logits = network(batch)
        classes = torch.multinomial(logits.detach().softmax(dim=1), 1, generator=generator)[:, 0]
        gradients = torch.autograd.grad(F.cross_entropy(logits, classes, reduction="sum"), weights)  # type: ignore[arg-type]
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
    network: Network, groups: list[_Group], resource: Resource, image_shape: tuple[int, int, int]
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
            share = cost[id(member.layer)] / _channels(member.layer, member.side)
            total.index_add_(0, member.owners, torch.full((len(member.indices),), share, dtype=torch.float64))
        spared.append(total)
    return spared


def _channels(layer: nn.Module, side: str) -> int:
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels if side == "in" else layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features if side == "in" else layer.out_features
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    return layer.num_features


def _cheapest(worth: list[Tensor], spared: list[Tensor], wanted: float, round_to: int) -> list[list[int]]:
    """By group the channels that are worth least for what they cost, until ``wanted`` is spared; one at least.

    They go in blocks that leave a multiple of ``round_to``. Half of a group's channels go in a round at most, or one
    block, and `_least` stay. Of the blocks before the last, which may spare far more than is still wanted, those stay
    that are not needed then.
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
        if gain <= 0 or gone[group] + len(block) > min(max(round_to, count // 2), count - _least(round_to)):
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


def _remove(graph: Any, group: _Group, channels: list[int]) -> None:
    import torch_pruning

    handler = graph.get_pruner_of_module(group.root).prune_out_channels
    found = graph.get_pruning_group(group.root, handler, sorted(channels))
    assert isinstance(found, torch_pruning.dependency.Group)
    found.prune()
