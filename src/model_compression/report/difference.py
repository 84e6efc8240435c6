"""Whether one run, or one recipe over several seeds, is better than another, and in what their recipes differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from model_compression.errors import UsageError
from model_compression.report.groups import Group, differing, group_runs
from model_compression.report.run_files import find_runs
from model_compression.report.significance import LEVEL, PairedGain, paired_gain


@dataclass(frozen=True, kw_only=True)
class OnImages:
    """Two networks on the same ``count`` images: how many only the first, and only the second, is right on."""

    count: int
    only_first: int
    only_second: int

    @property
    def difference(self) -> float:
        """Of the accuracies, the first's minus the second's."""
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
        """Exact, two-sided, of McNemar's test (1947, Psychometrika 12, 153-157); 1 where none is right alone."""
        from scipy.stats import binomtest

        alone = self.only_first + self.only_second
        return float(binomtest(self.only_first, alone).pvalue) if alone else 1.0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of two recipes. ``over_seeds`` pairs runs of the same seed, ``on_images`` the answers of a pair of networks.

    Either is None where it cannot be told: fewer than two common seeds; other images. ``seeds`` are the common ones,
    and ``options`` are (place, first's value, second's) where the recipes differ.
    """

    first: Group
    second: Group
    seeds: Sequence[int]
    over_seeds: PairedGain | None
    on_images: OnImages | None
    options: Sequence[tuple[str, Any, Any]]

    @property
    def p_value(self) -> float | None:
        """Over seeds where there are several, else on images; None where the images are not the same."""
        if self.over_seeds is not None and self.on_images is not None:
            return self.over_seeds.p_value
        return None if self.on_images is None else self.on_images.p_value

    @property
    def is_significant(self) -> bool | None:
        """At the level of 5 %; None where it cannot be told."""
        return None if self.p_value is None else self.p_value < LEVEL


def difference(first: str, second: str) -> Difference:
    """Of the runs in two folders, each of a run or of runs that differ in their seed alone.

    Raises UsageError for folders with several recipes or without a finished run, and what `find_runs` does.
    """
    a, b = _one_group(first), _one_group(second)
    if a.eval_set != b.eval_set:
        raise UsageError(f"accuracies are of {a.eval_set} images in {first} and of {b.eval_set} images in {second}")
    ours, theirs = ({run.seed: run for run in group.finished} for group in (a, b))
    seeds = sorted(ours.keys() & theirs.keys())
    gain = None
    if len(seeds) > 1:
        accuracies = [[run[seed].accuracy or 0.0 for seed in seeds] for run in (ours, theirs)]
        gain = paired_gain(*accuracies)
    options = [
        (place, a.recipe.get(place), b.recipe.get(place))
        for place in differing([a.recipe, b.recipe])
        if not _is_part(place, a, b)
    ]
    return Difference(
        first=a, second=b, seeds=seeds, over_seeds=gain, on_images=_on_images(a, b, seeds), options=options
    )


def _one_group(folder: str) -> Group:
    groups = group_runs(find_runs([folder]))
    if len(groups) > 1:
        names = "; ".join(group.name for group in groups[:4])
        raise UsageError(
            f"{folder} has runs of {len(groups)} recipes, or a seed twice ({names}); give a run, or a folder whose "
            "runs differ in their seed alone"
        )
    if not groups[0].finished:
        raise UsageError(f"{folder} has no finished run; wait for it, or continue it with: model-compression resume")
    return groups[0]


def _on_images(a: Group, b: Group, seeds: Sequence[int]) -> OnImages | None:
    """Of the runs of the smallest common seed, or else of each one's smallest seed."""
    runs = [next(run for run in group.finished if not seeds or run.seed == seeds[0]) for group in (a, b)]
    first, second = (run.predictions for run in runs)
    if first is None or second is None or not np.array_equal(first.targets, second.targets):
        return None
    if not np.array_equal(first.thumbnails, second.thumbnails):
        return None
    ours, theirs = (found.student.argmax(axis=1) == found.targets for found in (first, second))
    return OnImages(count=len(ours), only_first=int((ours & ~theirs).sum()), only_second=int((~ours & theirs).sum()))


def _is_part(place: str, a: Group, b: Group) -> bool:
    """Whether it belongs to what only one of them has, whose name is a difference already, and is its default."""
    part = place.split(".")[0]
    if place.endswith(".name") or part not in ("teacher", "method", "peers"):
        return False
    return (f"{part}.name" in a.recipe) != (f"{part}.name" in b.recipe) and not place.startswith(f"{part}.params")
