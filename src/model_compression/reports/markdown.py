"""The report as Markdown: a table for a README with its intervals, the gains, and the commands that repeat the runs."""

from model_compression.core.text import NO_BREAK, count, duration, escape_markdown, markdown_table, size
from model_compression.reports.compression_stages import markdown as stages_table
from model_compression.reports.contents import Report
from model_compression.reports.page_parts import gain_text, p_text
from model_compression.reports.words import command, recipe_in_words

_OF_SEEDS = "Results are those of the last epoch: the mean over seeds with the 95 % interval of the t distribution"
_GAINS = "Gains over training on labels only, paired by seed"
_UPWARDS = "a gain above zero is an improvement"


def to_markdown(report: Report) -> str:
    """The figures of the report as a page of Markdown. Text from files cannot become markup."""
    note = f"{_OF_SEEDS}; {report.section.note}." if report.section else f"{_OF_SEEDS}."
    parts = [
        f"# {escape_markdown(report.title)}",
        *_ships(report),
        _table(report),
        *_gains(report),
        *_unfinished(report),
        note,
    ]
    return "\n\n".join([*parts, *_compressions(report), *_recipes(report)]).replace(NO_BREAK, " ") + "\n"


def _ships(report: Report) -> list[str]:
    lines = []
    for one in report.ships:
        interval = f" (95 % interval {report.interval_text(one.interval)})" if one.interval else ""
        words = "The last stage, which does not ship" if one.broken else "What ships"
        lines.append(
            f"**{words}:** {escape_markdown(str(one.file))}, {report.text(one.result)}{interval}, "
            f"{size(one.size_bytes)}{f'; {one.note}' if one.note else ''}."
        )
    return lines


def _table(report: Report) -> str:
    further = report.section.columns if report.section else ()
    head = ["", report.metric.label, "95 % interval", "n", "teacher", *further, "weights file", "training"]
    rows = []
    for _, group, summary in report.results:
        detail, seconds = report.detail_of(group), group.mean("seconds")
        images = f", {detail.found.samples:,} {group.eval_set} {report.noun}" if detail else ""
        columns = detail.found.columns if detail else {}
        rows.append(
            [
                escape_markdown(group.name),
                report.text(summary.mean),
                report.interval_text(report.interval_of(group)) or "–",
                count(summary.n, "seed") + images,
                "–" if group.teacher_result is None else report.text(group.teacher_result),
                *(columns.get(name, "–") for name in further),
                size(group.size_bytes) if group.size_bytes else "–",
                "–" if seconds is None else duration(seconds),
            ]
        )
    return markdown_table(head, rows)


def _gains(report: Report) -> list[str]:
    lines = []
    for gain in report.gains:
        p_value = p_text(gain)
        tested = "" if p_value == "–" else f", p {p_value}" if "<" in p_value else f", p = {p_value}"
        names = f"{escape_markdown(gain.group)} over {escape_markdown(gain.baseline)}"
        lines.append(f"- {names}: {gain_text(gain, report.metric)} (n = {count(gain.gain.n, 'seed')}{tested})")
    heading = f"{_GAINS}; {report.section.gains_note if report.section else _UPWARDS}:"
    return ["\n".join([heading, "", *lines])] if lines else []


def _unfinished(report: Report) -> list[str]:
    lines = [f"Left out: {escape_markdown(reason)}." for reason in report.left_out]
    lines += [escape_markdown(report.manifest_warning)] if report.manifest_warning else []
    return lines + [
        f"{escape_markdown(str(run.path))} is not finished: {run.epochs_done} of {run.config['epochs']} epochs."
        for run in report.runs
        if run.metrics is None
    ]


def _compressions(report: Report) -> list[str]:
    parts = []
    for found in report.compressions:
        path = escape_markdown(str(found.path))
        parts.append(f"From the student to the file that ships, {path}; * is on the Pareto front:")
        parts.append(stages_table(found.stages, found.threads, found.metric).rstrip())
        parts += [f"The budget is not kept: {escape_markdown(fault)}." for fault in found.broken]
    return parts


def _recipes(report: Report) -> list[str]:
    parts = []
    for group in report.groups:
        words = "; ".join(f"{name}: {escape_markdown(text)}" for name, text in recipe_in_words(group.recipe))
        parts.append(f"**{escape_markdown(group.name)}** – {words}\n\n```sh\n{command(group)}\n```")
    return parts
