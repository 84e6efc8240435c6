"""Groups runs that differ in their seed only; the name of a group says how it differs from the others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model_compression.core.config_json import GIVEN
from model_compression.core.errors import UsageError
from model_compression.core.metric import DEFAULT_METRIC, Metric
from model_compression.core.run_options import options_for, result_values
from model_compression.reports.paired_images import OnImages, on_images
from model_compression.reports.run_files import RunFiles
from model_compression.reports.statistics import PairedGain, Summary, holm, paired_gain, summarise

_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_SHOWN = 8  # characters of a digest
_FIRST = ("student.name", "method.name", "teacher.name")  # what a name begins with


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one recipe with different seeds. ``recipe`` maps places as "optim.lr" to values, without the seed."""

    name: str
    recipe: Mapping[str, Any]
    runs: tuple[RunFiles, ...]

    @property
    def finished(self) -> tuple[RunFiles, ...]:
        """The runs that have a result."""
        return tuple(run for run in self.runs if run.metrics is not None)

    @property
    def values(self) -> dict[int, float]:
        """The primary metric of each finished run, by seed."""
        return {run.seed: run.result for run in self.finished if run.result is not None}

    @property
    def summary(self) -> Summary | None:
        """Of the values, None without one."""
        return summarise([*self.values.values()]) if self.values else None

    @property
    def metric(self) -> Metric:
        """The primary metric of the runs."""
        return next((run.metric for run in self.finished), DEFAULT_METRIC)

    @property
    def eval_set(self) -> str:
        """The name of the images that the metrics are of."""
        return self.runs[0].eval_set

    @property
    def teacher_result(self) -> float | None:
        """The primary metric of the teacher of the first finished run, None without a teacher."""
        key = f"teacher_{self.metric.key(self.eval_set)}"
        return next((run.metrics.get(key) for run in self.finished if run.metrics), None)

    @property
    def parameters(self) -> int | None:
        """Of the network, where measured or recorded."""
        found = [run.measured for run in self.runs] + [run.metrics for run in self.finished]
        return next((values["parameters"] for values in found if values and "parameters" in values), None)

    @property
    def size_bytes(self) -> int | None:
        """Of the first weights file."""
        return next((run.student_bytes for run in self.finished if run.student_bytes), None)

    @property
    def latency(self) -> list[dict[str, Any]]:
        """Runtime, batch, threads, median_ms and p95_ms of each timing, as `measure --json` prints them."""
        return next((run.measured.get("latency", []) for run in self.runs if run.measured is not None), [])

    def gain_over(self, other: "Group", seeds: Sequence[int]) -> PairedGain:
        """The gain over another group, paired by ``seeds``, which both have."""
        own, base = ([one.values[seed] for seed in seeds] for one in (self, other))
        return paired_gain(own, base, self.metric)

    def mean(self, key: str) -> float | None:
        """The mean of one of the metrics over the finished runs that have it."""
        found = [run.metrics[key] for run in self.finished if run.metrics and run.metrics.get(key) is not None]
        return sum(found) / len(found) if found else None


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The gain of a group over ``baseline``, paired by seed; ``p_value`` is corrected by Holm for all in the report.

    ``on_images`` compares the predictions of the two runs if there is one seed only, else it is None.
    """

    group: str
    baseline: str
    gain: PairedGain
    p_value: float | None
    on_images: OnImages | None


def recipe_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that a run's result depends on but its seed, flat, with the defaults of what the config does not have."""
    return {place: value for place, value in result_values(config).items() if place != "seed"}


def run_recipe(run: RunFiles) -> dict[str, Any]:
    """`recipe_of` the configuration of a run, and what the configuration does not hold.

    That is the learning rate that was set when the run was resumed; the precision of an older run, which recorded
    "auto"; and the network in the weights file that a student started from: the file is ``student.start`` then.
    """
    recipe = recipe_of(run.config)
    metrics = run.metrics or {}
    if metrics.get("lr_changed_to") is not None:
        recipe["optim.lr_changed_to"] = metrics["lr_changed_to"]
    if recipe["precision"] == "auto" and metrics.get("precision") in _PRECISIONS:
        recipe["precision"] = _PRECISIONS[metrics["precision"]]
    if run.network is not None and is_path(recipe["student.name"]):
        recipe |= {"student.name": run.network, "student.start": recipe["student.name"]}
    return recipe


def is_path(name: Any) -> bool:
    """Whether the name of a network is that of a file or folder."""
    return "/" in str(name) and ":" not in str(name)


def group_runs(runs: Sequence[RunFiles]) -> list[Group]:
    """The groups, in the order of their first runs; runs by seed.

    A second run of a recipe with the same seed is not a second sample: it starts another group. So do runs between
    which the test samples changed; their recipes then have "data.test_data".
    """
    found: dict[tuple[str, int], list[tuple[RunFiles, dict[str, Any]]]] = {}
    for run, recipe in zip(runs, _recipes(runs), strict=True):
        key = json.dumps(recipe, sort_keys=True)
        number = 0
        while any(other.seed == run.seed for other, _ in found.get((key, number), [])):
            number += 1
        found.setdefault((key, number), []).append((run, recipe))
    members = [sorted(own, key=lambda one: one[0].seed) for own in found.values()]
    recipes = [own[0][1] for own in members]
    return [
        Group(name=name, recipe=recipe, runs=tuple(run for run, _ in own))
        for name, recipe, own in zip(_names(recipes), recipes, members, strict=True)
    ]


