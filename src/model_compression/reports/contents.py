"""What a report says: groups of runs, gains, and what one run of each group answered. Pages and JSON are made of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import FileFormatError
from model_compression.core.manifest import FILE as MANIFEST
from model_compression.core.text import count
from model_compression.reports.answers import (
    Agreement,
    Calibration,
    ClassAccuracy,
    Mistake,
    accuracy,
    agreement,
    by_class,
    calibration,
    confusion,
    mistakes,
)
from model_compression.reports.compression_stages import Compression, read_compression
from model_compression.reports.compression_stages import to_plain as plain_stages
from model_compression.reports.groups import Gain, Group, gains, group_runs, short
from model_compression.reports.predictions import Predictions, read_predictions
from model_compression.reports.run_files import RunFiles, find_runs, run_places
from model_compression.reports.statistics import Proportion, Summary
from model_compression.reports.words import command, environment_in_words, recipe_in_words, sentence

SHOWN_MISTAKES = 24


@dataclass(frozen=True, kw_only=True)
class Detail:
    """What one run's student answered to the images that accuracies are of; with a teacher, beside that one's."""

    group: str
    run: RunFiles
    predictions: Predictions
    accuracy: Proportion
    teacher_accuracy: Proportion | None
    classes: Sequence[ClassAccuracy]
    confusion: npt.NDArray[np.int64]
    calibration: Calibration
    teacher_calibration: Calibration | None
    agreement: Agreement | None
    mistakes: Sequence[Mistake]
    shows_surest_mistakes: bool


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A group's accuracy, and what its network costs: of the first run where any of it is known."""

    group: str
    series: int
    accuracy: float
    interval: tuple[float, float] | None
    parameters: int | None
    size_bytes: int | None
    latency: Sequence[dict[str, Any]]
    """Runtime, batch, threads, median_ms and p95_ms of each, as `measure --json` has them."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it. ``details`` has at most one run of each group.

    ``shipped`` has the answers of the file that one compression of one group ends in, None without.
    """

    title: str
    groups: Sequence[Group]
    gains: Sequence[Gain]
    details: Sequence[Detail]
    costs: Sequence[Cost]
    compressions: Sequence[Compression]
    left_out: Sequence[str]
    """What is damaged or was changed, so that nothing is said of it: a line each, with the reason."""
    shipped: Detail | None = None

    @property
    def runs(self) -> list[RunFiles]:
        """Of all groups."""
        return [run for group in self.groups for run in group.runs]

    @property
    def unsealed(self) -> str:
        """What is to be said of finished runs without a manifest; empty where there are none."""
        number = sum(not run.sealed for group in self.groups for run in group.finished)
        return f"{count(number, 'run')} without {MANIFEST}: a change of the files would not be seen." if number else ""

    def detail_of(self, group: Group) -> Detail | None:
        """What one of its runs answered."""
        return next((detail for detail in self.details if detail.group == group.name), None)


def make_report(paths: Sequence[str | Path]) -> Report:
    """The report on the runs in folders; what is damaged is left out. Raises what `find_runs` does."""
    places, left_out = run_places(paths), list[str]()
    groups = group_runs(find_runs(places, left_out.append))
    details = [detail for group in groups if (detail := _detail(group)) is not None]
    costs = [cost for series, group in enumerate(groups) if (cost := _cost(group, series, details)) is not None]
    compressions = _compressions(places, left_out)
    return Report(
        title=_title(groups),
        groups=groups,
        gains=gains(groups),
        details=details,
        costs=costs,
        compressions=compressions,
        left_out=left_out,
        shipped=_shipped(groups, compressions, left_out),
    )


def _compressions(places: Sequence[Path], left_out: list[str]) -> list[Compression]:
    found = []
    for folder in dict.fromkeys(places):
        try:
            compression = read_compression(folder)
        except FileFormatError as error:
            left_out.append(str(error))
            continue
        found += [] if compression is None else [compression]
    return found


def _shipped(groups: Sequence[Group], compressions: Sequence[Compression], left_out: list[str]) -> Detail | None:
    if len(groups) != 1 or len(compressions) != 1:
        return None
    run, path = groups[0].runs[0], compressions[0].path / "predictions.safetensors"
    if not path.is_file():  # of an older version
        return None
    try:
        predictions = read_predictions(path, run.config["data"]["name"])
    except FileFormatError as error:
        left_out.append(str(error))
        return None
    return _detail_of(groups[0].name, replace(run, path=compressions[0].path, predictions=predictions))


def interval_of(group: Group, detail: Detail | None) -> tuple[float, float] | None:
    """95 % interval of a group's accuracy: of the mean over seeds, or, of one run, that of its images (Wilson)."""
    summary = group.accuracy
    if summary is None:
        return None
    if summary.half_width is not None:
        return max(0.0, summary.mean - summary.half_width), min(1.0, summary.mean + summary.half_width)
    return detail.accuracy.interval if detail else None


