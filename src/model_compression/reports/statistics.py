"""Means over seeds with their uncertainty, and tests of gains: paired differences, corrected for their number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from statistics import NormalDist, mean, stdev
from typing import Any

from model_compression.core.metric import DEFAULT_METRIC, Metric

OF_TWO = "n = 2: the t interval reaches 9 standard deviations to either side; with a third seed it reaches 2.5"
LEVEL = 0.05
_NO_SPREAD = 1e-9  # of the values: differences that are equal but for rounding


@dataclass(frozen=True, kw_only=True)
class Summary:
    """``n`` values: mean, standard deviation and half-width of the 95 % t-interval (both None for one value)."""

    n: int
    mean: float
    sd: float | None
    half_width: float | None


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """``count`` of ``total`` images, with the 95 % interval of the share (Wilson 1927, J. Am. Stat. Assoc. 22, 209)."""

    count: int
    total: int

    @property
    def share(self) -> float:
        """0 to 1; NaN without images."""
        return self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Its ends, within 0 and 1; 0 and 1 without images."""
        if not self.total:
            return 0.0, 1.0
        z, n, share = NormalDist().inv_cdf(0.975), self.total, self.share
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)


def summarise(values: Sequence[float]) -> Summary:
    """Mean, spread and 95 % t-interval of the mean; raises ValueError for no values."""
    if not values:
        raise ValueError("summarise needs at least one value, got none")
    if len(values) == 1:
        return Summary(n=1, mean=values[0], sd=None, half_width=None)
    from scipy.stats import t

    sd = stdev(values)
    half_width = float(t.ppf(0.975, len(values) - 1)) * sd / math.sqrt(len(values))
    return Summary(n=len(values), mean=mean(values), sd=sd, half_width=half_width)


@dataclass(frozen=True, kw_only=True)
class PairedGain:
    """Mean of ``n`` paired differences, half-width of its 95 % t interval, and two-sided p of the paired t test.

    For n = 1 there is neither interval nor p. Differences that are all equal have no p either, as their spread, which
    the test holds the mean against, is not known; it is 1 where they are all zero.
    """

    n: int
    mean: float
    half_width: float | None
    p_value: float | None


def paired_gain(values: Sequence[float], baseline: Sequence[float], metric: Metric = DEFAULT_METRIC) -> PairedGain:
    """The gain of ``values`` over the ``baseline`` of the same seeds, in the same order; above zero is better.

    Raises ValueError for no values, or for different numbers of them.
    """
    differences = [metric.gain(value, base) for value, base in zip(values, baseline, strict=True)]
    summary = summarise(differences)
    if summary.sd is None:
        return PairedGain(n=1, mean=summary.mean, half_width=None, p_value=None)
    largest = max(abs(value) for value in (*values, *baseline))
    if summary.sd <= _NO_SPREAD * largest:
        p_value = 1.0 if abs(summary.mean) <= _NO_SPREAD * largest else None
    else:
        from scipy.stats import t

        statistic = abs(summary.mean) * math.sqrt(summary.n) / summary.sd
        p_value = 2 * float(t.sf(statistic, summary.n - 1))
    return PairedGain(n=summary.n, mean=summary.mean, half_width=summary.half_width, p_value=p_value)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p values of m tests, corrected so that all m hold together (Holm 1979, Scand. J. Statist. 6, 65-70).

    The i-th smallest is multiplied by m − i + 1; none becomes smaller than one before it, or larger than 1. None stands
    for no test, and stays.
    """
    tests = sorted((p_value, index) for index, p_value in enumerate(p_values) if p_value is not None)
    corrected, largest = list[float | None]([None] * len(p_values)), 0.0
    for rank, (p_value, index) in enumerate(tests):
        largest = max(largest, min(1.0, (len(tests) - rank) * p_value))
        corrected[index] = largest
    return corrected


def needed_statistic(n: int, comparisons: int) -> float:
    """The distance from zero, in standard errors, from which the largest of ``comparisons`` mean gains is significant.

    ``n`` >= 2 pairs; by Holm's correction at `LEVEL`, two-sided.
    """
    from scipy.stats import t

    return float(t.isf(LEVEL / (2 * comparisons), n - 1))


def sign_test_floor(n: int) -> float:
    """The smallest p, two-sided, that ``n`` pairs can give by their signs alone, whatever their distribution."""
    return min(1.0, 2.0 ** (1 - n))


def to_plain(value: Any) -> Any:
    """Data classes as dictionaries, a proportion with its share and interval."""
    if is_dataclass(value) and not isinstance(value, type):
        values = {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
        return values | ({"share": value.share, "interval": value.interval} if isinstance(value, Proportion) else {})
    return [to_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
