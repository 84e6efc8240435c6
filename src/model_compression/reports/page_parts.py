"""Parts of the report's page: headline figures, rows of intervals on a common scale, pictures."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from model_compression.core.metric import ACCURACY, Metric
from model_compression.core.text import NO_BREAK, count, duration, percent, percent_interval, size
from model_compression.reports.contents import Detail, Report
from model_compression.reports.groups import Gain, Group
from model_compression.reports.statistics import OF_TWO

_PICTURE_SIDE = 96  # pixels
_ROOM = 0.4  # at both ends of a scale at least, in shown units


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A headline figure: its name, its value, and what it rests on."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """An estimate on a scale: ``middle``, ``interval``, single ``points``, and a second estimate ``other`` beside it.

    ``text`` has the figures, ``note`` what they rest on.
    """

    name: str
    series: int
    text: str
    note: str
    middle: float
    interval: tuple[float, float] | None
    points: Sequence[float] = ()
    other: float | None = None


class Rows:
    """Rows on one scale with about ``count`` round ticks, and a little room at both ends."""

    def __init__(self, rows: Sequence[Row], metric: Metric, count: int):
        self.rows, self._factor = rows, metric.factor
        values = [value for row in rows for value in (*(row.interval or ()), *row.points)]
        values += [row.middle for row in rows] + [row.other for row in rows if row.other is not None]
        low, high = (self._factor * end for end in (min(values, default=0.0), max(values, default=1.0)))
        room = max(0.03 * (high - low), _ROOM)
        bounds = metric.bounded((low - room) / self._factor, (high + room) / self._factor)
        self._low, self._high = (self._factor * end for end in bounds)
        step = _round_step((self._high - self._low) / count)
        first, last = math.ceil(self._low / step - 1e-9), math.floor(self._high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        ticks = [number * step / self._factor for number in range(first, last + 1)]
        self.ticks = [(self.place(tick), metric.text(tick, digits, space=NO_BREAK)) for tick in ticks]

    def place(self, value: float) -> float:
        """Where a value is, in per cent of the width."""
        return round(100 * (self._factor * value - self._low) / (self._high - self._low), 2)


def _round_step(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is at most ``most``."""
    power = 10.0 ** math.floor(math.log10(most) + 1e-9)
    return next(factor * power for factor in (5, 2, 1) if factor * power <= most * (1 + 1e-6))


def tiles(report: Report) -> list[Tile]:
    """The headline figures: of one group its own, of several the best and its gain."""
    return _of_group(report, report.groups[0]) if len(report.groups) == 1 else _of_groups(report)


def _of_group(report: Report, group: Group) -> list[Tile]:
    detail = report.shipped or report.detail_of(group)
    found = [_result_tile(report, group)]
    if len(report.compressions) == 1:
        last = report.compressions[0].stages[-1]
        interval = report.interval_text(last.interval)
        note = f"of the last stage, {last.name} in {last.runtime}; 95 % interval {interval}"
        found = [
            Tile(name=f"Test {report.metric.label}", value=report.text(last.result), note=note),
            replace(found[0], name="Distilled"),
        ]
    if group.teacher_result is not None:
        of_teacher = detail.teacher_accuracy if detail else None
        interval = f"95 % interval {percent_interval(of_teacher.interval)}, " if of_teacher else ""
        value = report.text(group.teacher_result)
        found.append(Tile(name="Its teacher", value=value, note=f"{interval}the same images"))
    if detail and detail.agreement:
        same = detail.agreement.same
        note = f"of {same.total:,} images both put in the same class; 95 % interval {percent_interval(same.interval)}"
        found.append(Tile(name="Agreement", value=percent(same.share), note=note))
    if detail:
        of_seed = f", seed {detail.run.seed}" if len(group.runs) > 1 else ""
        note = f"expected calibration error in 15 bins, n = {detail.accuracy.total:,} images{of_seed}"
        found.append(Tile(name="Calibration", value=percent(detail.calibration.ece), note=note))
    return found + _cost_tiles(report, group)


def _cost_tiles(report: Report, group: Group) -> list[Tile]:
    found = _shipped_tiles(report)
    if group.size_bytes and not found:
        counted = f"{group.parameters:,} parameters, " if group.parameters else ""
        found.append(Tile(name="Size", value=size(group.size_bytes), note=f"{counted}its weights file"))
    seconds = group.mean("seconds")
    if seconds is not None:
        each = "" if len(group.finished) == 1 else f", mean of {len(group.finished)} runs"
        hardware = group.runs[0].environment
        where = hardware.get("gpu") or hardware.get("processor") or "the hardware named below"
        found.append(Tile(name="Training", value=duration(seconds), note=f"on {where}{each}"))
    return found


def _shipped_tiles(report: Report) -> list[Tile]:
    """The last stage of a single compression."""
    if len(report.compressions) != 1:
        return []
    compression = report.compressions[0]
    first, last = compression.stages[0], compression.stages[-1]
    faster = f"{first.median_ms / last.median_ms:.2g} times as fast as {first.name} in {first.runtime}"
    if first.disturbed or last.disturbed:
        faster = "its latency was measured on a busy machine"
    name = "Last stage, which does not ship" if compression.broken else "What ships"
    note = f"{last.name}, {report.text(last.result)}, {faster}"
    return [Tile(name=name, value=size(last.size_bytes), note=note)]


