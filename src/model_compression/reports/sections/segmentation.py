"""Predictions of a class for each pixel: IoU by class, mIoU with an interval over images, masks beside their images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.masks import Masks, coloured, palette
from model_compression.core.metric import Metric
from model_compression.core.text import escape_markdown, percent
from model_compression.reports.mask_predictions import MaskPredictions, read_masks
from model_compression.reports.masks import (
    Counts,
    bootstrap_interval,
    count_pixels,
    iou_by_class,
    mean_iou,
    pixel_share,
    wrong_shares,
)
from model_compression.reports.rows import Row, Rows, Tile, picture
from model_compression.reports.sections.base import SECTIONS, Description, Findings, Section

_SHOWN = 12  # images whose masks are shown, those with the most wrong pixels
_SHOWN_CLASSES, _SHOWN_CONFUSIONS = 20, 15
_NAMED_CLASSES = 100  # with more, a model card gives only their number
_SCALE = Metric(name="iou", label="IoU", plural="IoUs", unit="%", factor=100.0, lowest=0.0, highest=1.0)


@dataclass(frozen=True, kw_only=True)
class MaskFindings(Findings):
    """By class and by image."""

    template = "segmentation.html.j2"
    predictions: MaskPredictions
    counts: Counts
    teacher_counts: Counts | None
    interval_of_student: tuple[float, float]
    interval_of_teacher: tuple[float, float] | None
    agreement: float | None

    @property
    def samples(self) -> int:
        """How many images."""
        return len(self.predictions.targets)

    @property
    def value(self) -> float:
        """The mIoU."""
        return mean_iou(self.counts)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mIoU, by resampled images."""
        return self.interval_of_student

    @property
    def teacher_interval(self) -> tuple[float, float] | None:
        """Of the teacher's."""
        return self.interval_of_teacher

    @property
    def columns(self) -> Mapping[str, str]:
        """Agreement with the teacher, and pixel accuracy."""
        agrees = {} if self.agreement is None else {"agrees": percent(self.agreement)}
        return {**agrees, "pixels": percent(pixel_share(self.counts))}

    def tiles(self, of_seed: str, of_run: str) -> list[Tile]:
        """Pixel accuracy and agreement."""
        note = f"of the pixels of {self.samples:,} images get their class{of_seed}{of_run}"
        found = [Tile(name="Pixel accuracy", value=percent(pixel_share(self.counts)), note=note)]
        if self.agreement is not None:
            note = f"of the pixels get the same class from both{of_run}"
            found.append(Tile(name="Agreement", value=percent(self.agreement), note=note))
        return found

    def page_values(self, series: int) -> dict[str, Any]:
        """Classes on a scale, the largest confusions, and masks beside their images."""
        names = self.predictions.class_names
        return {
            "classes": self._class_rows(series),
            "confusions": _largest_confusions(self.counts, names),
            "scenes": self._scenes(),
            "legend": [
                (name, f"rgb({', '.join(map(str, colour))})")
                for name, colour in list(zip(names, palette(len(names)).tolist(), strict=True))[:_SHOWN_CLASSES]
            ],
            "has_teacher": self.predictions.teacher is not None,
        }

    def _class_rows(self, series: int) -> Rows:
        own = iou_by_class(self.counts)
        other = None if self.teacher_counts is None else iou_by_class(self.teacher_counts)
        pixels = self.counts.sum(axis=1)
        order = [number for number in np.argsort(own) if not np.isnan(own[number])][:_SHOWN_CLASSES]
        rows = []
        for number in order:
            teachers = None if other is None or np.isnan(other[number]) else float(other[number])
            beside = "" if teachers is None else f", teacher {percent(teachers, 1)}"
            rows.append(
                Row(
                    name=self.predictions.class_names[number],
                    series=series,
                    text=percent(float(own[number]), 1),
                    note=f"{pixels[number]:,} pixels{beside}",
                    middle=float(own[number]),
                    interval=None,
                    other=teachers,
                )
            )
        return Rows(rows, _SCALE, count=2)

    def _scenes(self) -> list[dict[str, Any]]:
        """Pictures of the images with the most wrong pixels, of those that the run folder holds."""
        found = self.predictions
        shares = wrong_shares(found.student, found.targets)
        places = sorted(range(len(found.thumbnail_rows)), key=lambda place: -shares[found.thumbnail_rows[place]])
        scenes = []
        for place in places[:_SHOWN]:
            row = int(found.thumbnail_rows[place])
            masks = [("truth", found.targets), ("teacher", found.teacher), ("student", found.student)]
            pictures = [("image", picture(found.thumbnails[place]))]
            pictures += [(name, picture(_pixels(one[row]))) for name, one in masks if one is not None]
            scenes.append({"number": row, "wrong": float(shares[row]), "pictures": pictures})
        return scenes

    def to_plain(self) -> dict[str, Any]:
        """All but the masks themselves."""
        own = iou_by_class(self.counts)
        teachers = None if self.teacher_counts is None else iou_by_class(self.teacher_counts)
        return {
            "miou": self.value,
            "interval": list(self.interval),
            "pixel_accuracy": pixel_share(self.counts),
            "agreement": self.agreement,
            "classes": [
                {
                    "name": name,
                    "pixels": int(self.counts[number].sum()),
                    "iou": _plain(own[number]),
                    "teacher_iou": None if teachers is None else _plain(teachers[number]),
                }
                for number, name in enumerate(self.predictions.class_names)
            ],
            "confusion": self.counts.tolist(),
        }


