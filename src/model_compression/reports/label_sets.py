"""Figures of answers with several classes a sample, of logits (N, K) and labels (N, K) of 0 and 1: in float64."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_compression.reports.answers import BINS, Bin, Calibration
from model_compression.reports.statistics import Proportion

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
DEFAULT_THRESHOLD = 0.5
_LEAST, _MOST = 0.01, 0.99  # thresholds that are chosen
_DRAWS = 20
_FEW = 5  # samples with a class, and without, below which nothing is chosen


@dataclass(frozen=True, kw_only=True)
class LabelFigures:
    """Of one class: average precision, F1, precision and recall at ``threshold``, 0 to 1; ``count`` samples have it.

    Average precision and recall are NaN where no sample has the class, precision where none is predicted to have it.
    """

    name: str
    count: int
    threshold: float
    average_precision: float
    f1: float
    precision: float
    recall: float


def sigmoid(logits: npt.NDArray[np.floating]) -> Floats:
    """Probabilities (N, K), in float64."""
    from scipy.special import expit

    found: Floats = expit(logits.astype(np.float64))
    return found


def chosen(logits: npt.NDArray[np.floating], thresholds: Sequence[float] = ()) -> Bools:
    """(N, K) whether each class is predicted: its probability is at least its threshold, by default one half."""
    bounds = np.asarray(thresholds or [DEFAULT_THRESHOLD] * logits.shape[1], dtype=np.float64)
    found: Bools = logits.astype(np.float64) >= np.log(bounds) - np.log1p(-bounds)
    return found


def average_precisions(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Floats:
    """(K,) Σ (recall_n − recall_{n−1}) · precision_n over the distinct logits of each class, from the largest down.

    NaN for a class that no sample has.
    """
    return np.array([_average_precision(logits[:, k], labels[:, k] > 0) for k in range(logits.shape[1])])


def _average_precision(scores: npt.NDArray[np.floating], positive: Bools) -> float:
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores are one step
    hits = np.cumsum(positive[order])[last]
    precision, recall = hits / (last + 1), hits / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def mean_average_precision(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """The mean of `average_precisions` over the classes that a sample has; 0 where no sample has any."""
    found = average_precisions(logits, labels)
    known = found[~np.isnan(found)]
    return float(known.mean()) if known.size else 0.0


def guessing_bound(labels: npt.NDArray[np.integer]) -> float:
    """The mAP that answers at random do not reach: mean and three standard deviations of 20 draws, always the same."""
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = [mean_average_precision(generator.standard_normal(labels.shape), labels) for _ in range(_DRAWS)]
    return float(np.mean(drawn) + 3 * np.std(drawn))


def label_figures(
    logits: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    names: Sequence[str],
    thresholds: Sequence[float] = (),
) -> list[LabelFigures]:
    """The figures of each class."""
    predicted, present, precisions = chosen(logits, thresholds), labels > 0, average_precisions(logits, labels)
    rows = []
    for number, name in enumerate(names):
        own, truth = predicted[:, number], present[:, number]
        right, said, there = int((own & truth).sum()), int(own.sum()), int(truth.sum())
        rows.append(
            LabelFigures(
                name=name,
                count=there,
                threshold=float(thresholds[number]) if thresholds else DEFAULT_THRESHOLD,
                average_precision=float(precisions[number]),
                f1=2 * right / (said + there) if said + there else 0.0,
                precision=right / said if said else float("nan"),
                recall=right / there if there else float("nan"),
            )
        )
    return rows


def macro_f1(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], thresholds: Sequence[float] = ()
) -> float:
    """The mean of the classes' F1, of those that a sample has."""
    rows = label_figures(logits, labels, [""] * logits.shape[1], thresholds)
    return float(np.mean([row.f1 for row in rows if row.count] or [0.0]))


def mean_log_loss(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """Mean binary cross-entropy over samples and classes, in nats."""
    wide = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0.0, wide) - wide * (labels > 0)))


def binary_calibration(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Calibration:
    """Probability against frequency over all N · K answers, in `BINS` bins of equal width, open below."""
    probabilities, present = sigmoid(logits).ravel(), (labels > 0).ravel()
    number = np.clip(np.ceil(probabilities * BINS).astype(int), 1, BINS) - 1
    bins, gap = [], 0.0
    for index in np.unique(number):
        inside = number == index
        share = Proportion(count=int(present[inside].sum()), total=int(inside.sum()))
        mean = float(probabilities[inside].mean())
        gap += share.total * abs(share.share - mean)
        bins.append(Bin(low=index / BINS, high=(index + 1) / BINS, right=share, confidence=mean))
    return Calibration(ece=gap / len(present), nll=mean_log_loss(logits, labels), bins=tuple(bins))


def best_thresholds(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> list[float]:
    """(K,) the thresholds with the largest F1 on these samples, 0.01 to 0.99 in four decimals.

    They lie half-way between two probabilities; of equally good ones that next to one half is taken. A class that fewer
    than five samples have, or lack, keeps one half: so few choose by chance.
    """
    probabilities = sigmoid(logits)
    return [_best_threshold(probabilities[:, k], labels[:, k] > 0) for k in range(logits.shape[1])]


def _best_threshold(probabilities: Floats, present: Bools) -> float:
    if min(present.sum(), (~present).sum()) < _FEW:
        return DEFAULT_THRESHOLD
    ranked, positive = np.sort(probabilities), np.sort(probabilities[present])
    distinct = np.unique(ranked)
    between = np.append(distinct[0] / 2, (distinct[:-1] + distinct[1:]) / 2)
    bounds = np.unique(between.clip(_LEAST, _MOST).round(4))
    said, hits = (len(one) - np.searchsorted(one, bounds) for one in (ranked, positive))  # of each rounded bound
    f1 = 2 * hits / (said + len(positive))
    best = bounds[f1 >= f1.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - DEFAULT_THRESHOLD))])


def changed_sets(
    found: npt.NDArray[np.floating], reference: npt.NDArray[np.floating], thresholds: Sequence[float]
) -> Bools:
    """(N,) the samples for which both predict other classes."""
    different: Bools = (chosen(found, thresholds) != chosen(reference, thresholds)).any(axis=1)
    return different


def wrong_sets(
    student: npt.NDArray[np.floating],
    teacher: npt.NDArray[np.floating] | None,
    labels: npt.NDArray[np.integer],
    thresholds: Sequence[float] = (),
) -> npt.NDArray[np.int64]:
    """The samples with a wrong class, of those that the teacher, if any, gets right; the surest mistake first."""
    wrong = chosen(student, thresholds) != (labels > 0)
    if teacher is not None:
        wrong &= chosen(teacher, thresholds) == (labels > 0)
    distance = np.where(wrong, np.abs(sigmoid(student) - (labels > 0)), 0.0).max(axis=1)
    rows = np.flatnonzero(wrong.any(axis=1))
    return rows[np.argsort(-distance[rows], kind="stable")]
