"""Several methods at once: "kd,at" adds the terms of both."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from model_compression.core.argument_checks import checked_arguments
from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.base import Context, Method
from model_compression.distillation.methods.contract import checked_terms, make_method


@checked_arguments
def create(name: str, /, **params: Any) -> Method:
    """The method registered under ``name``, or several as "kd+at" or "kd,at".

    A parameter of one of several is written NAME.PARAMETER, as ``{"kd.temperature": 2}``.

    Raises:
        UnknownNameError: no such method, or a parameter that it does not have; near matches are listed.
        UsageError: an impossible value.
    """
    given = [part.strip() for part in re.split("[,+]", name)]
    if len(given) == 1:
        return make_method(name, params)
    names = [part.rpartition(":")[2] for part in given]  # of "package.module:NAME" what it registers
    own: dict[str, dict[str, Any]] = {part: {} for part in names}
    if len(own) < len(names):
        raise UsageError(f"method {name!r} names one of its methods twice")
    for key, value in params.items():
        owner, _, parameter = key.partition(".")
        if owner not in own or not parameter:
            raise UsageError(f"parameter {key!r} of {name!r} must say whose it is, as {names[0]}.{key}")
        own[owner][parameter] = value
    methods = zip(names, given, strict=True)
    return Combined({part: make_method(full, own[part]) for part, full in methods})


class Combined(Method):
    """The terms of several methods. A name that two of them use is written METHOD.TERM.

    The labels weigh what they do in the first method.
    """

    def __init__(self, methods: Mapping[str, Method]):
        super().__init__()
        self.methods = nn.ModuleDict(methods)
        self.needs = frozenset().union(*(method.needs for method in methods.values()))  # type: ignore[misc]
        self.needs_teacher = any(method.needs_teacher for method in methods.values())  # type: ignore[misc]
        self.reuses_classifier = any(method.reuses_classifier for method in methods.values())  # type: ignore[misc]
        self.min_pairs = max(method.min_pairs for method in methods.values())  # type: ignore[misc]
        self.uses_targets = any(method.uses_targets for method in methods.values())
        self.uses_ids = any(method.uses_ids for method in methods.values())
        self.uses_context = any(method.uses_context for method in methods.values())
        self.compares_maps = any(method.compares_maps for method in methods.values())
        self.uses_inputs = any(method.uses_inputs for method in methods.values())
        self.per_sample = all(method.per_sample for method in methods.values())
        self._pairs: dict[str, Sequence[int]] = {}
        terms = [(name, term) for name, method in methods.items() for term in method.default_weights]
        plain = [term for _, term in terms]
        self._names = {(name, term): term if plain.count(term) == 1 else f"{name}.{term}" for name, term in terms}
        self.default_weights = {self._names[name, term]: methods[name].default_weights[term] for name, term in terms}
        self.default_label_weight = next(iter(methods.values())).default_label_weight

    @property
    def default_warmups(self) -> Mapping[str, float]:
        """Each term's own."""
        return {
            self._names[name, term]: warmup
            for name, method in self._each().items()
            for term, warmup in method.default_warmups.items()
        }

    @property
    def has_first_stage(self) -> bool:
        """Whether one of them has."""
        return any(method.has_first_stage for method in self._each().values())

    def parts(self, name: str) -> Mapping[str, Method]:
        """Each under its own name."""
        return self._each()

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Sets up each.

        ``shapes["parts"]``, where it is given, maps names of methods to the numbers of the pairs that they compare; the
        others compare all.
        """
        self._pairs = dict(shapes.get("parts", {}))
        for name, method in self._each().items():
            sides = {side: self._of(name, values) for side, values in shapes.items() if side != "parts"}
            method.setup(sides, num_samples, num_classes)

    def _of(self, name: str, shapes: Mapping[str, Any]) -> Mapping[str, Any]:
        """What ``setup`` of one method is told of one side."""
        if name not in self._pairs or "features" not in shapes:
            return shapes
        features = self._own(name, shapes["features"])
        norms = {tap: norm for tap, norm in shapes.get("batch_norm", {}).items() if tap in features}
        return {**shapes, "features": features, **({"batch_norm": norms} if "batch_norm" in shapes else {})}

    def _own(self, name: str, features: Mapping[str, Any]) -> dict[str, Any]:
        """The features that one method compares, in its order."""
        if name not in self._pairs:
            return dict(features)
        taps = list(features)
        return {taps[number]: features[taps[number]] for number in self._pairs[name]}

    def first_stage(self, teacher: Outputs) -> Tensor:
        """The sum of those that have one."""
        losses = [
            method.first_stage(replace(teacher, features=self._own(name, teacher.features)))
            for name, method in self._each().items()
            if method.has_first_stage
        ]
        return torch.stack(losses).sum()

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """The terms of all."""
        terms: dict[str, Tensor] = {}
        for name, method in self._each().items():
            own, taught = (
                None if outputs is None else replace(outputs, features=self._own(name, outputs.features))
                for outputs in (student, teacher)
            )
            found = checked_terms(name, method(own, taught, targets, context), method.default_weights)
            terms |= {self._names[name, term]: value for term, value in found.items()}
        return terms

    def _each(self) -> dict[str, Method]:
        return {name: method for name, method in self.methods.items() if isinstance(method, Method)}
