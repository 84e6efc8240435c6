"""The report as Markdown: a table for a README, with its n and its intervals, and the commands."""

from model_compression.core.text import duration, escape_markdown, markdown_table, size
from model_compression.reports.compression_stages import markdown as stages_table
from model_compression.reports.contents import Report, interval_of
from model_compression.reports.page_parts import SPACE, gain_text, interval_text, p_text, percent
from model_compression.reports.words import command, recipe_in_words

_NOTES = (
    "Accuracy is that of the last epoch: its mean over seeds with the 95 % interval of the t distribution; with one "
    "seed, the interval of that network over images (Wilson), which says nothing of other seeds. Teacher, agreement "
    "and expected calibration error (15 bins) are those of the smallest seed."
)
_GAINS = (
    "Gains over labels alone, paired by seed; with one seed, interval (Agresti & Min) and p (McNemar) are those of the "
    "two networks over the same images:"
)


def to_markdown(report: Report) -> str:
    """The report's figures as a page of Markdown. Text from files cannot become markup."""
    parts = [f"# {escape_markdown(report.title)}", _table(report), *_gains(report), *_unfinished(report), _NOTES]
    return "\n\n".join([*parts, *_compressions(report), *_recipes(report)]).replace(SPACE, " ") + "\n"


def _table(report: Report) -> str:
    head = ["", "accuracy", "95 % interval", "n", "teacher", "agrees", "ECE", "weights file", "training"]
    rows = []
    costs = {cost.group: cost for cost in report.costs}
    for group in report.groups:
        summary, detail = group.accuracy, report.detail_of(group)
        if summary is None:
            continue
        cost = costs[group.name]
        seconds = [run.metrics["seconds"] for run in group.finished if run.metrics and "seconds" in run.metrics]
        rows.append(
            [
                escape_markdown(group.name),
                percent(summary.mean),
                interval_text(interval_of(group, detail)) or "–",
                f"{summary.n} seed{'' if summary.n == 1 else 's'}"
                + (f", {detail.accuracy.total:,} {group.eval_set} images" if detail else ""),
                percent(detail.teacher_accuracy.share) if detail and detail.teacher_accuracy else "–",
                percent(detail.agreement.same.share) if detail and detail.agreement else "–",
                percent(detail.calibration.ece) if detail else "–",
                size(cost.size_bytes) if cost.size_bytes else "–",
                duration(sum(seconds) / len(seconds)) if seconds else "–",
            ]
        )
    return markdown_table(head, rows)


def _gains(report: Report) -> list[str]:
    lines = []
    for gain in report.gains:
        n = f"n = {gain.gain.n} seed{'' if gain.gain.n == 1 else 's'}"
        p_value = p_text(gain)
        tested = "" if p_value == "–" else f", p {p_value}" if "<" in p_value else f", p = {p_value}"
        lines.append(
            f"- {escape_markdown(gain.group)} over {escape_markdown(gain.baseline)}: {gain_text(gain)} ({n}{tested})"
        )
    return ["\n".join([_GAINS, "", *lines])] if lines else []


def _unfinished(report: Report) -> list[str]:
    lines = [f"Left out: {escape_markdown(said)}." for said in report.left_out]
    lines += [escape_markdown(report.unsealed)] if report.unsealed else []
    return lines + [
        f"{escape_markdown(str(run.path))} is not finished: {run.events[-1]['epoch'] if run.events else 0} of "
        f"{run.config['epochs']} epochs."
        for run in report.runs
        if run.metrics is None
    ]


def _compressions(report: Report) -> list[str]:
    parts = []
    for found in report.compressions:
        parts.append(
            f"From the student to the file that ships, {escape_markdown(str(found.path))}; * is on the Pareto front:"
        )
        parts.append(stages_table(found.stages, found.threads).rstrip())
        parts += [f"The budget is not kept: {escape_markdown(fault)}." for fault in found.broken]
    return parts


def _recipes(report: Report) -> list[str]:
    parts = []
    for group in report.groups:
        words = "; ".join(f"{name}: {escape_markdown(text)}" for name, text in recipe_in_words(group.recipe))
        parts.append(f"**{escape_markdown(group.name)}** – {words}\n\n```sh\n{command(group)}\n```")
    return parts
