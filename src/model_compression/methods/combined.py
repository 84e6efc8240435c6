"""Several methods at once: "kd,at" adds the terms of both."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from model_compression.errors import UsageError
from model_compression.methods.base import METHODS, Context, Method
from model_compression.outputs import Outputs


def create(name: str, /, **params: Any) -> Method:
    """The method registered under ``name``, or several with commas between them, as "kd,at".

    A parameter of one of several is written NAME.PARAMETER, as ``{"kd.temperature": 2}``.

    Raises:
        UnknownNameError: no such method, or a parameter that it does not have; near matches are listed.
        UsageError: an impossible value.
    """
    names = [part.strip() for part in name.split(",")]
    if len(names) == 1:
        method: Method = METHODS.create(name, **params)
        return method
    own: dict[str, dict[str, Any]] = {part: {} for part in names}
    if len(own) < len(names):
        raise UsageError(f"method {name!r} names one of its methods twice")
    for key, value in params.items():
        owner, _, parameter = key.partition(".")
        if owner not in own or not parameter:
            raise UsageError(f"parameter {key!r} of {name!r} must say whose it is, as {names[0]}.{key}")
        own[owner][parameter] = value
    return Combined({part: METHODS.create(part, **own[part]) for part in names})


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
        self.uses_indices = any(method.uses_indices for method in methods.values())
        self.per_sample = all(method.per_sample for method in methods.values())
        limits = [method.default_pairs for method in methods.values() if method.default_pairs is not None]
        self.default_pairs = max(self.min_pairs, min(limits)) if limits else None  # type: ignore[misc]
        terms = [(name, term) for name, method in methods.items() for term in method.default_weights]
        plain = [term for _, term in terms]
        self._names = {(name, term): term if plain.count(term) == 1 else f"{name}.{term}" for name, term in terms}
        self.default_weights = {self._names[name, term]: methods[name].default_weights[term] for name, term in terms}
        self.default_label_weight = next(iter(methods.values())).default_label_weight

    def setup(self, shapes: Mapping[str, Any], num_samples: int, num_classes: int) -> None:
        """Sets up each."""
        for method in self._each().values():
            method.setup(shapes, num_samples, num_classes)

    def first_stage(self, teacher: Outputs) -> Tensor | None:
        """The sum of those that have one."""
        losses = [loss for method in self._each().values() if (loss := method.first_stage(teacher)) is not None]
        return sum(losses[1:], start=losses[0]) if losses else None

    def forward(
        self, student: Outputs, teacher: Outputs, targets: Tensor, context: Context | None = None
    ) -> dict[str, Tensor]:
        """The terms of all."""
        return {
            self._names[name, term]: value
            for name, method in self._each().items()
            for term, value in method(student, teacher, targets, context).items()
        }

    def _each(self) -> dict[str, Method]:
        return {name: method for name, method in self.methods.items() if isinstance(method, Method)}
