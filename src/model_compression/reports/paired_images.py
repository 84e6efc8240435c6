"""Tests whether one network is better than another, from their predictions on the same images."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from model_compression.reports.run_files import RunFiles


@dataclass(frozen=True, kw_only=True)
class OnImages:
    """Two networks on the same ``count`` images: how many only the first, and only the second, predicts right."""

    count: int
    only_first: int
    only_second: int

    @property
    def difference(self) -> float:
        """The first one's share of right predictions minus the second's."""
        return (self.only_first - self.only_second) / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, for other images of the same kind: Agresti & Min 2005, Statistics in Medicine 24, 729-740.

        Wald's interval for paired shares, after half an image was added to each of the four cells.
        """
        count, first, second = self.count + 2, self.only_first + 0.5, self.only_second + 0.5
        middle = (first - second) / count
        half = NormalDist().inv_cdf(0.975) * math.sqrt(first + second - (first - second) ** 2 / count) / count
        return middle - half, middle + half

    @property
    def p_value(self) -> float:
        """Of the exact two-sided McNemar test (1947, Psychometrika 12, 153-157); 1 where no image tells them apart."""
        from scipy.stats import binomtest

        alone = self.only_first + self.only_second
        return float(binomtest(self.only_first, alone).pvalue) if alone else 1.0


def on_images(first: RunFiles, second: RunFiles) -> OnImages | None:
    """The comparison of two finished runs; None for predictions of other images, or that are not right or wrong."""
    section, ours, theirs = first.section, first.predictions, second.predictions
    if section is None or ours is None or theirs is None or not section.are_same_samples(ours, theirs):
        return None
    a, b = section.right(ours), section.right(theirs)
    if a is None or b is None:
        return None
    return OnImages(count=len(a), only_first=int((a & ~b).sum()), only_second=int((~a & b).sum()))
