"""Which layers of student and teacher a run taps, for a method that needs more than logits."""

import difflib
from dataclasses import dataclass

import torch
from torch import Tensor

from model_compression.config import MethodConfig
from model_compression.errors import UnknownNameError, UsageError
from model_compression.methods import Method, create
from model_compression.models.base import Network
from model_compression.models.features import choose_pairs, layers
from model_compression.models.reused_classifier import last_maps


@dataclass(frozen=True, kw_only=True)
class Taps:
    """Layer names, the student's first belonging to the teacher's first; and whether embeddings are tapped."""

    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    embedding: bool = False

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
        raise UsageError(f"method {config.name!r} needs a teacher; name one, or train on labels alone")
    if given and not needed:
        raise UsageError(f"method {config.name!r} makes up its own teacher; leave the other one out")


def choose_taps(config: MethodConfig, method: Method, student: Network, teacher: Network, images: Tensor) -> Taps:
    """The layers that ``config`` names, or those chosen by stage from a dry run with ``images`` (B, C, H, W) uint8.

    Raises UsageError when pairs are given to a method without use for them, are fewer than it needs, or name a layer
    that is not there.
    """
    embedding = "embedding" in method.needs
    if "features" not in method.needs:
        if config.pairs:
            raise UsageError(
                f"method {config.name!r} compares no features: leave the pairs out, or choose another method"
            )
        return Taps(embedding=embedding)
    pairs = list(config.pairs.items())
    for s, t in pairs:
        _check_layer("student", student, s)
        _check_layer("teacher", teacher, t)
    if not pairs and method.reuses_classifier:
        pairs = [last_maps(student, teacher, images)]
    if not pairs:
        with torch.no_grad():
            chosen = choose_pairs(*(layers(model.body, model.preprocessing(images)) for model in (student, teacher)))
        pairs = chosen if method.default_pairs is None else chosen[-method.default_pairs :]
    if len(pairs) < method.min_pairs:
        raise UsageError(
            f"method {config.name!r} needs at least {method.min_pairs} pairs of layers, and there are {len(pairs)}; "
            "name them with --pairs (`model-compression features MODEL` lists the layers)"
        )
    return Taps(student=tuple(s for s, _ in pairs), teacher=tuple(t for _, t in pairs), embedding=embedding)


def _check_layer(side: str, network: Network, name: str) -> None:
    """Raises UnknownNameError, with near matches, unless the network has a layer of this name."""
    known = [layer for layer, _ in network.body.named_modules() if layer]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise UnknownNameError(
            f"the {side} {network.name or 'network'} has no layer {name!r}; {hint}pairs are student=teacher, and "
            f"`model-compression features MODEL` lists the layers"
        )
