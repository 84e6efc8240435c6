"""The content of a report: groups of runs, gains, and the predictions of one run of each group."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from model_compression.core.errors import FileFormatError, UsageError
from model_compression.core.manifest import FILE as MANIFEST
from model_compression.core.metric import Metric, recorded
from model_compression.core.text import NO_BREAK, count
from model_compression.reports.compression_stages import Compression, read_compression
from model_compression.reports.compression_stages import to_plain as plain_stages
from model_compression.reports.groups import Gain, Group, check_same_metric, gains, group_runs, short
from model_compression.reports.run_files import RunFiles, find_runs, run_places
from model_compression.reports.sections import Findings, Section, section_of
from model_compression.reports.shipped import Shipped, read_shipped
from model_compression.reports.statistics import Summary
from model_compression.reports.statistics import to_plain as values_of
from model_compression.reports.words import command, environment_in_words, recipe_in_words, sentence

Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Detail:
    """What the predictions of one run of a group show."""

    group: str
    run: RunFiles
    found: Findings


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole report; all its finished runs have the same ``metric``. ``details`` has at most one run of each group.

    ``ships`` has the file that each folder of several stages ends in. ``shipped`` has the predictions of the file that
    one compression of one group ends in, None without.
    """

    title: str
    metric: Metric
    groups: Sequence[Group]
    gains: Sequence[Gain]
    details: Sequence[Detail]
    compressions: Sequence[Compression]
    ships: Sequence[Shipped]
    headline: Shipped | None
    """What ships, where the report is on one folder of several stages."""
    left_out: Sequence[str]
    """Damaged and changed runs, which the report ignores: a line each, with the reason."""
    shipped: Detail | None = None

    def __repr__(self) -> str:
        return f"<report: {self.title}, {count(len(self.runs), 'run')}>"

    @property
    def runs(self) -> list[RunFiles]:
        """The runs of all groups."""
        return [run for group in self.groups for run in group.runs]

    @property
    def results(self) -> list[tuple[int, Group, Summary]]:
        """The groups with a result, with their numbers in `groups`."""
        return [(series, group, group.summary) for series, group in enumerate(self.groups) if group.summary is not None]

    @property
    def manifest_warning(self) -> str:
        """A warning about finished runs without a manifest; empty where there are none."""
        number = sum(not run.sealed for group in self.groups for run in group.finished)
        return f"{count(number, 'run')} without {MANIFEST}: a change of the files would not be seen." if number else ""

    @property
    def noun(self) -> str:
        """What several samples are called."""
        return "images" if self.section is None else self.section.noun

    @property
    def section(self) -> Section | None:
        """What reports know of the predictions of these runs; None where their task has none."""
        finished = [run for group in self.groups for run in group.finished]
        return section_of(finished[0].metrics) if finished else None

    def detail_of(self, group: Group) -> Detail | None:
        """The detail of one of its runs."""
        return next((detail for detail in self.details if detail.group == group.name), None)

    def interval_of(self, group: Group) -> tuple[float, float] | None:
        """The 95 % interval of a group's result: of the mean over seeds; of one run, over its images (Wilson)."""
        summary, detail = group.summary, self.detail_of(group)
        if summary is not None and summary.half_width is not None:
            return self.metric.bounded(summary.mean - summary.half_width, summary.mean + summary.half_width)
        return detail.found.interval if detail else None

    def text(self, value: float, half_width: float | None = None) -> str:
        """A value of the primary metric, with a space that does not break before the unit."""
        return self.metric.text(value, half_width=half_width, space=NO_BREAK)

    def interval_text(self, interval: tuple[float, float] | None) -> str:
        """An interval of the primary metric; empty for None."""
        return "" if interval is None else self.metric.interval(interval, space=NO_BREAK)


