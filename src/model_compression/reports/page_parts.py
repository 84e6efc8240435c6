"""Parts of the report's page: headline figures, rows of intervals on a common scale, pictures."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model_compression.core.text import duration, size
from model_compression.reports.contents import Detail, Report, interval_of
from model_compression.reports.groups import Gain, Group
from model_compression.reports.statistics import OF_TWO

_PICTURE_SIDE = 96  # pixels
SPACE = "\u00a0"  # between a figure and its unit, where no line breaks


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A headline figure: what it is, itself, and what it rests on."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """An estimate on a scale, all in per cent of its width: ``middle``, ``low`` and ``high``, single ``points``.

    ``other`` is a second estimate beside it. ``text`` says the figures, ``note`` what they rest on.
    """

    name: str
    series: int
    text: str
    note: str
    middle: float
    low: float | None
    high: float | None
    points: Sequence[float] = ()
    other: float | None = None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows on one scale, with its ``ticks``: place in per cent of the width, and text."""

    rows: Sequence[Row]
    ticks: Sequence[tuple[float, str]]


def percent(share: float, digits: int = 2) -> str:
    """As "75.87 %", with a space that does not break."""
    return f"{100 * share:.{digits}f}{SPACE}%"


def interval_text(interval: tuple[float, float] | None, digits: int = 1) -> str:
    """As "75.0 to 76.7 %"."""
    if interval is None:
        return ""
    return f"{100 * interval[0]:.{digits}f} to {100 * interval[1]:.{digits}f}{SPACE}%"


def tiles(report: Report) -> list[Tile]:
    """The headline figures: of one group its own, of several the highest and what it gains."""
    return _of_group(report, report.groups[0]) if len(report.groups) == 1 else _of_groups(report)


def _of_group(report: Report, group: Group) -> list[Tile]:
    detail = report.shipped or report.detail_of(group)
    found = [_accuracy_tile(group, report.detail_of(group))]
    if len(report.compressions) == 1:
        last = report.compressions[0].stages[-1]
        note = f"of the last stage, {last.name} in {last.runtime}; 95 % interval {interval_text(last.interval)}"
        found = [
            Tile(name="Test accuracy", value=percent(last.accuracy), note=note),
            replace(found[0], name="Distilled"),
        ]
    if detail and detail.teacher_accuracy:
        of_teacher = detail.teacher_accuracy
        found.append(
            Tile(
                name="Its teacher",
                value=percent(of_teacher.share),
                note=f"95 % interval {interval_text(of_teacher.interval)}, the same images",
            )
        )
    if detail and detail.agreement:
        same = detail.agreement.same
        note = f"of {same.total:,} images both put in the same class; 95 % interval {interval_text(same.interval)}"
        found.append(Tile(name="Agreement", value=percent(same.share), note=note))
    if detail:
        of_seed = f", seed {detail.run.seed}" if len(group.runs) > 1 else ""
        note = f"expected calibration error in 15 bins, n = {detail.accuracy.total:,} images{of_seed}"
        found.append(Tile(name="Calibration", value=percent(detail.calibration.ece), note=note))
    return found + _cost_tiles(report, group)


def _cost_tiles(report: Report, group: Group) -> list[Tile]:
    found = _shipped_tiles(report)
    cost = next((cost for cost in report.costs if cost.group == group.name), None)
    if cost and cost.size_bytes and not found:
        counted = f"{cost.parameters:,} parameters, " if cost.parameters else ""
        found.append(Tile(name="Size", value=size(cost.size_bytes), note=f"{counted}its weights file"))
    seconds = [run.metrics["seconds"] for run in group.finished if run.metrics and "seconds" in run.metrics]
    if seconds:
        mean = sum(seconds) / len(seconds)
        each = "" if len(seconds) == 1 else f", mean of {len(seconds)} runs"
        hardware = group.runs[0].environment
        where = hardware.get("gpu") or hardware.get("processor") or "the hardware named below"
        found.append(Tile(name="Training", value=duration(mean), note=f"on {where}{each}"))
    return found


