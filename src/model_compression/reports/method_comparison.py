"""What a comparison of methods found: figures of each over its seeds, and the gains with their significance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_compression.reports.significance import LEVEL, PairedGain, holm, paired_gain
from model_compression.reports.statistics import Summary, summarise

LABELS = "labels"
BASELINES = (LABELS, "kd")

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method over its seeds: accuracy, and means of the rest, None where no run has it.

    ``agreement`` with the teacher, ``accuracy`` and ``ece`` are shares, ``nll`` is in nats. ``label_share`` is what the
    weighted label loss is of the whole in the last epoch, 0 to 1; ``parameters`` are of the network that ships.
    """

    arm: str
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    accuracy: Summary
    agreement: float | None
    label_share: float | None
    parameters: int | None
    ece: float
    nll: float
    seconds_per_epoch: float | None
    peak_memory_bytes: float | None
    peak_gpu_memory_bytes: float | None


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What ``arm`` gains over ``baseline`` with the seeds that both have; p is None where nothing could be tested."""

    arm: str
    baseline: str
    gain: PairedGain
    corrected_p: float | None
    significant: bool


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rows by accuracy, best first; gains; methods that cannot run and runs that failed, each with the reason.

    ``eval_set`` is what accuracies are of, "test" or "validation". ``num_tests`` is how many tests were made, which
    the p values are corrected for.
    """

    eval_set: str
    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    num_tests: int
    teacher: str | None
    teacher_accuracy: float | None
    not_run: Mapping[str, str]
    failed: Mapping[str, str]

    def gain(self, arm: str, baseline: str) -> Gain | None:
        """The gain of one over the other, if both have a seed in common."""
        return next((gain for gain in self.gains if (gain.arm, gain.baseline) == (arm, baseline)), None)


def compare(records: Records) -> Comparison:
    """The comparison that ``records`` make up, of one recipe."""
    done = [record for record in records if "metrics" in record]
    eval_set = "validation" if any("validation_accuracy" in record["metrics"] for record in done) else "test"
    by_arm: dict[str, list[Mapping[str, Any]]] = {}
    for record in sorted(done, key=lambda record: record["config"]["seed"]):
        by_arm.setdefault(record["arm"], []).append(record)
    rows = sorted((_row(arm, found, eval_set) for arm, found in by_arm.items()), key=lambda row: -row.accuracy.mean)
    gains = _gains(rows)
    taught = [record for record in done if record["config"]["teacher"]]
    return Comparison(
        eval_set=eval_set,
        rows=tuple(rows),
        gains=gains,
        num_tests=sum(gain.gain.p_value is not None for gain in gains),
        teacher=taught[0]["config"]["teacher"]["name"] if taught else None,
        teacher_accuracy=taught[0]["metrics"][f"teacher_{eval_set}_accuracy"] if taught else None,
        not_run={r["arm"]: r["not_run"] for r in records if "not_run" in r and r["arm"] not in by_arm},
        failed={f"{r['arm']}, seed {r['config']['seed']}": r["failed"] for r in records if "failed" in r},
    )


def _row(arm: str, records: Records, eval_set: str) -> Row:
    accuracies = tuple(record["metrics"][f"{eval_set}_accuracy"] for record in records)
    metrics = [record["metrics"] for record in records]
    return Row(
        arm=arm,
        seeds=tuple(record["config"]["seed"] for record in records),
        accuracies=accuracies,
        accuracy=summarise(accuracies),
        agreement=_mean(metrics, "teacher_agreement"),
        label_share=_mean(records, "label_share"),
        parameters=metrics[0].get("parameters"),
        ece=summarise([values[f"{eval_set}_ece"] for values in metrics]).mean,
        nll=summarise([values[f"{eval_set}_nll"] for values in metrics]).mean,
        seconds_per_epoch=_mean(records, "seconds_per_epoch"),
        peak_memory_bytes=_mean(records, "peak_memory_bytes"),
        peak_gpu_memory_bytes=_mean(records, "peak_gpu_memory_bytes"),
    )


def _mean(values: Sequence[Mapping[str, Any]], key: str) -> float | None:
    found = [value[key] for value in values if value.get(key) is not None]
    return summarise(found).mean if found else None


def _gains(rows: Sequence[Row]) -> tuple[Gain, ...]:
    """Of every row over each baseline but itself, and none of label-only over a method; corrected together."""
    by_arm = {row.arm: dict(zip(row.seeds, row.accuracies, strict=True)) for row in rows}
    found: list[tuple[str, str, PairedGain]] = []
    for baseline in BASELINES:
        base = by_arm.get(baseline, {})
        for arm, own in by_arm.items():
            common = [seed for seed in own if seed in base]
            if arm not in (baseline, LABELS) and common:
                gain = paired_gain([own[seed] for seed in common], [base[seed] for seed in common])
                found.append((arm, baseline, gain))
    p_values = [gain.p_value for _, _, gain in found if gain.p_value is not None]
    corrected = iter(holm(p_values))
    gains = []
    for arm, baseline, gain in found:
        p = None if gain.p_value is None else next(corrected)
        significant = p is not None and p < LEVEL
        gains.append(Gain(arm=arm, baseline=baseline, gain=gain, corrected_p=p, significant=significant))
    return tuple(gains)
