"""Means over seeds with their uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean, stdev

OF_TWO = "n = 2: the t interval reaches 9 standard deviations to either side; with a third seed it reaches 2.5"


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
