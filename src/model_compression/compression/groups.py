"""Which channels of a network can be removed: groups of them, each with all layers that lose something with it.

torch-pruning follows channels through a network's layers (Fang et al. 2023, "DepGraph: towards any structural pruning",
arXiv 2301.12900). What it finds is checked here: a group stays whole where its channels are bound to those of another
group, as by splitting and joining them, or where the network cannot be built again without them.
"""

import warnings
from collections.abc import Collection, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model_compression.core.errors import UsageError, reason_of
from model_compression.core.extras import check_extra
from model_compression.engine.observer import Observer, Silent, counter
from model_compression.models.base import Network
from model_compression.models.copies import copy_of, tied
from model_compression.models.pruned import as_pruned, computes, layer_widths

_CUT = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Member:
    """A layer that loses something when a channel goes: ``indices`` of its ``side`` belong to channels ``owners``."""

    layer: nn.Module
    side: Literal["in", "out"]
    indices: list[int]
    owners: Tensor


@dataclass(frozen=True)
class Group:
    """Channels of the layer ``root``, 0 to ``count`` − 1, with all layers that go with them."""

    name: str
    root: nn.Module
    count: int
    members: list[Member]


def copy_network(network: Network) -> Network:
    """A copy of what ships, in float32 on the CPU."""
    return copy_of(network.deployed()).cpu().float().eval()


def find_groups(network: Network, image_shape: tuple[int, int, int]) -> tuple[Any, list[Group]]:
    """torch-pruning's view of ``network``, which `remove` needs, and the groups of channels that can go.

    Raises UsageError when there are none, or the channels cannot be followed, MissingExtraError without torch-pruning.
    """
    check_extra("prune", "pruning")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        import torch_pruning
    trained = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parameters that are in no layer: see `_group`
            graph = torch_pruning.DependencyGraph().build_dependency(network, torch.zeros(2, *image_shape))
            found = list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))
    except Exception as error:  # it follows what autograd records, and fails in its own way on what it cannot follow
        raise UsageError(
            f"the channels of {network.name} cannot be followed through its layers: {reason_of(error)}"
        ) from error
    names = {id(layer): name for name, layer in network.named_modules()}
    shared = tied(network)  # a cut would give each layer weights of its own
    groups = _apart([group for raw in found if (group := _group(raw, names, trained, shared)) is not None])
    groups = [group for group in groups if _goes_as_planned(graph, group)]
    if not groups:
        ties = f" (tied weights: {' = '.join(next(iter(shared.values())))})" if shared else ""
        raise UsageError(
            f"{network.name} has no channels that can be taken away: none that only convolutions, inner products and "
            f"batch normalisations use and that are not split, grouped, tied or frozen{ties}; quantise it, or prune it "
            "single weights of it"
        )
    return graph, groups


_Cut = tuple[Network, frozenset[str]]
"""A network that has lost channels, and the names of the groups that have lost them."""


def smallest(network: Network, image_shape: tuple[int, int, int], left: int, observer: Observer | None = None) -> _Cut:
    """``network`` with ``left`` channels in every group that can be cut to that, and the names of these groups.

    Raises UsageError, with the first reason, when it can be built again without the channels of no group, and what
    `find_groups` raises.
    """
    try:
        return _cut_to(network, image_shape, left)
    except UsageError:
        whole = copy_network(network)
        groups = [group for group in find_groups(whole, image_shape)[1] if group.count > left]
        count = counter(observer or Silent(), "layers that can be cut", len(groups), "tried")
        alone = []
        for number, group in enumerate(groups, start=1):
            alone += [group.name] if _goes_alone(whole, image_shape, left, group) else []
            count(number)
        found = _cut_most(network, image_shape, left, alone)
        if found is None:
            raise
    return found


def _goes_alone(network: Network, image_shape: tuple[int, int, int], left: int, group: Group) -> bool:
    """Whether ``network`` computes with ``left`` channels in this one group: a fraction of what a cut takes."""
    gone: dict[int, dict[str, int]] = {}
    for member in group.members:
        sides = gone.setdefault(id(member.layer), {"in": 0, "out": 0})
        sides[member.side] += int((member.owners >= left).sum())
    widths = {}
    for name, own in layer_widths(network).items():
        layer = network.get_submodule(name)
        if id(layer) not in gone:
            continue
        less = gone[id(layer)]
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:  # each map for itself
            less = dict.fromkeys(less, max(less.values()))
        widths[name] = [width - less[side] for width, side in zip(own, ("in", "out")[-len(own) :], strict=True)]
    return computes(network, widths, torch.zeros(2, *image_shape))


def _cut_most(network: Network, image_shape: tuple[int, int, int], left: int, names: Sequence[str]) -> _Cut | None:
    """The network without the channels of those groups ``names`` that go together: halves are tried."""
    if not names:
        return None
    with suppress(UsageError):
        return _cut_to(network, image_shape, left, names)
    if len(names) == 1:
        return None
    middle = len(names) // 2
    halves = [_cut_most(network, image_shape, left, half) for half in (names[:middle], names[middle:])]
    parts = [part for part in halves if part is not None]
    if len(parts) == 2:
        with suppress(UsageError):
            return _cut_to(network, image_shape, left, parts[0][1] | parts[1][1])
    return max(parts, key=lambda part: len(part[1]), default=None)