@SECTIONS.register("segmentation")
class Segmentation(Section):
    """Masks (N, H, W) of class numbers."""

    hub_task = "image-segmentation"
    columns = ("agrees", "pixels")
    interval_by = "bootstrap"
    note = (
        "with one seed, the interval of that network over images (bootstrap), which says nothing about other seeds. "
        "Teacher, agreement and pixel accuracy are those of the smallest seed"
    )

    def read(self, path: Path, data: str) -> MaskPredictions:
        """See `read_masks`."""
        return read_masks(path)

    def figures(self, found: MaskPredictions, kind: str) -> dict[str, float]:
        """mIoU and pixel accuracy of both, and the agreement."""
        counts = _counts(found.student, found)
        values = {f"{kind}_miou": mean_iou(counts), f"{kind}_pixel_accuracy": pixel_share(counts)}
        if found.teacher is not None:
            values[f"teacher_{kind}_miou"] = mean_iou(_counts(found.teacher, found))
            values["teacher_agreement"] = _agreement(found.student, found.teacher)
        return values

    def right(self, found: MaskPredictions) -> None:
        """None: a mask is not right or wrong as a whole."""
        return

    def are_same_samples(self, found: MaskPredictions, other: MaskPredictions) -> bool:
        """Those with the same true masks."""
        return np.array_equal(found.targets, other.targets)

    def agreement(self, found: MaskPredictions, other: MaskPredictions) -> float | None:
        """Equal pixels."""
        return None if other.teacher is None else _agreement(found.student, other.teacher)

    def examine(self, found: MaskPredictions) -> MaskFindings:
        """See `MaskFindings`."""
        classes, teacher = len(found.class_names), found.teacher
        return MaskFindings(
            predictions=found,
            counts=_counts(found.student, found),
            teacher_counts=None if teacher is None else _counts(teacher, found),
            interval_of_student=bootstrap_interval(found.student, found.targets, classes),
            interval_of_teacher=None if teacher is None else bootstrap_interval(teacher, found.targets, classes),
            agreement=None if teacher is None else _agreement(found.student, teacher),
        )

    def decode(self, logits: npt.NDArray[np.float64], names: Sequence[str]) -> list[tuple[str, float]]:
        """Classes with their share of the pixels of an image, the largest first; those that have any."""
        mask = logits.argmax(axis=0)
        counts = np.bincount(mask.ravel(), minlength=len(names))
        order = [number for number in np.argsort(-counts, kind="stable") if counts[number]]
        return [(names[number], float(counts[number] / mask.size)) for number in order]

    def describe(self, logits: npt.NDArray[np.float64], names: Sequence[str], facts: Mapping[str, Any]) -> Description:
        """The mask, and the classes that it has."""
        return Description(classes=tuple(self.decode(logits, names)), mask=logits.argmax(axis=0).astype(np.uint8))

    def card_figures(
        self, metrics: Mapping[str, Any], found: MaskPredictions | None, kind: str
    ) -> list[tuple[str, str]]:
        """Pixel accuracy."""
        key = f"{kind}_pixel_accuracy"
        return [("pixel accuracy", percent(metrics[key]))] if key in metrics else []

    def purpose(self, found: MaskPredictions, source: str) -> str:
        """Which classes."""
        classes = len(found.class_names)
        named = found.class_names if classes <= _NAMED_CLASSES else ()
        names = f": {', '.join(map(escape_markdown, named))}" if named else ""
        return f"A class for each pixel of images like those {source}, of {classes}{names}."

    def limits(self, found: MaskPredictions, kind: str) -> list[str]:
        """That it knows no other class, and which it knows worst."""
        lines = ["It assigns one of these classes to every pixel, also of things of another class."]
        own = iou_by_class(_counts(found.student, found))
        known = [number for number in np.argsort(own) if not np.isnan(own[number])]
        if len(known) > 1 and own[known[0]] < own[known[-1]]:
            low, high = (
                f"{percent(float(own[number]))} for {escape_markdown(found.class_names[number])}"
                for number in (known[0], known[-1])
            )
            lines.append(f"Classes differ: its IoU is {low} and {high} ({kind} images).")
        return lines


def _counts(masks: Masks, found: MaskPredictions) -> Counts:
    return count_pixels(masks, found.targets, len(found.class_names))


def _agreement(one: Masks, other: Masks) -> float:
    return float(np.mean([np.mean(a == b) for a, b in zip(one, other, strict=True)]))


def _pixels(mask: Masks) -> npt.NDArray[np.uint8]:
    """(3, H, W) of a mask, in its colours."""
    return coloured(mask).transpose(2, 0, 1)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _largest_confusions(counts: Counts, names: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """(class, what it is taken for, how many pixels, share of the class), the most first."""
    wrong = [
        (names[row], names[column], int(counts[row, column]), counts[row, column] / counts[row].sum())
        for row, column in zip(*np.nonzero(counts), strict=True)
        if row != column
    ]
    return sorted(wrong, key=lambda entry: -entry[2])[:_SHOWN_CONFUSIONS]
