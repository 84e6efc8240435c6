"""What a run does with what was found out about its data and teacher before its first step."""

import os
from collections.abc import Callable, Iterable

from model_compression.core.errors import UsageError
from model_compression.core.finding import Finding

STRICT = "MODEL_COMPRESSION_STRICT"


def say_findings(findings: Iterable[Finding], report: Callable[[str], None], *, strict: bool) -> None:
    """A line for each finding that is not ok. Raises UsageError with the first one where ``strict``."""
    for finding in findings:
        if finding.level == "ok":
            continue
        if strict:
            raise UsageError(f"{finding.line} (an error as you asked for strict checks)")
        report(finding.line)


def is_strict() -> bool:
    """Whether the environment asks for strict checks, as a command may and all processes of it."""
    return os.environ.get(STRICT) == "1"
