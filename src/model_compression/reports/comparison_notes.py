"""Notes on what can be concluded from a comparison of methods, and what cannot."""

from collections.abc import Mapping
from typing import Any

from model_compression.core.options import setting
from model_compression.core.text import count
from model_compression.reports.method_comparison import LABELS, Comparison
from model_compression.reports.statistics import LEVEL, OF_TWO, needed_statistic, sign_test_floor

_FAR, _LITTLE = 0.02, 0.5  # of accuracy below label-only, and of the loss


def notes(comparison: Comparison) -> list[str]:
    """How to read the tables, given how many seeds there are."""
    counts, metric = sorted({row.summary.n for row in comparison.rows}), comparison.metric
    if not counts:
        return []
    found = [
        f"Rows are ordered by the mean {comparison.eval_set} {metric.label} of the last epoch over n seeds, "
        f"{metric.best_word} first; ± is the half-width of its 95 % interval (t distribution), the other columns are "
        "means. ECE: 15 bins. NLL: nats. s/epoch: median of a run's epochs. MiB: peak memory of a run's process."
    ]
    if counts[0] == 1:
        found.append(
            "n = 1: no interval and no test. Another seed may order such rows differently: draw no conclusion from "
            "their order."
        )
    if 2 in counts:
        found.append(f"{OF_TWO}.")
    found += _of_sizes(comparison)
    found += _of_harm(comparison)
    if comparison.num_tests:
        found += _of_tests(comparison)
    if counts[0] != counts[-1]:
        found.append(
            "Rows differ in n. If rows were given more seeds because their first results were good, those results "
            "flatter them, and the correction cannot know it. Use fresh seeds in another folder."
        )
    undecided = [g for g in comparison.gains if g.gain.n > 1 and g.gain.p_value is None]
    if undecided:
        names = ", ".join(f"{gain.arm} over {gain.baseline}" for gain in undecided)
        found.append(f"No p value where all seeds give the same gain, so that its spread is unknown: {names}.")
    return found


def _of_sizes(comparison: Comparison) -> list[str]:
    """Methods whose network differs from the student that is trained on labels only."""
    alone = next((row.parameters for row in comparison.rows if row.arm == LABELS), None)
    others = [row for row in comparison.rows if row.parameters and alone and row.parameters != alone]
    return [
        f"{row.arm} is not comparable in size: it ships {row.parameters:,} parameters, the student alone {alone:,}."
        for row in others
    ]


def _of_harm(comparison: Comparison) -> list[str]:
    """Methods that are far below label-only because the labels have little weight in their loss."""
    alone = next((row.summary.mean for row in comparison.rows if row.arm == LABELS), None)
    if alone is None or not comparison.metric.is_share:
        return []
    shares = {
        row.arm: row.label_share
        for row in comparison.rows
        if row.label_share and row.label_share < _LITTLE and row.summary.mean < alone - _FAR
    }
    if not shares:
        return []
    named = ", ".join(f"{arm} {share:.1%}" for arm, share in shares.items())
    return [
        f"More than {100 * _FAR:g} points below label-only, and the label loss is only this share of the loss in the "
        f"last epoch: {named}. Their weights were tuned for longer training and other networks. Try a tenth of them, "
        f"with {setting('method_weight', 'METHOD.TERM=W')} and another folder; `methods METHOD` names the terms."
    ]


def _of_tests(comparison: Comparison) -> list[str]:
    tests, metric = comparison.num_tests, comparison.metric
    direction = "" if metric.higher_is_better else f", and above zero where the {metric.label} is lower"
    pairs = sorted({gain.gain.n for gain in comparison.gains if gain.gain.p_value is not None})
    found = [
        f"Gains are paired by seed{direction}; their ± is the 95 % interval of each gain alone. p: two-sided paired "
        f"t test, corrected by Holm's method for all {tests} tests; * marks p < {LEVEL}."
    ]
    for n in pairs:
        freedom = "1 degree" if n == 2 else f"{n - 1} degrees"
        found.append(
            f"With n = {n} pairs the t test has {freedom} of freedom: the clearest gain of {tests} is significant from "
            f"{needed_statistic(n, tests):,.1f} standard errors on. That rests on gains being normally distributed; by "
            f"their signs alone {n} pairs give no p below {sign_test_floor(n):.2g}, before any correction."
        )
    if not any(gain.significant for gain in comparison.gains):
        found.append("No gain is significant. This does not show that methods are equal: use more seeds.")
    return found


def recipe_line(record: Mapping[str, Any]) -> str:
    """The common recipe and hardware of all runs, from one record."""
    config, environment = record["config"], record["environment"]
    data, optim = config["data"], config["optim"]
    parts = [
        f"{config['student']['name']} on {data['name']}",
        count(config["epochs"], "epoch"),
        f"batch {config['batch_size']}",
        f"{optim['optimizer']}, rate {optim['lr']:g}, {optim['schedule']}, weight decay {optim['weight_decay']:g}",
        f"augmentation {data['augmentation']}",
        f"label smoothing {config['label_smoothing']:g}" if config["label_smoothing"] else "",
        f"{data['validation']} training images held out" if data["validation"] else "",
        record["metrics"]["precision"],
        environment["gpu"] or f"threads: {environment['threads']} of {environment['processor']}",
        f"torch {environment['torch']}",
    ]
    return "; ".join(part for part in parts if part)
