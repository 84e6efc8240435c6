"""Networks that are given as modules or by name, and what they are called in a configuration."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from model_compression.core import trust as code
from model_compression.core.config import ModelConfig
from model_compression.core.config_json import GIVEN
from model_compression.core.errors import UsageError
from model_compression.models.copies import copy_of
from model_compression.models.external import External
from model_compression.models.loading import load_own_weights


def given_teacher(
    teacher: str | ModelConfig | nn.Module | None, weights: str | Path | None
) -> tuple[nn.Module | None, ModelConfig | None]:
    """(the teacher where it is a module, its configuration), with weights of a file: a copied module gets them here."""
    if teacher is None:
        if weights is not None:
            raise UsageError(f"teacher_weights {weights} have no effect without a teacher")
        return None, None
    config = named(teacher)
    if not isinstance(teacher, nn.Module):
        return None, config if weights is None else dataclasses.replace(config, weights=str(weights))
    if weights is not None:
        teacher = copy_of(teacher)
        load_own_weights(teacher, weights)
    return teacher, config


def with_pixels(
    named: ModelConfig | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: int | tuple[int, int] | None,
) -> ModelConfig | None:
    """The teacher with what is wanted done to its pixels."""
    wanted = {"mean": mean, "std": std, "size": [size, size] if isinstance(size, int) else size}
    given = {key: list(value) for key, value in wanted.items() if value is not None}
    if given and named is None:
        raise UsageError(f"teacher_{next(iter(given))} has no effect without a teacher")
    return named if named is None else dataclasses.replace(named, **given)  # type: ignore[arg-type]


def named(model: str | ModelConfig | nn.Module) -> ModelConfig:
    if isinstance(model, ModelConfig):
        return model
    if isinstance(model, str):
        return ModelConfig(name=model)
    if not isinstance(model, nn.Module):
        raise UsageError(f"a network must be a name or a torch.nn.Module, got a {type(model).__name__}")
    kind = type(model.body if isinstance(model, External) else model)
    code.give(f"{kind.__module__}:{kind.__qualname__}")
    return ModelConfig(name=f"{GIVEN}{kind.__module__}:{kind.__qualname__}")
