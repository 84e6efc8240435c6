"""The contract of a distillation method: a small module of named, unweighted, batch-mean terms."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.core.registry import Registry

LayerMap = Literal["", "blocks", "embeddings and blocks", "attention", "query, key and value"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where in the run a batch is: ``ids`` (B,) of its samples in the dataset, epoch, step, and the run's seed."""

    ids: Tensor
    epoch: int
    step: int
    seed: int


class Method(nn.Module):
    """A distillation loss; `forward` returns its terms, and only the trainer applies weights and adds the label loss.

    Subclasses declare ``needs`` (of "logits", "embedding", "features"), ``default_weights`` {term: weight} and
    ``default_label_weight``, the weight of the cross-entropy with the labels beside them. Features come in pairs: the
    student's first belongs to the teacher's first, and so on; ``min_pairs`` is how many a method needs.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    answers: ClassVar[frozenset[str]] = frozenset({"categorical"})
    """The kinds of answer whose logits it compares, of "categorical", "bernoulli", "real" and "embedding"; see
    `tasks.base.Answer`.

    A method that needs no logits serves every kind."""
    kind: str = "categorical"
    """Of `answers`, the kind that it compares; the trainer sets it before `setup`."""
    serves_topk: bool = False
    """Whether the teacher's K largest logits and the mass of the rest are enough: it compares their softmax only."""
    needs_teacher: ClassVar[bool] = True
    """Whether something must answer for a teacher; a method without is called with None in its place."""
    reuses_classifier: ClassVar[bool] = False
    """Whether the student is to be given the teacher's classifier, behind a projector, before it is trained."""
    before_activation: ClassVar[bool] = False
    """Whether the pairs that are chosen by stage are taken from before the activation that a stage ends with."""
    min_pairs: ClassVar[int] = 1
    default_pairs: ClassVar[int | None] = None
    """How many of the pairs that are chosen by stage, the last ones, are compared; None: all."""
    layer_map: ClassVar[LayerMap] = ""
    """What of a transformer's blocks is compared; their pairs are chosen evenly, and not by stage."""
    compares_maps: bool = False
    """Whether it compares `Outputs.maps`, which segmentation has; such a method serves no other task."""
    uses_inputs: bool = False
    """Whether it looks at the images: `Outputs.inputs` of the student, and their shape in `setup`."""
    default_warmup: ClassVar[float] = 0.0
    """Share of the steps in which its weights rise from 0, linearly."""
    uses_targets: bool = False
    """Whether the terms depend on the classes of the images; such a method does not serve unlabelled ones."""
    uses_ids: bool = False
    """Whether they depend on which image of the dataset is which; such a method does not serve a plain DataLoader."""
    uses_context: bool = False
    """Whether it needs a `Context`: it draws, or changes with the epoch."""
    per_sample: bool = False
    """Whether each term is a mean of values of one image each: parts of a batch then add up to its gradient."""
    default_weights: Mapping[str, float]
    default_label_weight: float

    def __init__(self) -> None:
        super().__init__()

    def __call__(
        self, student: Outputs, teacher: Outputs | None, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """`forward` outside of any autocast: terms are differences of nearly equal numbers.

        Raises UsageError for soft labels (B, K) if the method ``uses_targets``, and without a context if it
        ``uses_context``.
        """
        if self.uses_targets and self.kind == "categorical" and (targets.ndim != 1 or targets.is_floating_point()):
            raise UsageError(
                f"{type(self).__name__} needs class numbers (B,) as targets, got {str(targets.dtype)[6:]} of shape "
                f"{tuple(targets.shape)}; pass targets.argmax(dim=1), or choose a method without labels, such as kd"
            )
        if self.uses_context and context is None:
            raise UsageError(
                f"{type(self).__name__} draws numbers or changes with the epoch: call it with "
                "Context(ids=…, epoch=…, step=…, seed=…) as the fourth argument"
            )
        with torch.autocast(student.logits.device.type, enabled=False):
            terms: dict[str, Tensor] = super().__call__(student, teacher, targets, context)
        return terms

    @property
    def has_first_stage(self) -> bool:
        """Whether `first_stage` is to be called before training."""
        return type(self).first_stage is not Method.first_stage

    def parts(self, name: str) -> Mapping[str, "Method"]:
        """The methods that it consists of, each under its name: itself, which is called ``name``."""
        return {name: self}

    @property
    def default_warmups(self) -> Mapping[str, float]:
        """``default_warmup`` of each term."""
        return dict.fromkeys(self.default_weights, self.default_warmup)

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Builds what depends on the models or the data, before the optimiser is made; most methods need nothing.

        ``shapes`` maps "student" and "teacher" to their outputs' shapes, of a batch of one: {"logits": (1, K),
        "embedding": (1, D), "features": {name: (1, C, H, W) or (1, L, D)}}, as far as the method needs them, and
        "inputs" (1, C, H, W) of the student for one that ``uses_inputs``.
        """

    def first_stage(self, teacher: Outputs) -> Tensor:
        """Loss of a stage before training, of the method's own parameters on the teacher's answers."""
        raise NotImplementedError

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """The named terms, each a scalar, mean over the batch; ``targets`` (B,) are class numbers."""
        raise NotImplementedError


def _is_method(builder: Any) -> bool:
    """Whether it is a class of methods that can be made without parameters."""
    if not (isinstance(builder, type) and issubclass(builder, Method)):
        return False
    parameters = inspect.signature(builder).parameters.values()
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


METHODS: Registry[Callable[..., Method]] = Registry(
    "method", "model_compression.methods", _is_method, "a subclass of Method whose parameters have defaults"
)


def logit_pair(student: Outputs, teacher: Outputs, least: int = 2) -> tuple[Tensor, Tensor]:
    """Logits (B, K) of both in float32 or wider, the teacher's without gradient.

    Raises UsageError when the shapes differ or K is below ``least``: a comparison of one class is undefined.
    """
    s, t = student.logits, teacher.logits.detach()
    if s.shape != t.shape:
        raise UsageError(f"logits of student {tuple(s.shape)} and teacher {tuple(t.shape)} must have the same shape")
    if s.ndim != 2 or s.shape[1] < least:
        raise UsageError(f"logits must be (batch, classes) with at least {least} classes, got {tuple(s.shape)}")
    return wide(s), wide(t)


def embedding_pair(student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """Embeddings (B, D) of both, which may differ in D, in float32 or wider, the teacher's without gradient."""
    if student.embedding is None or teacher.embedding is None:
        raise UsageError("there are no embeddings to compare: a method that does so has 'embedding' in its needs")
    return wide(student.embedding), wide(teacher.embedding.detach())