def _recipes(runs: Sequence[RunFiles]) -> list[dict[str, Any]]:
    """`run_recipe` of each, with the test samples where runs on data of one description had others."""
    recipes = [run_recipe(run) for run in runs]
    known: dict[str, set[str]] = {}
    for run, recipe in zip(runs, recipes, strict=True):
        known.setdefault(_description(recipe), set()).update(filter(None, [run.test_data]))
    for run, recipe in zip(runs, recipes, strict=True):
        if len(known[_description(recipe)]) > 1:
            recipe["data.test_data"] = run.test_data[:_SHOWN] if run.test_data else "unknown"
    return recipes


def _description(recipe: Mapping[str, Any]) -> str:
    return json.dumps({place: value for place, value in recipe.items() if place.startswith("data.")}, sort_keys=True)


def check_same_metric(groups: Sequence[Group]) -> Metric:
    """The primary metric of all finished runs. Raises UsageError where they have different ones."""
    metrics = {group.metric: group for group in groups if group.finished}
    if len(metrics) > 1:
        names = "; ".join(f"{metric.label}: {group.runs[0].path}" for metric, group in metrics.items())
        raise UsageError(f"these runs have different metrics ({names}); compare runs with the same one")
    return next(iter(metrics), DEFAULT_METRIC)


def differences(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The places in which recipes differ."""
    keys = sorted({key for recipe in recipes for key in recipe})
    return [key for key in keys if any(recipe.get(key) != recipes[0].get(key) for recipe in recipes)]


def gains(groups: Sequence[Group]) -> list[Gain]:
    """The gain of each group with a method over the group with the same recipe on labels only, if there is one."""
    found: list[Gain] = []
    for group in groups:
        baselines = (other for other in groups if group.values.keys() & other.values.keys())
        baseline = next((other for other in baselines if _is_baseline(other, group)), None)
        if baseline is not None:
            seeds = [seed for seed in group.values if seed in baseline.values]
            gain = group.gain_over(baseline, seeds)
            pair = [next(run for run in one.finished if run.seed == seeds[0]) for one in (group, baseline)]
            images = on_images(*pair) if len(seeds) == 1 else None
            found.append(
                Gain(group=group.name, baseline=baseline.name, gain=gain, p_value=gain.p_value, on_images=images)
            )
    corrected = holm([gain.p_value for gain in found])
    return [replace(gain, p_value=p_value) for gain, p_value in zip(found, corrected, strict=True)]


def _is_baseline(baseline: Group, group: Group) -> bool:
    """Whether ``baseline`` is the same student, trained on labels only."""
    labels_only = "method.name" not in baseline.recipe and baseline is not group
    own = options_for("teacher", "method")  # which training on labels does not have, or does not need
    return labels_only and all(place.split(".")[0] in own for place in differences([baseline.recipe, group.recipe]))


def _names(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short names of recipes, each with what distinguishes it from the others."""
    first = [key for key in _FIRST if len({short(recipe.get(key)) for recipe in recipes if key in recipe}) > 1]
    beginnings = [_beginning(recipe, first) for recipe in recipes]
    names: list[str] = []
    for recipe, beginning in zip(recipes, beginnings, strict=True):
        alike = [other for other, own in zip(recipes, beginnings, strict=True) if own == beginning]
        name = ", ".join([*beginning, *(_part(key, recipe.get(key)) for key in _places_of(recipe, alike))])
        names.append(f"{name} ({names.count(name) + 1})" if name in names else name)
    return names


def _beginning(recipe: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """The method, with student and teacher where there are several."""
    student = [short(recipe["student.name"])] if "student.name" in keys else []
    teacher = [f"from {short(recipe['teacher.name'])}"] if {"teacher.name"} <= {*keys} & {*recipe} else []
    return [*student, method_name(recipe), *teacher]


def _choose_places(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Few places that distinguish all of ``recipes``: each time the one with the most values."""
    keys = [key for key in differences(recipes) if key not in _FIRST]
    keys.sort(key=lambda key: (key.split(".")[0] not in ("method", "student"), key.startswith("teacher")))
    chosen: list[str] = []

    def kinds(places: Sequence[str]) -> int:
        return len({str([recipe.get(place) for place in places]) for recipe in recipes})

    while keys and kinds(chosen) < len(recipes):
        best = max(keys, key=lambda key: kinds([*chosen, key]))
        keys.remove(best)
        chosen.append(best)
    return chosen


def _places_of(recipe: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first of `_choose_places` that are enough to tell ``recipe`` from the others."""
    keys, left = [], list(alike)
    for key in _choose_places(alike):
        if len(left) == 1:
            break
        keys.append(key)
        left = [other for other in left if other.get(key) == recipe.get(key)]
    return keys


def _part(key: str, value: Any) -> str:
    if key == "data.views" and value == 0:
        return "fresh views"
    return f"{key.split('.')[-1].replace('_', ' ')} {short(value)}"


def method_name(recipe: Mapping[str, Any]) -> str:
    """The method of a recipe; "labels only" without one."""
    return str(recipe.get("method.name") or "labels only")


def short(value: Any) -> str:
    """A value for a name: the last part of a path, the name of an object that was given from Python."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "-".join(map(str, value))
    if not isinstance(value, str):
        return str(value)
    return Path(value).name if "/" in value else value.removeprefix(GIVEN)
