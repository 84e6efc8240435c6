"""Reads the results of a finished run: metrics and predictions that are whole and belong together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.core.errors import FileFormatError
from model_compression.core.files import read_json
from model_compression.core.manifest import FILE as MANIFEST
from model_compression.core.manifest import check_manifest
from model_compression.core.metric import RECORDED, Metric, primary_metric
from model_compression.reports.sections import Section, section_of

Values = Mapping[str, Any]
STATES = ("state.safetensors", "state-previous.safetensors")
"""The files that an unfinished run resumes from."""
_OPTIONAL = ("predictions.safetensors", "environment.json", "events.jsonl", "timing.jsonl")
"""Results that may be deleted to save space: without them a finished run still has its metrics and weights."""
_LARGEST = 1e18  # of what is counted or measured
_SHARES = ("_agreement", "_ece")


@dataclass(frozen=True, kw_only=True)
class Results:
    """``sealed`` says whether a manifest vouches for the files; runs of older versions have none.

    ``predictions`` are what ``section`` reads; both are None where the task has no section.
    """

    metrics: Values
    section: Section | None
    predictions: Any
    sealed: bool


def read_results(folder: Path, data: str = "") -> Results | None:
    """The results of the run in ``folder``, on ``data``; None until it is finished. Every reader of results calls this.

    A run is finished once it has a manifest; a run of an older version, once it has metrics and whole weights, and no
    state to resume from. As long as there is a state, a damaged file is no error: the run can be resumed.

    Raises FileFormatError, which names the file, for results that were changed or damaged, and for metrics that differ
    from those of the predictions.
    """
    sealed = (folder / MANIFEST).exists()
    resumable = has_state(folder)
    if not sealed and (resumable or not (folder / "metrics.json").exists()):
        return None
    try:
        check_manifest(folder, may_lack=_OPTIONAL)
        if not sealed:
            _check_weights(folder / "student.safetensors")
        return check_results(folder, read_json(folder / "metrics.json"), data, sealed)
    except FileFormatError:
        if resumable:
            return None
        raise


def has_state(folder: Path) -> bool:
    """Whether the run in ``folder`` has a state to resume from, as it has until it is finished."""
    return any((folder / name).is_file() for name in STATES)


def check_results(folder: Path, metrics: Values, data: str, sealed: bool) -> Results:
    """The results with these ``metrics``. Raises FileFormatError as `read_results` does."""
    path = folder / "metrics.json"
    metric = read_metric(path, metrics)
    kind = "validation" if metric.key("validation") in metrics else "test"
    if not metric.is_possible(metrics.get(metric.key(kind))):
        raise FileFormatError(f"{path} is damaged: {metric.key(kind)} is {metrics.get(metric.key(kind))!r}")
    answers = folder / "predictions.safetensors"
    section = section_of(metrics)
    predictions = section.read(answers, data) if section and answers.is_file() else None
    for key, found in (section.figures(predictions, kind) if section and predictions is not None else {}).items():
        value = metrics.get(key)
        if value is not None and not (is_number(value) and abs(value - found) < 1e-9):
            raise FileFormatError(
                f"{path} states {key} {value}, and {answers.name} gives {found}: one of them was changed after the run "
                "finished"
            )
    check_figures(metrics, path)
    return Results(metrics=metrics, section=section, predictions=predictions, sealed=sealed)


def read_metric(path: Path, values: Values | None) -> Metric:
    """`primary_metric` of the content of the file ``path``. Raises FileFormatError, naming it."""
    try:
        return primary_metric(values)
    except ValueError as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None


def check_figures(metrics: Values, path: Path) -> None:
    """Raises FileFormatError, naming ``path``, for a value in a run's metrics that no run writes."""
    metric = read_metric(path, metrics)
    for key, value in metrics.items():
        if key.endswith(f"_{metric.name}"):
            is_right = metric.is_possible(value)
        elif key.endswith(_SHARES):
            is_right = is_number(value) and 0 <= value <= 1
        elif key.endswith("_nll") or key in ("seconds", "parameters", "lr_changed_to"):
            is_right = (value is None and key == "lr_changed_to") or is_number(value)
        else:
            is_right = value is None or isinstance(value, str | int | float) or key == RECORDED
        if not is_right:
            raise FileFormatError(f"{path} is damaged: {key} is {value!r}")


def is_number(value: Any) -> bool:
    """Whether it is a finite number, as one that is measured or counted."""
    return type(value) in (int, float) and abs(value) < _LARGEST


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            pass
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path} is damaged: {error}") from None