def make_report(paths: Sequence[str | Path]) -> Report:
    """The report on the runs in folders; what is damaged is left out.

    Raises UsageError for no runs and for runs with different metrics, and what `find_runs` does.
    """
    if not paths:
        raise UsageError("a report needs at least one run folder, got none")
    places, left_out = run_places(paths), list[str]()
    groups = group_runs(find_runs(places, left_out.append))
    metric = check_same_metric(groups)
    compressions = _read_each(read_compression, places, left_out)
    ships = _read_each(read_shipped, places, left_out)
    return Report(
        title=_title(groups),
        metric=metric,
        groups=groups,
        gains=gains(groups),
        details=[detail for group in groups if (detail := _detail(group)) is not None],
        compressions=compressions,
        ships=ships,
        headline=ships[0] if len(ships) == 1 == len(places) else None,
        left_out=left_out,
        shipped=_read_shipped(groups, compressions, left_out),
    )


def to_plain(report: Report) -> dict[str, Any]:
    """The report as plain values, for JSON; the key of a value of the primary metric is its name."""
    metric = report.metric
    return {
        "title": report.title,
        **recorded(metric),
        "left_out": report.left_out,
        "groups": [_plain_group(report, group) for group in report.groups],
        "gains": values_of(report.gains),
        "costs": [
            {
                "group": group.name,
                "series": series,
                metric.name: summary.mean,
                "interval": report.interval_of(group),
                "parameters": group.parameters,
                "size_bytes": group.size_bytes,
                "latency": group.latency,
            }
            for series, group, summary in report.results
        ],
        "compressions": [
            {
                "path": str(found.path),
                "threads": found.threads,
                "stages": plain_stages(found.stages, found.metric),
                "broken": found.broken,
            }
            for found in report.compressions
        ],
        "ships": [found.to_plain() for found in report.ships],
        "shipped": _plain_detail(report.shipped),
    }


def _read_each(read: Callable[[Path], Found | None], places: Sequence[Path], left_out: list[str]) -> list[Found]:
    """What ``read`` finds in each of ``places``; the reasons of what is damaged are added to ``left_out``."""
    found = []
    for folder in dict.fromkeys(places):
        try:
            one = read(folder)
        except FileFormatError as error:
            left_out += [str(error)] if str(error) not in left_out else []
            continue
        found += [] if one is None else [one]
    return found


def _read_shipped(groups: Sequence[Group], compressions: Sequence[Compression], left_out: list[str]) -> Detail | None:
    section = section_of(groups[0].runs[0].metrics) if len(groups) == 1 == len(compressions) else None
    if section is None:
        return None
    run, path = groups[0].runs[0], compressions[0].path / "predictions.safetensors"
    if not path.is_file():  # of an older version
        return None
    try:
        predictions = section.read(path, run.config["data"]["name"])
    except FileFormatError as error:
        left_out.append(str(error))
        return None
    shipped = replace(run, path=compressions[0].path)
    return Detail(group=groups[0].name, run=shipped, found=section.examine(predictions))


def _title(groups: Sequence[Group]) -> str:
    if len(groups) == 1:
        return sentence(groups[0].recipe)
    students, data = (
        list(dict.fromkeys(short(group.recipe[key]) for group in groups)) for key in ("student.name", "data.name")
    )
    who = " and ".join(students) if len(students) < 3 else f"{len(students)} networks"
    return f"{who} on {' and '.join(data)}: {len(groups)} recipes compared"


def _detail(group: Group) -> Detail | None:
    for run in group.finished:
        if run.section is not None and run.predictions is not None:
            return Detail(group=group.name, run=run, found=run.section.examine(run.predictions))
    return None


def _plain_group(report: Report, group: Group) -> dict[str, Any]:
    summary = None if group.summary is None else {**asdict(group.summary), "interval": report.interval_of(group)}
    return {
        "name": group.name,
        "recipe": dict(group.recipe),
        "in_words": dict(recipe_in_words(group.recipe)),
        "eval_set": group.eval_set,
        report.metric.name: summary,
        "runs": [
            {
                "path": str(run.path),
                "seed": run.seed,
                "epochs_done": run.epochs_done,
                "metrics": run.metrics,
                "sealed": run.sealed,
                "environment": dict(run.environment),
            }
            for run in group.runs
        ],
        "environment_in_words": dict(environment_in_words(group.runs[0].environment)),
        "command": command(group),
        "detail": _plain_detail(report.detail_of(group)),
    }


def _plain_detail(detail: Detail | None) -> dict[str, Any] | None:
    return None if detail is None else {"run": str(detail.run.path), **detail.found.to_plain()}
