"""The stages of a network, from its layers, and pairs of layers of student and teacher that belong together."""

from collections.abc import Sequence

from model_compression.core.errors import UsageError
from model_compression.models.features import Layer


def stages(candidates: Sequence[Layer]) -> list[Layer]:
    """One layer for each stage: the last that answers at a resolution before it changes.

    Layers of the network itself come before layers within its layers, where they have several resolutions. In a
    transformer, whose resolution does not change after the patches are cut, a stage is a quarter of the blocks.
    """
    blocks = blocks_in(candidates)
    maps = [layer for layer in candidates if layer.is_map]
    outermost = [layer for layer in maps if "." not in layer.name]
    if len({layer.shape[2:] for layer in outermost}) > 1:
        maps = outermost
    if maps and not (blocks and len({layer.shape[2:] for layer in maps}) == 1):
        return list({layer.shape[2:]: layer for layer in maps}.values())
    return [blocks[-(-len(blocks) * quarter // 4) - 1] for quarter in (1, 2, 3, 4)] if len(blocks) >= 4 else blocks


def choose_pairs(student: Sequence[Layer], teacher: Sequence[Layer]) -> list[tuple[str, str]]:
    """Pairs of layer names (student's, teacher's), stage by stage: of equal resolution, else counted from the end.

    Raises UsageError when one of them has no maps and no tokens.
    """
    s, t = stages(student), stages(teacher)
    if not (s and t):
        which = "student" if not s else "teacher"
        raise UsageError(f"the {which} has no layer with maps or tokens to tap; choose a method that needs logits only")
    sizes = {layer.shape[2:]: layer for layer in t if layer.is_map}
    equal = [(layer.name, sizes[layer.shape[2:]].name) for layer in s if layer.is_map and layer.shape[2:] in sizes]
    if equal:
        return equal
    count = min(len(s), len(t))
    return [(a.name, b.name) for a, b in zip(s[-count:], t[-count:], strict=True)]


def blocks_in(candidates: Sequence[Layer]) -> list[Layer]:
    """The blocks among layers with tokens: of the outermost numbered list of several; else a list's only block."""
    tokens = [layer for layer in candidates if layer.is_tokens]
    found = [layer for layer in tokens if _repeats(layer, tokens)] or [one for one in tokens if _is_alone(one, tokens)]
    depth = min((layer.name.count(".") for layer in found), default=None)
    return [layer for layer in found if layer.name.count(".") == depth]


def _repeats(layer: Layer, tokens: Sequence[Layer]) -> bool:
    """Whether it is one of several of its class in a numbered list, as ``blocks.3``."""
    parent, _, number = layer.name.rpartition(".")
    return number.isdigit() and sum(other.name.rpartition(".")[0] == parent for other in tokens) > 1


def _is_alone(layer: Layer, tokens: Sequence[Layer]) -> bool:
    """Whether it is the first of a numbered list, and holds other layers."""
    return layer.name.endswith(".0") and any(other.name.startswith(f"{layer.name}.") for other in tokens)
