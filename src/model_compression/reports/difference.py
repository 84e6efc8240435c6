"""Compares two runs, or two recipes over several seeds: is one better, and how do their recipes differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model_compression.core.errors import UsageError
from model_compression.core.metric import Metric
from model_compression.core.run_options import PARTS
from model_compression.reports.groups import Group, check_same_metric, differences, group_runs
from model_compression.reports.paired_images import OnImages, on_images
from model_compression.reports.run_files import RunFiles, find_runs
from model_compression.reports.statistics import LEVEL, PairedGain


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference of two recipes.

    ``over_seeds`` pairs runs of the same seed, None with fewer than two common ``seeds``. ``on_images`` compares the
    predictions of a pair of networks, None where they are missing or of other images. ``options`` are (place, first's
    value, second's) where the recipes differ.
    """

    metric: Metric
    first: Group
    second: Group
    seeds: Sequence[int]
    over_seeds: PairedGain | None
    on_images: OnImages | None
    same_images: bool
    options: Sequence[tuple[str, Any, Any]]
    left_out: Sequence[str]
    """Runs that are damaged or were changed, with the reason."""

    @property
    def noun(self) -> str:
        """What the samples are."""
        section = self.first.finished[0].section
        return section.noun if section else "images"

    @property
    def p_value(self) -> float | None:
        """Over seeds where there are several, else on images; None unless the images are known to be the same."""
        if not self.same_images:
            return None
        if self.over_seeds is not None:
            return self.over_seeds.p_value
        return None if self.on_images is None else self.on_images.p_value

    @property
    def is_significant(self) -> bool | None:
        """Whether p is below 5 %; None without a p value."""
        return None if self.p_value is None else self.p_value < LEVEL


def difference(first: str, second: str) -> Difference:
    """Compares the runs in two folders, each of a run or of runs that differ in their seed only.

    Raises UsageError for folders with several recipes, without a finished run, or with different metrics, and what
    `find_runs` does.
    """
    left_out: list[str] = []
    a, b = (_one_group(folder, left_out) for folder in (first, second))
    metric = check_same_metric([a, b])
    if a.eval_set != b.eval_set:
        raise UsageError(
            f"{metric.plural} are of {a.eval_set} images in {first} and of {b.eval_set} images in {second}"
        )
    seeds = sorted(a.values.keys() & b.values.keys())
    pair = [next(run for run in one.finished if not seeds or run.seed == seeds[0]) for one in (a, b)]
    images = on_images(*pair)
    options = [
        (place, a.recipe.get(place), b.recipe.get(place))
        for place in differences([a.recipe, b.recipe])
        if not _is_part(place, a, b)
    ]
    return Difference(
        metric=metric,
        first=a,
        second=b,
        seeds=seeds,
        over_seeds=a.gain_over(b, seeds) if len(seeds) > 1 else None,
        on_images=images,
        same_images=images is not None or _are_measured_alike(*pair),
        options=options,
        left_out=left_out,
    )


def _are_measured_alike(first: RunFiles, second: RunFiles) -> bool:
    """Whether both were measured on the same samples, where no share of right ones tells it."""
    if first.section is None:
        return _have_same_digest(first, second)
    ours, theirs = first.predictions, second.predictions
    return ours is not None and theirs is not None and first.section.are_same_samples(ours, theirs)


def _have_same_digest(first: RunFiles, second: RunFiles) -> bool:
    return first.test_data is not None and first.test_data == second.test_data


def _one_group(folder: str, left_out: list[str]) -> Group:
    groups = group_runs(find_runs([folder], left_out.append))
    if len(groups) > 1:
        names = "; ".join(group.name for group in groups[:4])
        last = max(
            (run for group in groups for run in group.runs), key=lambda run: (run.path.name == "final", run.path)
        )
        raise UsageError(
            f"{folder} has runs of {len(groups)} recipes, or a seed twice ({names}); give a run, as {last.path}, or a "
            "folder whose runs differ in their seed only"
        )
    if not groups[0].finished:
        raise UsageError(f"{folder} has no finished run; wait for it, or continue it with: model-compression resume")
    return groups[0]


def _is_part(place: str, a: Group, b: Group) -> bool:
    """Whether it is an option of a teacher or method that only one recipe has: the name is listed already."""
    part = place.split(".")[0]
    if place.endswith(".name") or part not in PARTS:
        return False
    return (f"{part}.name" in a.recipe) != (f"{part}.name" in b.recipe) and not place.startswith(f"{part}.params")