def _result_tile(report: Report, group: Group) -> Tile:
    name = f"{group.eval_set.capitalize()} {report.metric.label}"
    summary, detail = group.summary, report.detail_of(group)
    if summary is None:
        done, epochs = max(run.epochs_done for run in group.runs), group.runs[0].config["epochs"]
        note = "not finished: no result yet, only the curves so far"
        return Tile(name="Epochs done", value=f"{done} of {epochs}", note=note)
    images = f"{detail.accuracy.total:,} images" if detail else "images whose number the folder does not hold"
    if summary.half_width is None:
        interval = report.interval_text(report.interval_of(group))
        note = f"95 % interval {interval} (Wilson), " if interval else ""
        return Tile(name=name, value=report.text(summary.mean), note=f"{note}n = {images}; 1 seed")
    spread = report.metric.spread(summary.half_width).strip()
    note = f"{spread}: mean and 95 % interval (t) over n = {summary.n} seeds, {images} each"
    note += f"; {OF_TWO}" if summary.n == 2 else ""
    return Tile(name=name, value=report.text(summary.mean), note=note)


def _of_groups(report: Report) -> list[Tile]:
    metric, found = report.metric, []
    results = {group.name: summary.mean for _, group, summary in report.results}
    if results:
        best = min(results, key=lambda name: metric.order(results[name]))
        tile = _result_tile(report, next(group for group in report.groups if group.name == best))
        word = metric.best_word
        picked = f"; picked as the {word} of {len(results)}, which flatters it" if len(results) > 1 else ""
        found.append(Tile(name=f"{word.capitalize()}: {best}", value=tile.value, note=tile.note + picked))
        gain = next((gain for gain in report.gains if gain.group == best), None)
        if gain:
            rests = f"{gain.gain.n} seeds, paired" if gain.gain.n > 1 else "1 seed: no interval over seeds"
            value = gain_text(replace(gain, on_images=None), metric)
            found.append(Tile(name=f"Gain over {gain.baseline}", value=value, note=f"n = {rests}"))
    teachers = {group.teacher_result for group in report.groups} - {None}
    if len(teachers) == 1:
        of_teacher = next((detail.teacher_accuracy for detail in report.details if detail.teacher_accuracy), None)
        note = "of all recipes that have one"
        if of_teacher:
            note = f"95 % interval {percent_interval(of_teacher.interval)}, n = {of_teacher.total:,} images"
        found.append(Tile(name="The teacher", value=report.text(teachers.pop() or 0.0), note=note))
    done = sum(len(group.finished) for group in report.groups)
    note = f"{len(report.groups)} recipes, {done} runs finished"
    return [*found, Tile(name="Runs", value=str(len(report.runs)), note=note)]


def gain_text(found: Gain, metric: Metric) -> str:
    """As "+4.88 ± 0.41 points", or, of one seed, "+4.88 points (+4.0 to +5.8 over images)"."""
    images = ""
    if found.on_images is not None:
        low, high = (metric.number(end, max(metric.digits - 1, 0), "+") for end in found.on_images.interval)
        images = f" ({low} to {high} over images)"
    return f"{metric.points(found.gain.mean, found.gain.half_width)}{images}".replace("-", "−")


def p_text(found: Gain) -> str:
    """The p of a gain: over seeds, or, of one seed, over images; a dash where there is none."""
    p_value = found.p_value if found.on_images is None else found.on_images.p_value
    if p_value is None:
        return "–"
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def result_rows(report: Report) -> Rows:
    """A row for each group that has a result, the best mean first."""
    rows = [
        Row(
            name=group.name,
            series=series,
            text=report.text(summary.mean, summary.half_width),
            note=f"n = {count(summary.n, 'seed')}, {group.eval_set}",
            middle=summary.mean,
            interval=report.interval_of(group),
            points=[*group.values.values()] if summary.n > 1 else (),
        )
        for series, group, summary in report.results
    ]
    return Rows(sorted(rows, key=lambda row: report.metric.order(row.middle)), report.metric, count=3)


def class_rows(detail: Detail, series: int, limit: int = 20) -> Rows:
    """A row for each class, the lowest accuracy first; of more than ``limit`` classes, the lowest only."""
    shown = sorted((row for row in detail.classes if row.student.total), key=lambda row: row.student.share)[:limit]
    rows = [
        Row(
            name=row.name,
            series=series,
            text=percent(row.student.share, 1),
            note=f"n = {row.student.total:,}" + (f", teacher {percent(row.teacher.share, 1)}" if row.teacher else ""),
            middle=row.student.share,
            interval=row.student.interval,
            other=row.teacher.share if row.teacher else None,
        )
        for row in shown
    ]
    return Rows(rows, ACCURACY, count=2)


def picture(pixels: npt.NDArray[np.uint8]) -> str:
    """An image (C, H, W) as a PNG data URI, at most 96 pixels wide and high."""
    from PIL import Image

    image = Image.fromarray(pixels[0] if len(pixels) < 3 else pixels[:3].transpose(1, 2, 0))
    image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
