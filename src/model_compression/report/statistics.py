"""Means over seeds with their uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev


@dataclass(frozen=True, kw_only=True)
class Summary:
    """``n`` values: mean, standard deviation and half-width of the 95 % t-interval (both None for one value)."""

    n: int
    mean: float
    sd: float | None
    half_width: float | None


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
