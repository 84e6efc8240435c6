"""Predictions of numbers with units: errors by number, value against target, the largest errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.text import escape_markdown, percent
from model_compression.reports.charts import Chart, Line, value_chart
from model_compression.reports.rows import Tile
from model_compression.reports.sections.base import SECTIONS, Description, Findings, Section
from model_compression.reports.statistics import to_plain
from model_compression.reports.values import (
    ValueFigures,
    figures_by_name,
    in_units,
    largest_errors,
    name_and_unit,
    r_squared,
    r_squared_interval,
    value_figures,
)
from model_compression.reports.vector_predictions import VectorPredictions, read_vectors

_SHOWN_MISTAKES, _SHOWN_POINTS, _SHOWN_CHARTS = 24, 300, 6
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ValueFindings(Findings):
    """By number, and by sample."""

    template = "regression.html.j2"
    predictions: VectorPredictions
    numbers: Sequence[ValueFigures]
    teacher_numbers: Sequence[ValueFigures]
    agreement: float | None

    @property
    def samples(self) -> int:
        """How many."""
        return len(self.predictions.targets)

    @property
    def value(self) -> float:
        """R², the mean over numbers."""
        return float(np.mean([one.r2 for one in self.numbers]))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of R² (bootstrap)."""
        return r_squared_interval(_values(self.predictions, self.predictions.student), self.predictions.targets)

    @property
    def teacher_interval(self) -> tuple[float, float] | None:
        """Of the teacher's."""
        taught = self.predictions.teacher
        return (
            None if taught is None else r_squared_interval(_values(self.predictions, taught), self.predictions.targets)
        )

    @property
    def columns(self) -> Mapping[str, str]:
        """Mean absolute errors."""
        return {"MAE": ", ".join(_error(one, one.mae) for one in self.numbers[:_SHOWN_CHARTS])}

    def tiles(self, of_seed: str, of_run: str) -> list[Tile]:
        """The mean absolute error of each number, and the agreement."""
        note = f"mean absolute error, n = {self.samples:,} samples{of_seed}{of_run}"
        found = [Tile(name=one.name, value=_error(one, one.mae), note=note) for one in self.numbers[:_SHOWN_CHARTS]]
        if self.agreement is not None:
            note = f"of the variance of the teacher's answers is explained{of_run}"
            found.append(Tile(name="Agreement", value=percent(self.agreement), note=note))
        return found

    def page_values(self, series: int) -> dict[str, Any]:
        """The errors of each number, value against target, and pictures of the largest errors."""
        taught = {one.name: one for one in self.teacher_numbers}
        return {
            "rows": [(one, taught.get(one.name)) for one in self.numbers],
            "charts": self._charts(series),
            "pictures": self._pictures(),
        }

    def _charts(self, series: int) -> list[tuple[str, Chart]]:
        found = self.predictions
        rows = np.unique(np.linspace(0, self.samples - 1, min(self.samples, _SHOWN_POINTS)).round().astype(int))
        values, charts = _values(found, found.student), []
        for number, one in enumerate(self.numbers[:_SHOWN_CHARTS]):
            unit = f", {one.unit}" if one.unit else ""
            points = [
                (
                    float(found.targets[row, number]), float(values[row, number]),
                    f"sample {row}: {values[row, number]:.4g}, target {found.targets[row, number]:.4g}{unit}",
                )
                for row in rows
            ]  # fmt: skip
            line = Line(name=one.name, series=series, points=points)
            chart = value_chart([line], key=f"value-{series}-{number}", x=f"target{unit}", y=f"prediction{unit}")
            charts.append((one.name, chart))
        return charts

    def _pictures(self) -> list[tuple[str, str, str, str]]:
        """(picture, name, predicted, true numbers) of the largest errors."""
        found, values = self.predictions, _values(self.predictions, self.predictions.student)
        rows = found.shown(largest_errors(found.student, found.teacher, _scaled(found)), _SHOWN_MISTAKES)

        def listed(numbers: npt.NDArray[Any]) -> str:
            return ", ".join(f"{one:.4g}" for one in numbers)

        return [
            (found.picture(int(row)), f"sample {row}", listed(values[row]), listed(found.targets[row])) for row in rows
        ]

    def to_plain(self) -> dict[str, Any]:
        """All but the predictions themselves."""
        return {
            "r2": self.value,
            "interval": self.interval,
            "agreement": self.agreement,
            **{name: to_plain(getattr(self, name)) for name in ("numbers", "teacher_numbers")},
        }


