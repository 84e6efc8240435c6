"""Whether one run, or one recipe over several seeds, is better than another, and in what their recipes differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model_compression.core.errors import UsageError
from model_compression.reports.groups import Group, differing, group_runs
from model_compression.reports.paired_images import OnImages, on_images
from model_compression.reports.run_files import find_runs
from model_compression.reports.significance import LEVEL, PairedGain, paired_gain


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
    left_out: Sequence[str]
    """Runs that are damaged or were changed, with the reason."""

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
    left_out: list[str] = []
    a, b = (_one_group(folder, left_out) for folder in (first, second))
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
        first=a,
        second=b,
        seeds=seeds,
        over_seeds=gain,
        on_images=_on_images(a, b, seeds),
        options=options,
        left_out=left_out,
    )


def _one_group(folder: str, left_out: list[str]) -> Group:
    groups = group_runs(find_runs([folder], left_out.append))
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
    first, second = (next(run for run in group.finished if not seeds or run.seed == seeds[0]) for group in (a, b))
    return on_images(first, second)


def _is_part(place: str, a: Group, b: Group) -> bool:
    """Whether it belongs to what only one of them has, whose name is a difference already, and is its default."""
    part = place.split(".")[0]
    if place.endswith(".name") or part not in ("teacher", "method", "peers"):
        return False
    return (f"{part}.name" in a.recipe) != (f"{part}.name" in b.recipe) and not place.startswith(f"{part}.params")
