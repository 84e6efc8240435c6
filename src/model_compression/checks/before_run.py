"""What of an examination every run makes before its first step: all that is cheap to see."""

import os
from collections.abc import Callable, Iterable, Iterator

import torch

from model_compression.checks.data import examine_data
from model_compression.checks.finding import Finding
from model_compression.checks.teacher import examine_before_run
from model_compression.core.errors import UsageError
from model_compression.data.dataset import Dataset
from model_compression.data.lazy import LazyImages
from model_compression.models.base import Network

STRICT = "MODEL_COMPRESSION_STRICT"


def examine_run(train: Dataset, test: Dataset, teachers: Iterable[Network], device: torch.device) -> Iterator[Finding]:
    """Findings on the data and on teachers in eval mode on ``device``.

    Images that are still to be decoded are not compared with each other.
    """
    yield from examine_data(train, test, reads_all=not isinstance(train.images, LazyImages))
    for teacher in teachers:
        yield from examine_before_run(teacher, train, device)


def say_findings(findings: Iterable[Finding], report: Callable[[str], None], *, strict: bool) -> None:
    """A line for each finding that is not ok. Raises UsageError with the first one where ``strict``."""
    for finding in findings:
        if finding.level == "ok":
            continue
        if strict:
            raise UsageError(f"{finding.line} (an error as you asked for strict checks)")
        report(finding.line)


def is_strict() -> bool:
    """Whether the environment asks for strict checks, as --strict does for a command and all processes of it."""
    return os.environ.get(STRICT) == "1"