def _shipped_tiles(report: Report) -> list[Tile]:
    """Of one compression, its last stage."""
    if len(report.compressions) != 1:
        return []
    first, last = report.compressions[0].stages[0], report.compressions[0].stages[-1]
    faster = f"{first.median_ms / last.median_ms:.2g} times as fast as {first.name} in {first.runtime}"
    if first.disturbed or last.disturbed:
        faster = "its latency was measured on a busy machine"
    note = f"{last.name}, {percent(last.accuracy)}, {faster}"
    name = "What ships" if not report.compressions[0].broken else "Last stage, which does not ship"
    return [Tile(name=name, value=size(last.size_bytes), note=note)]


def _accuracy_tile(group: Group, detail: Detail | None) -> Tile:
    name = f"{group.eval_set.capitalize()} accuracy"
    summary = group.accuracy
    if summary is None:
        done = max((run.events[-1]["epoch"] for run in group.runs if run.events), default=0)
        note = "not finished: no result yet, only the curves so far"
        return Tile(name="Epochs done", value=f"{done} of {group.runs[0].config['epochs']}", note=note)
    images = f"{detail.accuracy.total:,} images" if detail else "images whose number the folder does not hold"
    if summary.half_width is None:
        interval = interval_text(interval_of(group, detail))
        note = f"95 % interval {interval} (Wilson), " if interval else ""
        return Tile(name=name, value=percent(summary.mean), note=f"{note}n = {images}; 1 seed")
    note = f"± {100 * summary.half_width:.2f}: mean and 95 % interval (t) over n = {summary.n} seeds, {images} each"
    if summary.n == 2:
        note += f"; {OF_TWO}"
    return Tile(name=name, value=percent(summary.mean), note=note)


def _of_groups(report: Report) -> list[Tile]:
    finished = [group for group in report.groups if group.accuracy is not None]
    count = len(report.runs)
    found = []
    if finished:
        best = max(finished, key=lambda group: group.accuracy.mean if group.accuracy else 0)
        tile = _accuracy_tile(best, report.detail_of(best))
        picked = f"; picked as the highest of {len(finished)}, which flatters it" if len(finished) > 1 else ""
        found.append(Tile(name=f"Highest: {best.name}", value=tile.value, note=tile.note + picked))
        gain = next((gain for gain in report.gains if gain.group == best.name), None)
        if gain:
            rests = f"{gain.gain.n} seeds, paired" if gain.gain.n > 1 else "1 seed: no interval over seeds"
            found.append(
                Tile(name="Gain over labels alone", value=gain_text(replace(gain, on_images=None)), note=f"n = {rests}")
            )
    teachers = {detail.teacher_accuracy for detail in report.details if detail.teacher_accuracy}
    if len(teachers) == 1:
        of_teacher = teachers.pop()
        interval = interval_text(of_teacher.interval)
        note = f"95 % interval {interval}, n = {of_teacher.total:,} images"
        found.append(Tile(name="The teacher", value=percent(of_teacher.share), note=note))
    done = sum(len(group.finished) for group in report.groups)
    found.append(Tile(name="Runs", value=str(count), note=f"{len(report.groups)} ways to train, {done} runs finished"))
    return found


def gain_text(found: Gain) -> str:
    """As "+4.88 ± 0.41 points", or, of one seed, "+4.88 points (+4.0 to +5.8 over images)"."""
    half = found.gain.half_width
    spread = "" if half is None else f" ± {100 * half:.2f}"
    images = ""
    if found.on_images is not None:
        low, high = (f"{100 * end:+.1f}" for end in found.on_images.interval)
        images = f" ({low} to {high} over images)"
    return f"{100 * found.gain.mean:+.2f}{spread} points{images}".replace("-", "−")