def to_plain(report: Report) -> dict[str, Any]:
    """The report as plain values, for JSON; probabilities and shares are 0 to 1."""
    return {
        "title": report.title,
        "left_out": list(report.left_out),
        "groups": [_plain_group(group, report.detail_of(group)) for group in report.groups],
        "gains": [asdict(gain) for gain in report.gains],
        "costs": [asdict(cost) for cost in report.costs],
        "compressions": [
            {
                "path": str(found.path),
                "threads": found.threads,
                "stages": plain_stages(found.stages),
                "broken": list(found.broken),
            }
            for found in report.compressions
        ],
        "shipped": None if report.shipped is None else _plain_detail(report.shipped),
    }


def _title(groups: Sequence[Group]) -> str:
    if len(groups) == 1:
        return sentence(groups[0].recipe)
    students, data = (
        list(dict.fromkeys(short(group.recipe[key]) for group in groups)) for key in ("student.name", "data.name")
    )
    who = " and ".join(students) if len(students) < 3 else f"{len(students)} networks"
    return f"{who} on {' and '.join(data)}: {len(groups)} ways compared"


def _detail(group: Group) -> Detail | None:
    run = next((run for run in group.finished if run.predictions is not None), None)
    return None if run is None else _detail_of(group.name, run)


def _detail_of(group: str, run: RunFiles) -> Detail:
    found = run.predictions
    assert found is not None
    taught = found.teacher
    shown, are_surest = mistakes(found, SHOWN_MISTAKES)
    return Detail(
        group=group,
        run=run,
        predictions=found,
        accuracy=accuracy(found.student, found.targets),
        teacher_accuracy=None if taught is None else accuracy(taught, found.targets),
        classes=by_class(found),
        confusion=confusion(found.student, found.targets),
        calibration=calibration(found.student, found.targets),
        teacher_calibration=None if taught is None else calibration(taught, found.targets),
        agreement=None if taught is None else agreement(found.student, taught, found.targets),
        mistakes=shown,
        shows_surest_mistakes=are_surest,
    )


def _cost(group: Group, series: int, details: Sequence[Detail]) -> Cost | None:
    if group.accuracy is None:
        return None
    counted = [run.metrics["parameters"] for run in group.finished if run.metrics and "parameters" in run.metrics]
    measured = next((run.measured for run in group.runs if run.measured is not None), {})
    own = next((detail for detail in details if detail.group == group.name), None)
    return Cost(
        group=group.name,
        series=series,
        accuracy=group.accuracy.mean,
        interval=interval_of(group, own),
        parameters=measured.get("parameters", counted[0] if counted else None),
        size_bytes=next((run.student_bytes for run in group.finished if run.student_bytes), None),
        latency=measured.get("latency", []),
    )


def _plain_group(group: Group, detail: Detail | None) -> dict[str, Any]:
    summary: Summary | None = group.accuracy
    return {
        "name": group.name,
        "recipe": dict(group.recipe),
        "in_words": dict(recipe_in_words(group.recipe)),
        "eval_set": group.eval_set,
        "accuracy": None if summary is None else {**asdict(summary), "interval": interval_of(group, detail)},
        "runs": [
            {
                "path": str(run.path),
                "seed": run.seed,
                "epochs_done": run.events[-1]["epoch"] if run.events else 0,
                "metrics": run.metrics,
                "sealed": run.sealed,
                "environment": dict(run.environment),
            }
            for run in group.runs
        ],
        "environment_in_words": dict(environment_in_words(group.runs[0].environment)),
        "command": command(group),
        "detail": None if detail is None else _plain_detail(detail),
    }


def _plain_detail(detail: Detail) -> dict[str, Any]:
    return {
        "run": str(detail.run.path),
        "accuracy": _plain_share(detail.accuracy),
        "teacher_accuracy": _plain_share(detail.teacher_accuracy),
        "classes": [
            {"name": row.name, "student": _plain_share(row.student), "teacher": _plain_share(row.teacher)}
            for row in detail.classes
        ],
        "confusion": detail.confusion.tolist(),
        "calibration": asdict(detail.calibration),
        "teacher_calibration": None if detail.teacher_calibration is None else asdict(detail.teacher_calibration),
        "agreement": None if detail.agreement is None else asdict(detail.agreement),
        "mistakes": [asdict(mistake) for mistake in detail.mistakes],
    }


def _plain_share(found: Proportion | None) -> dict[str, Any] | None:
    return None if found is None else {**asdict(found), "share": found.share, "interval": found.interval}