def _cut_to(
    network: Network, image_shape: tuple[int, int, int], left: int, names: Collection[str] | None = None
) -> _Cut:
    """The network with ``left`` channels in those of its groups that have ``names``, or in all, and which these are."""
    cut = copy_network(network)
    graph, found = find_groups(cut, image_shape)
    groups = [group for group in found if group.count > left and (names is None or group.name in names)]
    try:
        for group in groups:
            remove(graph, group, list(range(left, group.count)))
    except Exception as error:  # of torch-pruning, which has followed the channels wrongly
        raise UsageError(f"the channels of {network.name} cannot be followed through its layers: {error}") from error
    again = as_pruned(cut, network.deployed(), torch.zeros(2, *image_shape))
    return again, frozenset(group.name for group in groups)


def _apart(groups: list[Group]) -> list[Group]:
    """Those whose channels belong to no other group: what splits and joins channels again may bind some of several."""
    users: dict[tuple[int, str, int], set[int]] = {}
    for number, group in enumerate(groups):
        for member in group.members:
            for index in member.indices:
                users.setdefault((id(member.layer), member.side, index), set()).add(number)
    shared = {number for numbers in users.values() if len(numbers) > 1 for number in numbers}
    return [group for number, group in enumerate(groups) if number not in shared]


def _goes_as_planned(graph: Any, group: Group) -> bool:
    """Whether every layer has a part of each channel, and the first one goes without others, and the last one."""
    owners: dict[tuple[int, str], set[int]] = {}
    for member in group.members:
        owners.setdefault((id(member.layer), member.side), set()).update(member.owners.tolist())
    if any(len(found) < group.count for found in owners.values()):
        return False  # what is split has sizes in the code
    for channel in (0, group.count - 1):
        planned: dict[tuple[int, str], set[int]] = {}
        for member in group.members:
            own = {
                index for index, owner in zip(member.indices, member.owners.tolist(), strict=True) if owner == channel
            }
            planned.setdefault((id(member.layer), member.side), set()).update(own)
        found: dict[tuple[int, str], set[int]] = {}
        for item in _raw_group(graph, group, [channel]).items:
            if isinstance(item.dep.target.module, _CUT):  # no operation in between
                own = {getattr(index, "idx", index) for index in item.idxs}
                found.setdefault((id(item.dep.target.module), _side(item)), set()).update(own)
        if found != planned:
            return False
    return True


def _group(raw: Any, names: dict[int, str], trained: dict[str, bool], shared: Container[int]) -> Group | None:
    """What torch-pruning found, if all in it is of a kind that can be cut, is trained, and has its use in a layer."""
    members = []
    for item in raw.items:
        layer = item.dep.target.module
        if isinstance(layer, nn.Parameter):
            return None
        if id(layer) not in names:  # an operation in between
            continue
        if not isinstance(layer, _CUT) or any(id(parameter) in shared for parameter in layer.parameters()):
            return None
        if _side(item) == "out" and not _is_plain(layer):
            return None
        if (
            isinstance(layer, nn.Conv2d)
            and layer.groups > 1
            and {layer.in_channels, layer.out_channels} != {layer.groups}
        ):
            return None  # each map for itself, and for one map only
        frozen = not trained.get(f"{names[id(layer)]}.weight", True) and not isinstance(layer, _CUT[2:])
        if frozen:
            return None
        indices = [getattr(index, "idx", index) for index in item.idxs]
        members.append(Member(layer, _side(item), indices, torch.tensor(item.root_idxs)))
    if not any(member.side == "in" for member in members):
        return None  # these are the logits
    root = raw[0].dep.target.module
    return Group(names[id(root)], root, len(raw[0].idxs), members)


def _is_plain(layer: nn.Module) -> bool:
    """Whether its parameters are those of its kind: others, as a gain of each channel, would not be cut."""
    own = {name for name, _ in layer.named_parameters()}
    return own <= {"weight", "bias"}


def _side(item: Any) -> Literal["in", "out"]:
    import torch_pruning

    inputs = (torch_pruning.prune_conv_in_channels, torch_pruning.prune_linear_in_channels)
    return "in" if item.dep.handler in inputs else "out"


def channels_of(layer: nn.Module, side: str) -> int:
    """Channels on a ``side``, "in" or "out", of a layer that can be cut."""
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels if side == "in" else layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features if side == "in" else layer.out_features
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    return layer.num_features


def remove(graph: Any, group: Group, channels: list[int]) -> None:
    """Takes ``channels`` of a group away, in place, from all layers that have a part of them."""
    _raw_group(graph, group, sorted(channels)).prune()


def _raw_group(graph: Any, group: Group, channels: list[int]) -> Any:
    """torch-pruning's view of ``channels`` of a group, with all that goes with them."""
    handler = graph.get_pruner_of_module(group.root).prune_out_channels
    return graph.get_pruning_group(group.root, handler, channels)
