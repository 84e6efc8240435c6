"""The precision of a run: decided where the configuration leaves it open, and float32 where a kernel is wrong."""

import math
from collections.abc import Callable
from typing import Any

import torch

from model_compression.checks.kernel_faults import kernel_fault
from model_compression.core.config import UNDECIDED, TrainConfig
from model_compression.core.device import choose_precision, precision_name
from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.data.batches import to_tensors
from model_compression.data.dataset import Dataset
from model_compression.engine.measured_precision import FEWEST_STEPS, fastest_precision
from model_compression.models.base import Network


def decide_precisions(
    config: TrainConfig,
    student: Network,
    train: Dataset,
    device: torch.device,
    report: Callable[[str], None],
    *,
    taught: bool,
) -> dict[str, Any]:
    """The precisions of student and teacher, as ``config`` names them, where it leaves them open.

    ``taught``: whether there is a teacher.
    """
    if config.precision not in UNDECIDED:
        return {}
    fault = kernel_fault(device, student, to_tensors(train.first(2)))
    if fault is not None:
        report(f"{fault}: this run computes in float32")
        return {"precision": "fp32"}
    native = precision_name(choose_precision("native", device))
    steps = math.ceil(len(train) / config.batch_size) * config.epochs
    if config.precision == "native" or steps < FEWEST_STEPS:
        return {"precision": native}
    sample = to_tensors(train.first(1))
    taken = fastest_precision(student, sample, config.batch_size, config.optim, device, report)
    if taught and config.teacher_precision == "auto" and taken != native:
        return {"precision": taken, "teacher_precision": native}
    return {"precision": taken}


def usable_precision(config: TrainConfig, network: Network, train: Dataset, device: torch.device) -> torch.dtype:
    """The precision of ``config``, or float32 where that is left open and a kernel is wrong for ``network``.

    Raises UsageError for a wrong kernel where the precision is named.
    """
    precision = choose_precision(config.precision, device)
    if precision != torch.bfloat16:
        return precision
    fault = kernel_fault(device, network, to_tensors(train.first(2)))
    if fault is not None and config.precision not in UNDECIDED:
        raise UsageError(f"{fault}: give {setting('precision', 'fp32')}, or larger images")
    return precision if fault is None else torch.float32


def teacher_precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The precision of the teacher's answers."""
    return choose_precision(
        config.precision if config.teacher_precision == "auto" else config.teacher_precision, device
    )
