"""A network that ends in another one's classifier: a trunk, a projector, global pooling, an inner product.

SimKD (Chen et al. 2022, "Knowledge distillation with the reused teacher classifier", arXiv 2203.14001) trains such a
student and ships it whole.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.errors import UsageError
from model_compression.core.inputs import Inputs
from model_compression.core.options import setting
from model_compression.core.registry import unknown_name
from model_compression.models.base import MODELS, Network, check_num_classes
from model_compression.models.blocks import chain, convolution
from model_compression.models.eval_mode import evaluating
from model_compression.models.features import layers, logits_of
from model_compression.models.loading import build_named
from model_compression.models.stages import stages

NAME = "reused-classifier"
TRUNK, PROJECTOR = "trunk", "projector"

_TOLERANCE = 1e-4  # of the largest value: what two ways to compute the same in float32 differ by at most


@MODELS.register(NAME, listed=False)
def reused_classifier(
    num_classes: int = 10,
    body: str = "resnet8",
    body_options: dict[str, Any] | None = None,
    layer: str = "stage3",
    body_map: Sequence[int] = (64, 8, 8),
    teacher_map: Sequence[int] = (256, 8, 8),
    pooling: str = "average",
    bias: bool = True,
) -> Network:
    """Network ``body`` up to ``layer``, a projector of its maps to the teacher's, global pooling, an inner product.

    ``body_map`` and ``teacher_map`` are (C, H, W) of the maps on both sides of the projector, ``pooling`` is "average"
    or "max". With fresh weights it is a network as any other; `reuse_classifier` makes the one with a teacher's.
    """
    check_num_classes(num_classes)
    trunk = behind_layer(
        build_named(body, body_options or {}, None, from_file=True), layer
    )  # it may be: see `read_model`
    head = nn.Linear(_map_size(teacher_map)[0], num_classes, bias=bias)
    return _assembled(trunk, _projector(_map_size(body_map), _map_size(teacher_map)), pooling, head)


def reuse_classifier(
    student: Network, layer: str, teacher: Network, teacher_layer: str, inputs: Inputs, *, seed: int
) -> Network:
    """``student`` up to ``layer``, its maps projected to those of ``teacher_layer``, and the teacher's classifier.

    The student's layers are used, not copied; the teacher's classifier is copied and frozen. ``inputs`` (B, …)
    uint8 show the shapes, and ``seed`` draws the projector's weights.

    Raises UsageError when ``layer`` of the student does not answer with maps, or when the teacher does not answer with
    an inner product of its globally pooled maps.
    """
    _check_layer(student.body, layer)
    shapes = {found.name: found.shape[1:] for found in layers(student.body, student.preprocessing(inputs))}
    pooling, head, teacher_map = find_classifier(teacher, teacher_layer, inputs)
    trunk = behind_layer(student, layer)
    if len(shapes.get(layer, ())) != 3:
        raise UsageError(
            f"the student's layer {layer!r} does not answer with maps; name another with {setting('pairs')}"
        )
    if pooling == "max" and any(a < b for a, b in zip(shapes[layer][1:], teacher_map[1:], strict=True)):
        raise UsageError(
            f"the student's layer {layer!r} has maps of {tuple(shapes[layer][1:])}, fewer pixels than the teacher's "
            f"{teacher_map[1:]}, of which its classifier takes the maximum; name an earlier layer "
            f"with {setting('pairs')}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        projector = _projector(_map_size(shapes[layer]), teacher_map)
    network = _assembled(trunk, projector, pooling, head)
    network.preprocessing = student.preprocessing
    network.name = NAME
    network.options = {
        "num_classes": head.out_features,
        "body": student.name,
        "body_options": student.options,
        "layer": layer,
        "body_map": list(shapes[layer]),
        "teacher_map": list(teacher_map),
        "pooling": pooling,
        "bias": head.bias is not None,
    }
    return network


@torch.no_grad()
def last_maps(student: Network, teacher: Network, inputs: Inputs) -> tuple[str, str]:
    """The last layers of both that answer with maps. Raises UsageError when one of them has none."""
    names = []
    for role, network in (("student", student), ("teacher", teacher)):
        found = [layer for layer in stages(layers(network.body, network.preprocessing(inputs))) if layer.is_map]
        if not found:
            raise UsageError(f"the {role} has no layer that answers with maps, of which a classifier could be reused")
        names.append(found[-1].name)
    return names[0], names[1]


class UpToLayer(nn.Module):
    """``body``, but with the answer of its ``layer`` for its own: of any module, whatever its ``forward`` does.

    ``body`` is used, not copied, and whole: what follows the layer is computed too, for nothing, and gets no gradient.
    """

    def __init__(self, body: nn.Module, layer: str):
        super().__init__()
        self.body, self._layer = body, layer

    def forward(self, inputs: Inputs) -> Tensor:
        """What the layer answers when the body is given ``inputs``."""
        caught: list[Tensor] = []
        layer = self.body.get_submodule(self._layer)
        handle = layer.register_forward_hook(lambda module, inputs, answer: caught.append(answer))
        try:
            self.body(inputs)
        finally:
            handle.remove()
        if not caught:
            raise UsageError(f"layer {self._layer!r} was not used in the forward pass; choose other {setting('pairs')}")
        return caught[-1]


def behind_layer(network: Network, layer: str) -> nn.Module:
    """``network`` up to ``layer``, which may lie within layers, as "stage3.block1".

    A chain of layers is cut; anything else is what `UpToLayer` makes of it. Raises UnknownNameError for a layer that is
    not there.
    """
    _check_layer(network.body, layer)
    return _cut(network.body, layer) if _is_chain(network.body, layer) else UpToLayer(network.body, layer)


def _check_layer(body: nn.Module, layer: str) -> None:
    known = [name for name, _ in body.named_modules() if name]
    if layer not in known:
        raise unknown_name("layer", layer, known)


def name_in(trunk: nn.Module, name: str) -> str:
    """What layer ``name`` of a body is called in the network whose trunk it has become."""
    return f"{TRUNK}.{'body.' if isinstance(trunk, UpToLayer) else ''}{name}"


def _is_chain(module: nn.Module, layer: str) -> bool:
    """Whether each module that ``layer`` lies in is a plain chain, so that nothing goes around a cut behind it."""
    first, _, rest = layer.partition(".")
    if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
        return False
    return not rest or _is_chain(module.get_submodule(first), rest)


def _cut(module: nn.Module, layer: str) -> nn.Sequential:
    first, _, rest = layer.partition(".")
    kept: OrderedDict[str, nn.Module] = OrderedDict()
    for name, child in module.named_children():
        kept[name] = _cut(child, rest) if name == first and rest else child
        if name == first:
            break
    return nn.Sequential(kept)


@torch.no_grad()
def find_classifier(teacher: Network, layer: str, inputs: Inputs) -> tuple[str, nn.Linear, tuple[int, int, int]]:
    """("average" or "max", a frozen copy of the inner product, (C, H, W)) behind the maps of ``layer``.

    Found by what is computed, not by names: the input of the last inner product is the maps' global mean or maximum,
    and its answer, times a constant perhaps, is the teacher's logits. Raises UsageError where that does not hold.
    """
    seen: dict[str, Tensor] = {}
    last: list[nn.Linear] = []

    def remember_map(module: nn.Module, inputs: Any, output: Any) -> None:
        seen["maps"] = output

    def remember_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen["input"] = inputs[0]
        last[:] = [module] if isinstance(module, nn.Linear) else []

    modules = dict(teacher.body.named_modules())
    if layer not in modules:
        raise unknown_name("layer", layer, [name for name in modules if name])
    weighted = [m for m in teacher.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    handles = [module.register_forward_pre_hook(remember_input) for module in weighted]
    handles.append(modules[layer].register_forward_hook(remember_map))
    with evaluating(teacher, handles):
        logits = logits_of(teacher(teacher.preprocessing(inputs)))
    return _checked_classifier(layer, seen.get("maps"), last, seen.get("input"), logits)


def _checked_classifier(
    layer: str, maps: Any, last: Sequence[nn.Linear], embedding: Tensor | None, logits: Tensor
) -> tuple[str, nn.Linear, tuple[int, int, int]]:
    refusal = f"the teacher's classifier cannot be reused behind its layer {layer!r}: "
    remedy = f"; name the last maps with {setting('pairs')}, or choose another teacher or method"
    if not isinstance(maps, Tensor) or maps.ndim != 4:
        raise UsageError(f"{refusal}that does not answer with maps (B, C, H, W){remedy}")
    if not last or embedding is None:
        raise UsageError(f"{refusal}the last layer with weights is no inner product{remedy}")
    means = {"average": maps.mean(dim=(2, 3)), "max": maps.amax(dim=(2, 3))}
    pooling = next((kind for kind, pooled in means.items() if _same(pooled, embedding)), None)
    if pooling is None:
        raise UsageError(f"{refusal}its inner product does not take the mean or the maximum of each map{remedy}")
    plain = F.linear(embedding, last[0].weight, last[0].bias)
    scale = (logits * plain).sum() / plain.square().sum().clamp_min(1e-30)
    if not _same(plain * scale, logits):
        raise UsageError(f"{refusal}more follows its last inner product{remedy}")
    head = nn.Linear(last[0].in_features, last[0].out_features, bias=last[0].bias is not None).requires_grad_(False)
    head.weight.copy_(last[0].weight * scale)
    if last[0].bias is not None:
        head.bias.copy_(last[0].bias * scale)
    return pooling, head, _map_size(maps.shape[1:])


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(
        (one - other).abs().max() <= _TOLERANCE * other.abs().max().clamp_min(1e-6)
    )


def _assembled(trunk: nn.Module, projector: nn.Sequential, pooling: str, head: nn.Linear) -> Network:
    pools = {"average": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}
    if pooling not in pools:
        raise UsageError(f"pooling must be 'average' or 'max', got {pooling!r}")
    return Network(
        OrderedDict(trunk=trunk, projector=projector, pool=pools[pooling](1), flatten=nn.Flatten(), classifier=head),
        flatten_shape=(head.in_features, 1, 1),
    )


def _projector(body: tuple[int, int, int], teacher: tuple[int, int, int]) -> nn.Sequential:
    """1×1, 3×3 and 1×1 convolutions, each with BatchNorm and ReLU, through half the teacher's width.

    Of maps (C, H, W); where the teacher's map is the smaller one, the body's is pooled to it first.
    """
    size = (min(body[1], teacher[1]), min(body[2], teacher[2]))
    middle = max(1, teacher[0] // 2)
    parts: dict[str, nn.Module] = {"pool": nn.AdaptiveAvgPool2d(size)} if body[1:] != size else {}
    widths = (body[0], middle, middle, teacher[0])
    for number, kernel in enumerate((1, 3, 1), start=1):
        parts[f"conv{number}"] = convolution(widths[number - 1], widths[number], kernel)
        parts |= {f"bn{number}": nn.BatchNorm2d(widths[number]), f"relu{number}": nn.ReLU()}
    return chain(**parts)


def _map_size(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of maps of more than one pixel. Raises UsageError for anything else."""
    if len(shape) != 3 or min(shape) < 1 or shape[1] * shape[2] == 1:
        raise UsageError(f"maps must be (channels, height, width) of more than one pixel, got {tuple(shape)}")
    return shape[0], shape[1], shape[2]
