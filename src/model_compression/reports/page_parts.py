"""Parts of the report's page: headline figures, rows of intervals on a common scale, pictures."""

from dataclasses import replace

from model_compression.core.metric import Metric
from model_compression.core.text import count, duration, size
from model_compression.reports.contents import Report
from model_compression.reports.groups import Gain, Group
from model_compression.reports.rows import Row, Rows, Tile
from model_compression.reports.statistics import OF_TWO

_PICTURE_SIDE = 96  # pixels
_ROOM = 0.4  # at both ends of a scale at least, in shown units


def tiles(report: Report) -> list[Tile]:
    """The headline figures: what ships, with the run before; of one group its own, of several the best and its gain."""
    group = report.groups[0] if len(report.groups) == 1 else _group_that_ships(report)
    return _of_groups(report) if group is None else _of_group(report, group)


def _group_that_ships(report: Report) -> Group | None:
    """The group with the run that ships, where one of several does, as the last of a pruning."""
    folder = report.headline.file.parent if report.headline else None
    return next((group for group in report.groups if any(run.path == folder for run in group.runs)), None)


def _of_group(report: Report, group: Group) -> list[Tile]:
    detail = report.shipped or report.detail_of(group)
    found = [_result_tile(report, group)]
    ships = report.headline
    if ships is not None and ships.before:
        interval = f"; 95 % interval {report.interval_text(ships.interval)}" if ships.interval else ""
        found = [
            Tile(
                name=f"Test {report.metric.label}", value=report.text(ships.result), note=f"of {ships.what}{interval}"
            ),
            replace(found[0], name=ships.before),
        ]
    of_run = "; of the run, not of the file that ships" if ships and ships.before and not report.shipped else ""
    if group.teacher_result is not None:
        of_teacher = detail.found.teacher_interval if detail else None
        interval = f"95 % interval {report.interval_text(of_teacher)}, " if of_teacher else ""
        value = report.text(group.teacher_result)
        found.append(Tile(name="Its teacher", value=value, note=f"{interval}the same {report.noun}"))
    if detail:
        found += detail.found.tiles(f", seed {detail.run.seed}" if len(group.runs) > 1 else "", of_run)
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
    """The size of the file that ships, where it is none of the runs."""
    ships = report.headline
    if ships is None or not ships.before:
        return []
    name = "Last stage, which does not ship" if ships.broken else "What ships"
    return [Tile(name=name, value=size(ships.size_bytes), note=ships.note)]


def _result_tile(report: Report, group: Group) -> Tile:
    name = f"{group.eval_set.capitalize()} {report.metric.label}"
    summary, detail = group.summary, report.detail_of(group)
    if summary is None:
        done, epochs = max(run.epochs_done for run in group.runs), group.runs[0].config["epochs"]
        note = "not finished: no result yet, only the curves so far"
        return Tile(name="Epochs done", value=f"{done} of {epochs}", note=note)
    images = (
        f"{detail.found.samples:,} {report.noun}" if detail else f"{report.noun} whose number the folder does not hold"
    )
    if summary.half_width is None:
        interval = report.interval_text(report.interval_of(group))
        by = f" ({report.section.interval_by})" if report.section and report.section.interval_by else ""
        note = f"95 % interval {interval}{by}, " if interval else ""
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
        of_teacher = next((detail.found for detail in report.details if detail.found.teacher_interval), None)
        note = "of all recipes that have one"
        if of_teacher:
            interval = report.interval_text(of_teacher.teacher_interval)
            note = f"95 % interval {interval}, n = {of_teacher.samples:,} {report.noun}"
        found.append(Tile(name="The teacher", value=report.text(teachers.pop() or 0.0), note=note))
    done = sum(len(group.finished) for group in report.groups)
    note = f"{len(report.groups)} recipes, {done} runs finished"
    return [*found, Tile(name="Runs", value=str(len(report.runs)), note=note)]


def gain_text(found: Gain, metric: Metric) -> str:
    """As "+4.88 ± 0.41 points", or, of one seed, "+4.88 points (+4.0 to +5.8 over samples)"."""
    images = ""
    if found.on_images is not None:
        low, high = (metric.number(end, max(metric.digits - 1, 0), "+") for end in found.on_images.interval)
        images = f" ({low} to {high} over samples)"
    return f"{metric.points(found.gain.mean, found.gain.half_width)}{images}".replace("-", "−")


def p_text(found: Gain) -> str:
    """The p of a gain: over seeds, or, of one seed, over samples; a dash where there is none."""
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
