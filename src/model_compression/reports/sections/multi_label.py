"""Predictions of any number of classes for each sample: average precision and F1 by class, calibration, mistakes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.text import escape_markdown, percent
from model_compression.reports.answers import Calibration
from model_compression.reports.charts import SERIES, calibration_line, reliability_chart
from model_compression.reports.label_sets import (
    LabelFigures,
    binary_calibration,
    chosen,
    label_figures,
    macro_f1,
    mean_average_precision,
    sigmoid,
    wrong_sets,
)
from model_compression.reports.rows import Tile
from model_compression.reports.sections.base import SECTIONS, Description, Findings, Section
from model_compression.reports.statistics import to_plain
from model_compression.reports.vector_predictions import VectorPredictions, read_vectors

_SHOWN_MISTAKES, _SHOWN_CLASSES, _NAMED_CLASSES = 24, 50, 100


@dataclass(frozen=True, kw_only=True)
class LabelFindings(Findings):
    """By class, by probability, by sample."""

    template = "multi_label.html.j2"
    predictions: VectorPredictions
    classes: Sequence[LabelFigures]
    teacher_classes: Sequence[LabelFigures]
    calibration: Calibration
    agreement: float | None

    @property
    def samples(self) -> int:
        """How many."""
        return len(self.predictions.targets)

    @property
    def value(self) -> float:
        """mAP."""
        return mean_average_precision(self.predictions.student, self.predictions.targets)

    @property
    def f1(self) -> float:
        """The mean of the classes' F1."""
        return float(np.mean([one.f1 for one in self.classes if one.count] or [0.0]))

    @property
    def interval(self) -> None:
        """None: a mean average precision is no share of samples."""
        return None

    @property
    def teacher_interval(self) -> None:
        """None, as of the student."""
        return None

    @property
    def columns(self) -> Mapping[str, str]:
        """Agreement with the teacher, mean F1, and expected calibration error."""
        agrees = {} if self.agreement is None else {"agrees": percent(self.agreement)}
        return {**agrees, "F1": percent(self.f1), "ECE": percent(self.calibration.ece)}

    def tiles(self, of_seed: str, of_run: str) -> list[Tile]:
        """F1, agreement and calibration."""
        chosen_by = "chosen on held-out training samples" if self.predictions.facts.get("thresholds") else "0.5"
        note = f"mean over classes; thresholds {chosen_by}{of_seed}{of_run}"
        found = [Tile(name="F1", value=percent(self.f1), note=note)]
        if self.agreement is not None:
            note = f"of all answers, present or not, on n = {self.samples:,} samples are the same{of_run}"
            found.append(Tile(name="Agreement", value=percent(self.agreement), note=note))
        note = f"expected calibration error in 15 bins over all classes, n = {self.samples:,} samples{of_seed}{of_run}"
        return [*found, Tile(name="Calibration", value=percent(self.calibration.ece), note=note)]

    def page_values(self, series: int) -> dict[str, Any]:
        """Classes by average precision, the reliability diagram, and pictures of mistakes."""
        lines = [calibration_line(self.calibration, "student", series)]
        taught = {one.name: one for one in self.teacher_classes}
        if self.predictions.teacher is not None:
            of_teacher = binary_calibration(self.predictions.teacher, self.predictions.targets)
            lines.insert(0, calibration_line(of_teacher, "teacher", SERIES - 1))
        rows = sorted(self.classes, key=lambda one: (math.isnan(one.average_precision), one.average_precision))
        chart = reliability_chart(
            lines, key=f"reliability-{series}", x="probability of a class, %", y="samples that have it, %"
        )
        return {
            "rows": [(one, taught.get(one.name)) for one in rows[:_SHOWN_CLASSES]],
            "reliability": chart,
            "pictures": self._pictures(),
        }

    def _pictures(self) -> list[tuple[str, str, str, str]]:
        """(picture, name, predicted classes, true classes) of the surest mistakes."""
        found, names = self.predictions, np.array(self.predictions.names("class_names"))
        thresholds = found.numbers("thresholds")
        wrong = wrong_sets(found.student, found.teacher, found.targets, thresholds)
        predicted = chosen(found.student, thresholds)
        return [
            (
                found.picture(int(row)), f"sample {row}",
                ", ".join(names[predicted[row]]) or "none", ", ".join(names[found.targets[row] > 0]) or "none",
            )
            for row in found.shown(wrong, _SHOWN_MISTAKES)
        ]  # fmt: skip

    def to_plain(self) -> dict[str, Any]:
        """All but the predictions themselves; what is not defined is null."""
        values = {name: to_plain(getattr(self, name)) for name in ("classes", "teacher_classes", "calibration")}
        for part in ("classes", "teacher_classes"):
            values[part] = [{key: _or_none(value) for key, value in one.items()} for one in values[part]]
        return {"map": self.value, "f1": self.f1, "agreement": self.agreement, **values}


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