def map_pair(method: str, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """Maps of class scores (B, K, H, W) of both in float32 or wider, the teacher's without gradient.

    Raises UsageError, which names ``method``, where there are none.
    """
    if student.maps is None or teacher.maps is None:
        raise UsageError(
            f"{method} compares maps of class scores, which segmentation has; give both Outputs their maps (B, K, H, W)"
        )
    return wide(student.maps), wide(teacher.maps.detach())


def feature_pairs(student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
    """The pairs of maps (B, C, H, W), in float32 or wider, the teacher's without gradient; tokens become maps."""
    if not student.features or len(student.features) != len(teacher.features):
        raise UsageError(
            f"there are {len(student.features)} and {len(teacher.features)} maps to compare: a method that does so has "
            "'features' in its needs"
        )
    features = zip(student.features.values(), teacher.features.values(), strict=True)
    return [(as_map(wide(s)), as_map(wide(t.detach()))) for s, t in features]


def as_map(features: Tensor) -> Tensor:
    """(B, C, H, W) as it is; tokens (B, L, D) as (B, D, √L, √L), without a class token before them, else (B, D, L, 1).

    Raises UsageError for another number of dimensions.
    """
    if features.ndim == 4:
        return features
    if features.ndim != 3:
        raise UsageError(
            f"features must be (batch, channels, height, width) or tokens (batch, length, width), "
            f"got {tuple(features.shape)}; tap another layer"
        )
    length = features.shape[1]
    for skipped in (0, 1, 2, 5):  # a class token, one for distillation and four registers come first
        side = math.isqrt(max(0, length - skipped))
        if side > 1 and side**2 == length - skipped:
            return features[:, skipped:].transpose(1, 2).reshape(len(features), -1, side, side)
    return features.transpose(1, 2).unsqueeze(3)


def map_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of the map that `as_map` makes of features of this shape."""
    channels, height, width = as_map(torch.empty(*shape, device="meta")).shape[1:]
    return channels, height, width


def pair_shapes(shapes: Mapping[str, Any]) -> list[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """(C, H, W) of the student's and the teacher's map of each pair, from what `Method.setup` is given."""
    sides = [[map_shape(shape) for shape in shapes[side]["features"].values()] for side in ("student", "teacher")]
    return list(zip(*sides, strict=True))


def check_positions(method: str, shapes: Mapping[str, Any]) -> None:
    """Raises UsageError for a pair of maps with a single position, of a method that compares positions."""
    for name, (s, t) in zip(shapes["student"]["features"], pair_shapes(shapes), strict=True):
        if min(s[1], t[1]) * min(s[2], t[2]) < 2:
            raise UsageError(
                f"{method} compares positions within a map, but the pair of {name!r} has a single one: student "
                f"{s}, teacher {t} as (channels, height, width); tap earlier layers"
            )


def to_smaller(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller one's height and width, by average pooling."""
    size = (min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3]))
    return (s if s.shape[2:] == size else F.adaptive_avg_pool2d(s, size)), (
        t if t.shape[2:] == size else F.adaptive_avg_pool2d(t, size)
    )


def check_number(name: str, value: Any, expected: str, holds: Callable[[float], bool]) -> None:
    """Raises UsageError that ``name`` must be ``expected``, unless ``value`` is a finite number for which it holds."""
    try:
        good = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value) and holds(value)
    except OverflowError:  # an integer, which has no largest
        good = False
    if not good:
        raise UsageError(f"{name} must be {expected}, got {value!r}")


def check_temperature(name: str, value: Any, published: str) -> None:
    """Raises UsageError unless ``value`` is from 0.01 to 1000: beyond, float32 loses the differences of logits."""
    check_number(name, value, f"a number from 0.01 to 1000 ({published})", lambda number: 0.01 <= number <= 1000)


def check_variant(method: str, variant: str) -> None:
    """Raises UsageError unless ``variant`` is "paper" or "historic"."""
    if variant not in ("paper", "historic"):
        raise UsageError(f"{method}: variant must be 'paper' or 'historic', got {variant!r}")


def wide(tensor: Tensor) -> Tensor:
    """In float32 or wider, which is what losses are computed in."""
    return tensor.float() if tensor.element_size() < 4 else tensor