def _values(found: VectorPredictions, answers: npt.NDArray[np.floating]) -> Floats:
    return in_units(answers, found.numbers("target_mean"), found.numbers("target_std"))


def _scaled(found: VectorPredictions) -> Floats:
    """The targets as networks see them."""
    mean, std = found.numbers("target_mean"), found.numbers("target_std")
    targets = found.targets.astype(np.float64)
    return (targets - np.array(mean)) / np.array(std) if mean else targets


def _error(one: ValueFigures, error: float) -> str:
    return f"{error:.4g} {one.unit}".strip()


@SECTIONS.register("regression")
class RegressionSection(Section):
    """Answers (N, D) in deviations and targets (N, D) in units."""

    hub_task = "image-feature-extraction"
    columns = ("MAE",)
    interval_by = "bootstrap"
    note = (
        "with one seed, the interval of that network over samples (bootstrap), which says nothing about other seeds. "
        "Teacher and mean absolute error are those of the smallest seed"
    )
    gains_note = "with one seed there is no test: train more"

    def read(self, path: Path, data: str) -> VectorPredictions:
        """See `read_vectors`."""
        return read_vectors(path, "target_names")

    def figures(self, found: VectorPredictions, kind: str) -> dict[str, float]:
        """R², errors, and the teacher's R²."""
        own = figures_by_name(_values(found, found.student), found.targets, found.names("target_names"))
        values = {f"{kind}_{key}": value for key, value in own.items()}
        if found.teacher is not None:
            values[f"teacher_{kind}_r2"] = float(r_squared(_values(found, found.teacher), found.targets).mean())
        return values

    def right(self, found: VectorPredictions) -> None:
        """None: a number is not right or wrong."""
        return None

    def are_same_samples(self, found: VectorPredictions, other: VectorPredictions) -> bool:
        """Those with the same targets and thumbnails."""
        return found.same_samples(other)

    def agreement(self, found: VectorPredictions, other: VectorPredictions) -> float | None:
        """Share of the variance of the teacher's answers that the student's explain."""
        return None if other.teacher is None else _agreement(found.student, other.teacher)

    def examine(self, found: VectorPredictions) -> ValueFindings:
        """See `ValueFindings`."""
        names, taught = found.names("target_names"), found.teacher
        return ValueFindings(
            predictions=found,
            numbers=value_figures(_values(found, found.student), found.targets, names),
            teacher_numbers=() if taught is None else value_figures(_values(found, taught), found.targets, names),
            agreement=None if taught is None else _agreement(found.student, taught),
        )

    def decode(self, logits: npt.NDArray[np.float64], names: Sequence[str]) -> list[tuple[str, float]]:
        """Nothing: there are no classes."""
        return []

    def describe(self, logits: npt.NDArray[np.float64], names: Sequence[str], facts: Mapping[str, Any]) -> Description:
        """The numbers in their units, under their names."""
        values = in_units(logits[None], facts.get("target_mean", ()), facts.get("target_std", ()))[0]
        own = facts.get("target_names") or [f"value {number}" for number in range(1, len(values) + 1)]
        return Description(values=tuple((str(name), float(value)) for name, value in zip(own, values, strict=True)))

    def card_figures(
        self, metrics: Mapping[str, Any], found: VectorPredictions | None, kind: str
    ) -> list[tuple[str, str]]:
        """The errors of each number."""
        if found is None:
            return []
        rows = []
        for one in self.examine(found).numbers:
            rows += [
                (f"mean absolute error, {one.name}", _error(one, one.mae)),
                (f"root mean square error, {one.name}", _error(one, one.rmse)),
            ]
        return rows

    def purpose(self, found: VectorPredictions, source: str) -> str:
        """Which numbers."""
        told = [f"{name} in {unit}" if unit else name for name, unit in map(name_and_unit, found.names("target_names"))]
        return f"Numbers of samples like those {source}: {', '.join(map(escape_markdown, told))}."

    def limits(self, found: VectorPredictions, kind: str) -> list[str]:
        """The range that it was measured on."""
        names = found.names("target_names")
        ranges = zip(names, found.targets.min(axis=0), found.targets.max(axis=0), strict=True)
        told = "; ".join(f"{escape_markdown(name)} from {low:.4g} to {high:.4g}" for name, low, high in ranges)
        return [
            f"It was measured on {told}: beyond, nothing is known.",
            "It gives a number for every sample, also for one of another kind.",
        ]


def _agreement(student: npt.NDArray[np.floating], teacher: npt.NDArray[np.floating]) -> float:
    return max(0.0, float(r_squared(student.astype(np.float64), teacher).mean()))
