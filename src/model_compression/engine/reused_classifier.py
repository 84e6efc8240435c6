"""The student of methods that reuse the teacher's classifier, in a run: which layers are joined, and what is said."""

import dataclasses

from model_compression.core.counter_random import derived_seed
from model_compression.core.inputs import Inputs
from model_compression.distillation.taps import Taps
from model_compression.engine.observer import Observer
from model_compression.models.base import Network
from model_compression.models.reused_classifier import PROJECTOR, TRUNK, name_in, reuse_classifier

_PROJECTOR_STREAM = 3  # keeps its seed apart from those of the run's steps and methods


def with_teachers_classifier(
    student: Network, teacher: Network, taps: Taps, inputs: Inputs, seed: int, observer: Observer
) -> tuple[Network, Taps]:
    """The student that ends in the teacher's classifier, joined at the last pair of ``taps``, and the taps in it."""
    layer = taps.student[-1]
    whole = reuse_classifier(
        student, layer, teacher, taps.teacher[-1], inputs, seed=derived_seed(seed, _PROJECTOR_STREAM)
    )
    observer.message(
        f"what is trained and ships is {student.name} up to {layer}, a projector and the teacher's classifier: "
        f"{num_parameters(whole):,} parameters, where {student.name} alone has {num_parameters(student):,}"
    )
    trunk = whole.get_submodule(TRUNK)
    return whole, dataclasses.replace(taps, student=(*(name_in(trunk, name) for name in taps.student[:-1]), PROJECTOR))


def num_parameters(network: Network) -> int:
    """Of the network as it ships, frozen ones too."""
    return sum(parameter.numel() for parameter in network.deployed().parameters())