def p_text(found: Gain) -> str:
    """The p of a gain: over seeds, or, of one seed, over images; a dash where there is none."""
    p_value = found.p_value if found.on_images is None else found.on_images.p_value
    if p_value is None:
        return "–"
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def compared(report: Report) -> Rows:
    """A row for each group that has a result, the highest mean first."""
    entries = []
    for series, group in enumerate(report.groups):
        summary = group.accuracy
        if summary is not None:
            interval = interval_of(group, report.detail_of(group))
            points = [run.accuracy for run in group.finished if run.accuracy is not None]
            entries.append((series, group, summary, interval, points))
    entries.sort(key=lambda entry: -entry[2].mean)
    ends = [value for *_, interval, points in entries for value in (*(interval or ()), *points)]
    scale = _Scale(ends, count=3)
    rows = [
        Row(
            name=group.name,
            series=series,
            text=percent(summary.mean) if summary.half_width is None else _spread(summary.mean, summary.half_width),
            note=f"n = {summary.n} seed{'' if summary.n == 1 else 's'}, {group.eval_set}",
            middle=scale.place(summary.mean),
            low=None if interval is None else scale.place(interval[0]),
            high=None if interval is None else scale.place(interval[1]),
            points=[scale.place(point) for point in points] if len(points) > 1 else [],
        )
        for series, group, summary, interval, points in entries
    ]
    return Rows(rows=rows, ticks=scale.ticks)


def class_rows(detail: Detail, series: int, limit: int = 20) -> Rows:
    """A row for each class, the lowest accuracy first; of more than ``limit`` classes, the lowest only."""
    shown = sorted((row for row in detail.classes if row.student.total), key=lambda row: row.student.share)[:limit]
    ends = [end for row in shown for end in row.student.interval]
    ends += [row.teacher.share for row in shown if row.teacher]
    scale = _Scale(ends, count=2)
    rows = [
        Row(
            name=row.name,
            series=series,
            text=percent(row.student.share, 1),
            note=f"n = {row.student.total:,}" + (f", teacher {percent(row.teacher.share, 1)}" if row.teacher else ""),
            middle=scale.place(row.student.share),
            low=scale.place(row.student.interval[0]),
            high=scale.place(row.student.interval[1]),
            other=scale.place(row.teacher.share) if row.teacher else None,
        )
        for row in shown
    ]
    return Rows(rows=rows, ticks=scale.ticks)


def picture(pixels: npt.NDArray[np.uint8]) -> str:
    """An image (C, H, W) as a PNG data URI, at most 96 pixels wide and high."""
    from PIL import Image

    image = Image.fromarray(pixels[0] if len(pixels) < 3 else pixels[:3].transpose(1, 2, 0))
    image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _spread(mean: float, half_width: float) -> str:
    return f"{100 * mean:.2f} ± {100 * half_width:.2f}{SPACE}%"


class _Scale:
    """From shares to per cent of the width, with a little room at both ends and about ``count`` round ticks."""

    def __init__(self, shares: Sequence[float], count: int):
        low, high = (min(shares), max(shares)) if shares else (0.0, 1.0)
        room = max(0.03 * (high - low), 0.004)
        self._low, self._high = max(0.0, low - room), min(1.0, high + room)
        step = self._step((self._high - self._low) / count)
        first = math.ceil(self._low / step - 1e-9)
        values = [number * step for number in range(first, math.floor(self._high / step + 1e-9) + 1)]
        digits = max(0, -math.floor(math.log10(100 * step) + 1e-9))
        self.ticks = [(self.place(value), f"{100 * value:.{digits}f}{SPACE}%") for value in values]

    def place(self, share: float) -> float:
        """Per cent of the width, 0 to 100."""
        return round(100 * (share - self._low) / (self._high - self._low), 2)

    @staticmethod
    def _step(most: float) -> float:
        """The largest of 1, 2, 5 times a power of ten that is at most ``most``."""
        power = 10.0 ** math.floor(math.log10(most) + 1e-9)
        return next(factor * power for factor in (5, 2, 1) if factor * power <= most * (1 + 1e-6))
