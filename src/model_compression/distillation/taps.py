"""Which layers of student and teacher a run taps, for a method that needs more than logits."""

import difflib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model_compression.core.config import MethodConfig
from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.core.inputs import Inputs
from model_compression.core.options import setting
from model_compression.distillation.methods import Method, create
from model_compression.models.base import Network
from model_compression.models.features import Layer, before_activation, before_taps, layer_of, layers
from model_compression.models.reused_classifier import last_maps
from model_compression.models.stages import blocks_in, choose_pairs
from model_compression.models.transformer_layers import ATTENTION, has_attention, map_uniformly, part_of_block

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
    inputs: Inputs,
    report: Callable[[str], None] = lambda message: None,
) -> Taps:
    """The layers that ``config`` names, or those chosen by stage from a dry run with ``inputs`` (B, …).

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
        own = _parts_of_blocks(part, config.pairs, student, teacher) or _chosen(part, student, teacher, inputs)
        if len(own) < part.min_pairs:
            raise UsageError(
                f"method {name!r} needs at least {part.min_pairs} pairs of layers, and there are {len(own)}; "
                f"name them with {setting('pairs')} (`model-compression features MODEL` lists the layers)"
            )
        # Its pair is of what the student becomes, so that no other method shares it unless it is told to.
        pairs += own if part.reuses_classifier and not config.pairs else [pair for pair in own if pair not in pairs]
        first = len(pairs) - len(own) if part.reuses_classifier else 0
        parts[name] = tuple(first + pairs[first:].index(pair) for pair in own)
    taught = tuple(t for _, t in pairs)
    before = {name: parts[name] for name, part in comparing.items() if part.before_activation}
    norms = _norms(before, taught, teacher, inputs, report) if before else ()
    return Taps(student=tuple(s for s, _ in pairs), teacher=taught, embedding=embedding, parts=parts, norms=norms)


def _norms(
    methods: Mapping[str, Sequence[int]],
    taught: Sequence[str],
    teacher: Network,
    inputs: Inputs,
    report: Callable[[str], None],
) -> tuple[Norm | None, ...]:
    """The BatchNorm before each of the layers ``taught``; ``methods`` are the numbers of those that each compares."""
    before = before_taps(teacher.body, teacher.preprocessing(inputs), taught)
    positive = [number for number, t in enumerate(taught) if t in before and not before[t].has_negatives]
    for name, number in itertools.product(methods, positive):
        if number in methods[name]:
            report(
                f"{name} compares what stands before activations, and the teacher's {taught[number]} is never "
                f"negative: name other layers with {setting('pairs')}, an activation's input as NAME:input"
            )
    return tuple(before[t].norm if t in before and before[t].has_negatives else None for t in taught)


def _chosen(method: Method, student: Network, teacher: Network, inputs: Inputs) -> list[tuple[str, str]]:
    """The pairs of one method, by stage."""
    if method.reuses_classifier:
        return [last_maps(student, teacher, inputs)]
    networks = [(network.body, network.preprocessing(inputs)) for network in (student, teacher)]
    with torch.no_grad():
        candidates = [layers(body, prepared) for body, prepared in networks]
    if method.layer_map:
        return _mapped(method, candidates, student, teacher)
    chosen = choose_pairs(*candidates)
    pairs = chosen if method.default_pairs is None else chosen[-method.default_pairs :]
    if not method.before_activation:
        return pairs
    (s_body, s_inputs), (t_body, t_inputs) = networks
    return [(before_activation(s_body, s_inputs, s), before_activation(t_body, t_inputs, t)) for s, t in pairs]


def _mapped(
    method: Method, candidates: Sequence[Sequence[Layer]], student: Network, teacher: Network
) -> list[tuple[str, str]]:
    """Pairs of what ``method`` compares of transformers' blocks, evenly; other networks' layers by stage."""
    s_blocks, t_blocks = ([layer.name for layer in blocks_in(of_side)] for of_side in candidates)
    if not (s_blocks and t_blocks):
        if method.layer_map in ("blocks", "embeddings and blocks"):
            return choose_pairs(*candidates)
        which = "teacher" if s_blocks else "student"
        raise UsageError(f"the {which} has no blocks of a transformer, whose {method.layer_map} is compared")
    pairs = map_uniformly(s_blocks, t_blocks)
    pairs = pairs if method.default_pairs is None else pairs[-method.default_pairs :]
    if method.layer_map == "embeddings and blocks":
        return [(f"{s_blocks[0]}:input", f"{t_blocks[0]}:input"), *pairs]
    return _parts_of_blocks(method, dict(pairs), student, teacher)


def _parts_of_blocks(
    method: Method, pairs: Mapping[str, str], student: Network, teacher: Network
) -> list[tuple[str, str]]:
    """What ``method`` compares of ``pairs`` of blocks; other layers as they are named."""
    if method.layer_map == "attention":
        return [
            tuple(name if name.endswith(ATTENTION) else name + ATTENTION for name in pair)  # type: ignore[misc]
            for pair in pairs.items()
        ]
    if method.layer_map != "query, key and value":
        return list(pairs.items())
    found: list[tuple[str, str]] = []
    for s, t in pairs.items():
        parts = ["query", "key", "value"] if has_attention(student.body, s) and has_attention(teacher.body, t) else []
        found += [(part_of_block(student.body, s, part), part_of_block(teacher.body, t, part)) for part in parts]
        found += [] if parts else [(s, t)]
    return found


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
