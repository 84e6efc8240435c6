"""Runs that differ in their seed only are one group; its name says in what it differs from the others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model_compression.core.config import GIVEN, options_for, result_values
from model_compression.reports.paired_images import OnImages, on_images
from model_compression.reports.run_files import RunFiles
from model_compression.reports.significance import PairedGain, holm, paired_gain
from model_compression.reports.statistics import Summary, summarise

_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
_FIRST = ("student.name", "method.name", "teacher.name")  # what a name begins with


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one recipe with different seeds. ``recipe`` maps places as "optim.lr" to values, seeds are not in it."""

    name: str
    recipe: Mapping[str, Any]
    runs: tuple[RunFiles, ...]

    @property
    def finished(self) -> tuple[RunFiles, ...]:
        """The runs that have a result."""
        return tuple(run for run in self.runs if run.metrics is not None)

    @property
    def accuracy(self) -> Summary | None:
        """Of the finished runs, None without one."""
        found = [run.accuracy for run in self.finished if run.accuracy is not None]
        return summarise(found) if found else None

    @property
    def eval_set(self) -> str:
        """What accuracies are of."""
        return self.runs[0].eval_set


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What a group gains over ``baseline``, paired by seed; ``p_value`` is corrected by Holm for all in the report.

    ``on_images`` compares the answers of the two runs where there is but one seed, None otherwise.
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
    """`recipe_of` its configuration, and what that does not say.

    That is the rate that it went on with where `resume --lr` changed it; the precision that a run took which recorded
    "auto", as older ones did; and, of a student that began as a weights file, which network it is; the file is
    ``student.start`` then.
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

    A second run of a recipe with the same seed is no second sample: it begins a group of its own.
    """
    found: dict[tuple[str, int], list[RunFiles]] = {}
    for run in runs:
        recipe = json.dumps(run_recipe(run), sort_keys=True)
        number = 0
        while any(other.seed == run.seed for other in found.get((recipe, number), [])):
            number += 1
        found.setdefault((recipe, number), []).append(run)
    members = [sorted(own, key=lambda run: run.seed) for own in found.values()]
    recipes = [run_recipe(own[0]) for own in members]
    names = _names(recipes)
    return [
        Group(name=name, recipe=recipe, runs=tuple(own))
        for name, recipe, own in zip(names, recipes, members, strict=True)
    ]


def differing(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The places in which recipes differ."""
    keys = sorted({key for recipe in recipes for key in recipe})
    return [key for key in keys if any(recipe.get(key) != recipes[0].get(key) for recipe in recipes)]


def gains(groups: Sequence[Group]) -> list[Gain]:
    """Of each group with a method over the same recipe on labels alone, where there is one."""
    found: list[Gain] = []
    for group in groups:
        for baseline in groups:
            pairs = _paired(group, baseline)
            if pairs and _is_baseline(baseline, group):
                gain = paired_gain(
                    [own.accuracy or 0.0 for own, _ in pairs], [base.accuracy or 0.0 for _, base in pairs]
                )
                images = on_images(*pairs[0]) if len(pairs) == 1 else None
                found.append(
                    Gain(group=group.name, baseline=baseline.name, gain=gain, p_value=gain.p_value, on_images=images)
                )
                break
    corrected = iter(holm([gain.p_value for gain in found if gain.p_value is not None]))
    return [gain if gain.p_value is None else replace(gain, p_value=next(corrected)) for gain in found]


def _is_baseline(baseline: Group, group: Group) -> bool:
    """Whether ``baseline`` is the same student on labels alone."""
    alone = "method.name" not in baseline.recipe and baseline is not group
    own = options_for("teacher", "method")  # which training on labels does not have, or not of need
    return alone and all(place.split(".")[0] in own for place in differing([baseline.recipe, group.recipe]))


def _paired(group: Group, baseline: Group) -> list[tuple[RunFiles, RunFiles]]:
    """Finished runs of the same seed."""
    base = {run.seed: run for run in baseline.finished}
    return [(run, base[run.seed]) for run in group.finished if run.seed in base]


def _names(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to call recipes, each by what sets it apart, in as few words as will do."""
    first = [key for key in _FIRST if len({short(recipe.get(key)) for recipe in recipes if key in recipe}) > 1]
    begun = [_beginning(recipe, first) for recipe in recipes]
    names: list[str] = []
    for recipe, beginning in zip(recipes, begun, strict=True):
        alike = [other for other, own in zip(recipes, begun, strict=True) if own == beginning]
        name = ", ".join([*beginning, *(_part(key, recipe.get(key)) for key in _telling_apart(recipe, alike))])
        names.append(f"{name} ({names.count(name) + 1})" if name in names else name)
    return names


def _beginning(recipe: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """The student where there are several, the method, the teacher where there are several."""
    student = [short(recipe["student.name"])] if "student.name" in keys else []
    teacher = [f"from {short(recipe['teacher.name'])}"] if {"teacher.name"} <= {*keys} & {*recipe} else []
    return [*student, method_name(recipe), *teacher]


def _telling(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Few places by which all of ``recipes`` can be told apart: each time the one with the most values."""
    keys = [key for key in differing(recipes) if key not in _FIRST]
    keys.sort(key=lambda key: (key.split(".")[0] not in ("method", "student"), key.startswith("teacher")))
    chosen: list[str] = []

    def kinds(places: Sequence[str]) -> int:
        return len({str([recipe.get(place) for place in places]) for recipe in recipes})

    while keys and kinds(chosen) < len(recipes):
        best = max(keys, key=lambda key: kinds([*chosen, key]))
        keys.remove(best)
        chosen.append(best)
    return chosen


def _telling_apart(recipe: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first places of `_telling` that tell ``recipe`` from the others."""
    keys, left = [], list(alike)
    for key in _telling(alike):
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
    """Of a recipe; "labels alone" without a method."""
    return str(recipe.get("method.name") or "labels alone")


def short(value: Any) -> str:
    """A value as a name has it: of a path its last part, of an object given from Python its name there."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "-".join(map(str, value))
    if not isinstance(value, str):
        return str(value)
    return Path(value).name if "/" in value else value.removeprefix(GIVEN)
