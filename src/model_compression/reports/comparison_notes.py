"""What can be concluded from a comparison of methods, and what cannot, in sentences."""

from collections.abc import Mapping
from typing import Any

from model_compression.core.text import count
from model_compression.reports.method_comparison import LABELS, Comparison
from model_compression.reports.significance import LEVEL, needed_statistic, sign_test_floor
from model_compression.reports.statistics import OF_TWO

_FAR, _LITTLE = 0.02, 0.5  # of accuracy below label-only, and of the loss


def notes(comparison: Comparison) -> list[str]:
    """How to read the tables, given how many seeds there are."""
    counts = sorted({row.accuracy.n for row in comparison.rows})
    if not counts:
        return []
    found = [
        f"Rows are ordered by the mean {comparison.eval_set} accuracy of the last epoch over n seeds; ± is the "
        "half-width of its 95 % interval (t distribution), the other columns are means. ECE: 15 bins. NLL: nats. "
        "s/epoch: median of a run's epochs. MiB: the most memory that a run's process held."
    ]
    if counts[0] == 1:
        found.append(
            "n = 1: no interval and no test. The order of such rows may be another with the next seed; nothing can be "
            "concluded from it."
        )
    if 2 in counts:
        found.append(f"{OF_TWO}.")
    found += _of_sizes(comparison)
    found += _of_harm(comparison)
    if comparison.num_tests:
        found += _of_tests(comparison)
    if counts[0] != counts[-1]:
        found.append(
            "Rows differ in n. If those with more seeds were picked for their first results, these flatter them; the "
            "correction does not know of that: fresh seeds in a folder of their own (--seed, --out) are free of it."
        )
    undecided = [g for g in comparison.gains if g.gain.n > 1 and g.gain.p_value is None]
    if undecided:
        names = ", ".join(f"{gain.arm} over {gain.baseline}" for gain in undecided)
        found.append(f"No p value where the gain is the same with all seeds, so that its spread is unknown: {names}.")
    return found


def _of_sizes(comparison: Comparison) -> list[str]:
    """Methods whose network is another one than the student that learns from labels."""
    alone = next((row.parameters for row in comparison.rows if row.arm == LABELS), None)
    others = [row for row in comparison.rows if row.parameters and alone and row.parameters != alone]
    return [
        f"{row.arm} is no like for like: what ships has {row.parameters:,} parameters, the student alone {alone:,}."
        for row in others
    ]


def _of_harm(comparison: Comparison) -> list[str]:
    """Methods that are far below label-only because they hardly let the labels count."""
    alone = next((row.accuracy.mean for row in comparison.rows if row.arm == LABELS), None)
    if alone is None:
        return []
    shares = {
        row.arm: row.label_share
        for row in comparison.rows
        if row.label_share and row.label_share < _LITTLE and row.accuracy.mean < alone - _FAR
    }
    if not shares:
        return []
    named = ", ".join(f"{arm} {share:.1%}" for arm, share in shares.items())
    return [
        f"More than {100 * _FAR:g} points below label-only, while the label loss is but this share of the loss in the "
        f"last epoch: {named}. Their weights were found with longer training and other networks; a tenth is worth a "
        "try, by --method-weight METHOD.TERM=W in a folder of its own (--out); `methods METHOD` names the terms."
    ]


def _of_tests(comparison: Comparison) -> list[str]:
    tests = comparison.num_tests
    pairs = sorted({gain.gain.n for gain in comparison.gains if gain.gain.p_value is not None})
    found = [
        f"Gains are paired by seed; their ± is the 95 % interval of each gain alone. p: two-sided paired t test, "
        f"corrected by Holm's method for all {tests} tests made; * marks p < {LEVEL}."
    ]
    for n in pairs:
        freedom = "1 degree" if n == 2 else f"{n - 1} degrees"
        found.append(
            f"With n = {n} pairs the t test has {freedom} of freedom: the clearest gain of {tests} is significant from "
            f"{needed_statistic(n, tests):,.1f} standard errors on. That rests on gains being normally distributed; by "
            f"their signs alone {n} pairs give no p below {sign_test_floor(n):.2g}, before any correction."
        )
    if not any(gain.significant for gain in comparison.gains):
        found.append("No gain is significant. That is no evidence of equality: more seeds would tell.")
    return found


def recipe_line(record: Mapping[str, Any]) -> str:
    """What all runs had in common, and where they ran, from one record."""
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
