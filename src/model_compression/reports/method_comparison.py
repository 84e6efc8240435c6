"""Compares methods from records: the figures of each over its seeds, and the gains with their significance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_compression.core.metric import DEFAULT_METRIC, Metric, primary_metric
from model_compression.reports.statistics import LEVEL, PairedGain, Summary, holm, paired_gain, summarise

LABELS = "labels"
DEFAULT = "default"
"""The arm of a search that has the settings of before."""
BASELINES = (LABELS, "kd", "align", DEFAULT)

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method over its seeds: ``values`` of the primary metric, and means of the rest, None where no run has it.

    ``agreement`` with the teacher and ``ece`` are shares, ``nll`` is in nats. ``label_share`` is the share of the
    weighted label loss in the last epoch's loss, 0 to 1; ``parameters`` are of the network that ships.
    """

    arm: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    summary: Summary
    agreement: float | None
    label_share: float | None
    parameters: int | None
    ece: float | None
    nll: float | None
    seconds_per_epoch: float | None
    peak_memory_bytes: float | None
    peak_gpu_memory_bytes: float | None


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The gain of ``arm`` over ``baseline`` with the seeds that both have; p is None where nothing could be tested."""

    arm: str
    baseline: str
    gain: PairedGain
    corrected_p: float | None
    significant: bool


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows by the primary metric, best first; gains; methods that cannot run and failed runs, each with the reason.

    ``eval_set`` names the images that metrics are of, "test" or "validation". The p values are corrected for
    ``num_tests`` tests.
    """

    metric: Metric
    eval_set: str
    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    num_tests: int
    teacher: str | None
    teacher_result: float | None
    not_run: Mapping[str, str]
    failed: Mapping[str, str]

    def gain(self, arm: str, baseline: str) -> Gain | None:
        """The gain of one over the other, if both have a seed in common."""
        return next((gain for gain in self.gains if (gain.arm, gain.baseline) == (arm, baseline)), None)


def compare(records: Records) -> Comparison:
    """The comparison that ``records`` make up, of one recipe."""
    done = [record for record in records if "metrics" in record]
    metric = primary_metric(done[0]["metrics"]) if done else DEFAULT_METRIC
    eval_set = "validation" if any(metric.key("validation") in record["metrics"] for record in done) else "test"
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for record in sorted(done, key=lambda record: record["config"]["seed"]):
        by_arm.setdefault(record["arm"], []).append(record)
    rows = sorted(
        (_row(arm, found, metric, eval_set) for arm, found in by_arm.items()),
        key=lambda row: metric.order(row.summary.mean),
    )
    gains = _gains(rows, metric)
    taught = [record for record in done if record["config"].get("teacher")]
    return Comparison(
        metric=metric,
        eval_set=eval_set,
        rows=tuple(rows),
        gains=gains,
        num_tests=sum(gain.gain.p_value is not None for gain in gains),
        teacher=taught[0]["config"]["teacher"]["name"] if taught else None,
        teacher_result=taught[0]["metrics"].get(f"teacher_{metric.key(eval_set)}") if taught else None,
        not_run={r["arm"]: r["not_run"] for r in records if "not_run" in r and r["arm"] not in by_arm},
        failed={f"{r['arm']}, seed {r['config']['seed']}": r["failed"] for r in records if "failed" in r},
    )


def _row(arm: str, records: Records, metric: Metric, eval_set: str) -> Row:
    metrics = [record["metrics"] for record in records]
    values = tuple(found[metric.key(eval_set)] for found in metrics)
    return Row(
        arm=arm,
        seeds=tuple(record["config"]["seed"] for record in records),
        values=values,
        summary=summarise(values),
        agreement=_mean(metrics, "teacher_agreement"),
        label_share=_mean(records, "label_share"),
        parameters=metrics[0].get("parameters"),
        ece=_mean(metrics, f"{eval_set}_ece"),
        nll=_mean(metrics, f"{eval_set}_nll"),
        seconds_per_epoch=_mean(records, "seconds_per_epoch"),
        peak_memory_bytes=_mean(records, "peak_memory_bytes"),
        peak_gpu_memory_bytes=_mean(records, "peak_gpu_memory_bytes"),
    )


def _mean(values: Sequence[Mapping[str, Any]], key: str) -> float | None:
    found = [value[key] for value in values if value.get(key) is not None]
    return summarise(found).mean if found else None


def _gains(rows: Sequence[Row], metric: Metric) -> tuple[Gain, ...]:
    """Of every row over each baseline but itself, and none of label-only over a method; corrected together."""
    by_arm = {row.arm: dict(zip(row.seeds, row.values, strict=True)) for row in rows}
    found: list[tuple[str, str, PairedGain]] = []
    for baseline in BASELINES:
        base = by_arm.get(baseline, {})
        for arm, own in by_arm.items():
            common = [seed for seed in own if seed in base]
            if arm not in (baseline, LABELS) and common:
                gain = paired_gain([own[seed] for seed in common], [base[seed] for seed in common], metric)
                found.append((arm, baseline, gain))
    corrected = holm([gain.p_value for _, _, gain in found])
    return tuple(
        Gain(arm=arm, baseline=baseline, gain=gain, corrected_p=p, significant=p is not None and p < LEVEL)
        for (arm, baseline, gain), p in zip(found, corrected, strict=True)
    )
