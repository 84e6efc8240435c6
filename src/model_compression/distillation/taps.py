"""Which layers of student and teacher a run taps, for a method that needs more than logits."""

import difflib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model_compression.core.config import MethodConfig
from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.core.options import setting
from model_compression.distillation.methods import Method, create
from model_compression.models.base import Network
from model_compression.models.features import before_activation, before_taps, choose_pairs, layer_of, layers
from model_compression.models.reused_classifier import last_maps

Norm = tuple[Tensor, Tensor]  # weight and bias (C,) of a BatchNorm


@dataclass(frozen=True, kw_only=True)
class Taps:
    """Layer names, the student's first belonging to the teacher's first; and whether embeddings are tapped.

    ``parts`` says which pairs, by number, each of several methods compares. ``norms`` are weight and bias (C,) of the
    teacher's BatchNorm before each pair, None where there is none; empty where no method asks for them.
    """

    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    embedding: bool = False
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    norms: tuple[Norm | None, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is tapped."""
        return bool(self.student) or self.embedding

    def __str__(self) -> str:
        """For people, as "block1 = stage1, block2 = stage2"."""
        pairs = [f"{s} = {t}" for s, t in zip(self.student, self.teacher, strict=True)]
        return ", ".join(pairs + ["the embeddings"] * self.embedding)


NO_TAPS = Taps()


def check_teacher(config: MethodConfig, *, given: bool) -> None:
    """Raises UsageError when a method that needs a teacher has none, or one that needs none has one."""
    needed = create(config.name, **config.params).needs_teacher
    if needed and not given:
        raise UsageError(f"method {config.name!r} needs a teacher; name one, or train on labels only")
    if given and not needed:
        raise UsageError(f"method {config.name!r} makes up its own teacher; leave the other one out")


def choose_taps(
    config: MethodConfig,
    method: Method,
    student: Network,
    teacher: Network,
    images: Tensor,
    report: Callable[[str], None] = lambda message: None,
) -> Taps:
    """The layers that ``config`` names, or those chosen by stage from a dry run with ``images`` (B, C, H, W) uint8.

    Each of several methods has the pairs that it would have alone. ``report`` is told what a method will miss.

    Raises UsageError when pairs are given to a method without use for them, are fewer than it needs, or name a layer
    that is not there.
    """
    embedding = "embedding" in method.needs
    for side, network in (("student", student), ("teacher", teacher)):
        if method.needs != {"logits"} and any(isinstance(part, torch.jit.ScriptModule) for part in network.modules()):
            raise UsageError(
                f"the {side} is TorchScript, whose layers cannot be tapped: give the module that it was made of, or "
                "choose a method that needs logits only, as kd"
            )
    comparing = {name: part for name, part in method.parts(config.name).items() if "features" in part.needs}
    if not comparing:
        if config.pairs:
            raise UsageError(
                f"method {config.name!r} compares no features: leave the pairs out, or choose another method"
            )
        return Taps(embedding=embedding)
    for s, t in config.pairs.items():
        _check_layer("student", student, s)
        _check_layer("teacher", teacher, t)
    pairs: list[tuple[str, str]] = []
    parts: dict[str, tuple[int, ...]] = {}
    # A classifier that is reused joins the networks at the last pair.
    for name, part in sorted(comparing.items(), key=lambda item: item[1].reuses_classifier):
        own = list(config.pairs.items()) or _chosen(part, student, teacher, images)
        if len(own) < part.min_pairs:
            raise UsageError(
                f"method {name!r} needs at least {part.min_pairs} pairs of layers, and there are {len(own)}; "
                f"name them with {setting('pairs')} (`model-compression features MODEL` lists the layers)"
            )
        # Its pair is of what the student becomes, so that no other method shares it unless it is told to.
        pairs += own if part.reuses_classifier and not config.pairs else [pair for pair in own if pair not in pairs]
        first = len(pairs) - len(own) if part.reuses_classifier else 0
        parts[name] = tuple(first + pairs[first:].index(pair) for pair in own)
    norms: tuple[Norm | None, ...] = ()
    if any(part.before_activation for part in comparing.values()):
        before = before_taps(teacher.body, teacher.preprocessing(images), [t for _, t in pairs])
        norms = tuple(before[t].norm if t in before and before[t].has_negatives else None for _, t in pairs)
        positive = [number for number, (_, t) in enumerate(pairs) if t in before and not before[t].has_negatives]
        for name, number in itertools.product(comparing, positive):
            if comparing[name].before_activation and number in parts[name]:
                report(
                    f"{name} compares what stands before activations, and the teacher's {pairs[number][1]} is never "
                    f"negative: name other layers with {setting('pairs')}, an activation's input as NAME:input"
                )
    return Taps(
        student=tuple(s for s, _ in pairs),
        teacher=tuple(t for _, t in pairs),
        embedding=embedding,
        parts=parts,
        norms=norms,
    )


def _chosen(method: Method, student: Network, teacher: Network, images: Tensor) -> list[tuple[str, str]]:
    """The pairs of one method, by stage."""
    if method.reuses_classifier:
        return [last_maps(student, teacher, images)]
    networks = [(network.body, network.preprocessing(images)) for network in (student, teacher)]
    with torch.no_grad():
        chosen = choose_pairs(*(layers(body, prepared) for body, prepared in networks))
    pairs = chosen if method.default_pairs is None else chosen[-method.default_pairs :]
    if not method.before_activation:
        return pairs
    (s_body, s_images), (t_body, t_images) = networks
    return [(before_activation(s_body, s_images, s), before_activation(t_body, t_images, t)) for s, t in pairs]


def _check_layer(side: str, network: Network, name: str) -> None:
    """Raises UnknownNameError, with near matches, unless the network has a layer of this name."""
    known = [layer for layer, _ in network.body.named_modules() if layer]
    if layer_of(name) not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise UnknownNameError(
            f"the {side} {network.name or 'network'} has no layer {name!r}; {hint}pairs are student=teacher, and "
            f"`model-compression features MODEL` lists the layers"
        )