@SECTIONS.register("multi-label")
class MultiLabelSection(Section):
    """Logits (N, K) and labels (N, K) of 0 and 1."""

    hub_task = "image-classification"
    columns = ("agrees", "F1", "ECE")
    note = (
        "one seed has no interval. Teacher, agreement, mean F1 and expected calibration error (15 bins) are those of "
        "the smallest seed"
    )
    gains_note = "with one seed there is no test: train more"

    def read(self, path: Path, data: str) -> VectorPredictions:
        """See `read_vectors`."""
        found = read_vectors(path, "class_names")
        return found

    def figures(self, found: VectorPredictions, kind: str) -> dict[str, float]:
        """mAP, F1, the teacher's mAP, and the agreement."""
        thresholds = found.numbers("thresholds")
        values = {
            f"{kind}_map": mean_average_precision(found.student, found.targets),
            f"{kind}_f1": macro_f1(found.student, found.targets, thresholds),
        }
        if found.teacher is not None:
            values[f"teacher_{kind}_map"] = mean_average_precision(found.teacher, found.targets)
            values["teacher_agreement"] = _agreement(found.student, found.teacher, thresholds)
        return values

    def right(self, found: VectorPredictions) -> None:
        """None: mAP is no share of right samples."""
        return None

    def are_same_samples(self, found: VectorPredictions, other: VectorPredictions) -> bool:
        """Those with the same targets and thumbnails."""
        return found.same_samples(other)

    def agreement(self, found: VectorPredictions, other: VectorPredictions) -> float | None:
        """Equal answers, present or not."""
        return None if other.teacher is None else _agreement(found.student, other.teacher, found.numbers("thresholds"))

    def examine(self, found: VectorPredictions) -> LabelFindings:
        """See `LabelFindings`."""
        names, thresholds = found.names("class_names"), found.numbers("thresholds")
        taught = found.teacher
        return LabelFindings(
            predictions=found,
            classes=label_figures(found.student, found.targets, names, thresholds),
            teacher_classes=() if taught is None else label_figures(taught, found.targets, names, thresholds),
            calibration=binary_calibration(found.student, found.targets),
            agreement=None if taught is None else _agreement(found.student, taught, thresholds),
        )

    def decode(self, logits: npt.NDArray[np.float64], names: Sequence[str]) -> list[tuple[str, float]]:
        """The sigmoid of each class, the likeliest first."""
        found = sigmoid(logits)
        return [(names[number], float(found[number])) for number in np.argsort(-found, kind="stable")]

    def describe(self, logits: npt.NDArray[np.float64], names: Sequence[str], facts: Mapping[str, Any]) -> Description:
        """All classes, and those whose probability is at least the file's threshold, by default 0.5."""
        found = self.decode(logits, names)
        bounds = dict(zip(names, facts.get("thresholds") or [0.5] * len(names), strict=True))
        return Description(classes=tuple(found), present=tuple(name for name, p in found if p >= bounds[name]))

    def card_figures(
        self, metrics: Mapping[str, Any], found: VectorPredictions | None, kind: str
    ) -> list[tuple[str, str]]:
        """Mean F1, cross-entropy and calibration."""
        texts = {
            "f1": ("mean F1 of the classes", percent),
            "nll": ("binary cross-entropy, mean over classes", "{:.4f}".format),
            "ece": ("expected calibration error, 15 bins", percent),
        }
        return [
            (name, write(metrics[f"{kind}_{key}"]))
            for key, (name, write) in texts.items()
            if f"{kind}_{key}" in metrics
        ]

    def purpose(self, found: VectorPredictions, source: str) -> str:
        """Which classes."""
        names = found.names("class_names")
        named = f": {', '.join(map(escape_markdown, names))}" if len(names) <= _NAMED_CLASSES else ""
        return f"Samples like those {source}, each with any number of {len(names)} classes{named}."

    def limits(self, found: VectorPredictions, kind: str) -> list[str]:
        """How a class is predicted, and which it knows worst."""
        rows = [one for one in self.examine(found).classes if one.count]
        rows.sort(key=lambda one: one.average_precision)
        how = "thresholds that were chosen on training samples held out" if found.facts.get("thresholds") else "0.5"
        lines = [f"A class is predicted where its probability is at least its threshold: {how}."]
        if rows and rows[0].average_precision < rows[-1].average_precision:
            worst, best = rows[0], rows[-1]
            lines.append(
                f"Classes differ: average precision is {percent(worst.average_precision)} for "
                f"{escape_markdown(worst.name)} and {percent(best.average_precision)} for {escape_markdown(best.name)}."
            )
        return lines


def _agreement(
    student: npt.NDArray[np.floating], teacher: npt.NDArray[np.floating], thresholds: Sequence[float]
) -> float:
    return float(np.mean(chosen(student, thresholds) == chosen(teacher, thresholds)))
