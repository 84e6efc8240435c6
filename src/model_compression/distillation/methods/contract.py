"""What a method must declare and return: one of someone's own is told of what it lacks."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from model_compression.core.errors import ModelCompressionError, UsageError
from model_compression.distillation.methods.base import METHODS, Method

LABEL = "label"
"""The name of the label loss among a run's terms."""
_NEEDS = {"logits", "embedding", "features"}


def make_method(name: str, params: Mapping[str, Any]) -> Method:
    """One method, if it declares what a `Method` does. Raises UsageError for what one of someone's own gets wrong."""
    try:
        method = METHODS.create(name, **params)
    except ModelCompressionError:
        raise
    except Exception as error:  # of a method of someone's own
        raise UsageError(f"method {name!r} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(method, Method) or not hasattr(method, "_modules"):
        raise UsageError(
            f"method {name!r} is a {type(method).__name__}; expected a subclass of Method, whose __init__ calls "
            "super().__init__()"
        )
    weights, label = getattr(method, "default_weights", None), getattr(method, "default_label_weight", None)
    if not isinstance(weights, Mapping) or not weights or not all(map(_is_number, weights.values())):
        raise UsageError(
            f"method {name!r} must have default_weights, {{term: weight}}, as a class or in __init__; got {weights!r}"
        )
    if LABEL in weights:
        raise UsageError(f"method {name!r} has a term {LABEL!r}, which is the label loss; give it another name")
    if not _is_number(label):
        raise UsageError(
            f"method {name!r} must have default_label_weight, the weight of the label loss, a number; got {label!r}"
        )
    needs: Any = method.needs
    if isinstance(needs, str) or not set(needs) <= _NEEDS:
        raise UsageError(f"method {name!r} has needs {needs!r}; expected a set of {', '.join(sorted(_NEEDS))}")
    return method


def checked_terms(name: str, terms: Any, weights: Mapping[str, float]) -> Mapping[str, Tensor]:
    """``terms``, if they are what method ``name`` has ``weights`` for. Raises UsageError for anything else."""
    if not isinstance(terms, Mapping):
        raise UsageError(f"method {name!r} returns a {type(terms).__name__}; expected {{term: scalar tensor}}")
    for term, value in terms.items():
        if not isinstance(value, Tensor):
            raise UsageError(
                f"method {name!r} returns the term {term!r} as a {type(value).__name__}; expected a tensor"
            )
        if term not in weights:
            raise UsageError(
                f"method {name!r} returns the term {term!r}, for which its default_weights has no weight; it has "
                f"{', '.join(map(repr, weights))}"
            )
        if value.ndim:
            raise UsageError(
                f"method {name!r} returns the term {term!r} of shape {tuple(value.shape)}; expected a scalar, its mean "
                "over the batch"
            )
    return terms


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
