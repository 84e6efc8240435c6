"""What a search found: its trials, the best one on fresh seeds beside the defaults, and whether it is better."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_compression.core.console import table
from model_compression.core.files import write_json, write_text
from model_compression.core.metric import DEFAULT_METRIC, primary_metric
from model_compression.core.options import setting
from model_compression.core.run_options import short_name
from model_compression.core.text import count
from model_compression.experiments.comparison import Plan, make_runs
from model_compression.experiments.run_lists import Progress
from model_compression.experiments.search_plan import SearchPlan
from model_compression.experiments.search_space import with_settings_of
from model_compression.experiments.study import Trial
from model_compression.reports.method_comparison import DEFAULT

_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found: trials by number, the best one (None where every trial failed), and all as text and values.

    The ``verdict`` says in a line whether the best one is better than the defaults.
    """

    trials: list[Trial]
    best: Trial | None
    verdict: str
    text: str
    content: dict[str, Any]


def finish(
    plan: SearchPlan,
    identity: Mapping[str, Any],
    trials: list[Trial],
    defaults: Mapping[str, Any],
    progress: Progress,
) -> Found:
    """The final runs of the best trial and the defaults, and the results of all as text, values and files.

    ``identity``: what the results begin with.
    """
    ended = [trial for trial in trials if trial.state == "complete" and trial.score is not None]
    best = max(ended, key=lambda trial: (trial.score, -trial.number), default=None)
    comparison: dict[str, Any] | None = None
    tables = ""
    if best is None:
        reasons = [trial.reason for trial in trials if trial.reason]
        verdict = f"No trial has a result: {reasons[-1] if reasons else 'all were pruned'}"
    elif best.settings == defaults:
        verdict = "No trial was better than the defaults on the held-out images: keep the defaults."
    elif not plan.final_seeds:
        verdict = f"Trial {best.number} is the best on the held-out images; no final runs were asked for."
    else:
        tables, comparison = _final_runs(plan, best, progress)
        verdict = judged(comparison, best.number)
    found = [
        f"{plan.out.name}: {count(len(trials), 'trial')}, {sum(trial.state == 'pruned' for trial in trials)} pruned",
        _table(trials),
        tables,
        verdict,
    ]
    text = "\n\n".join(part for part in found if part)
    content = {
        **identity,
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "best": None if best is None else best.number,
        "verdict": verdict,
        "final": comparison,
    }
    write_json(plan.results, content)
    write_text(plan.results.with_suffix(".txt"), text + "\n")
    return Found(trials=trials, best=best, verdict=verdict, text=text, content=content)


def _final_runs(plan: SearchPlan, best: Trial, progress: Progress) -> tuple[str, dict[str, Any]]:
    """Best and defaults on seeds that no trial had, trained on all images and measured on the test set."""
    base = dataclasses.replace(plan.base, data=dataclasses.replace(plan.base.data, validation=0))
    arms = {DEFAULT: base, f"trial-{best.number}": with_settings_of(base, plan.space, best.settings)}
    seeds = range(base.seed + 1, base.seed + 1 + plan.final_seeds)
    final = Plan(
        title=f"{short_name(base)}: the best of a search against the defaults",
        out=plan.out / "final",
        runs=plan.runs / plan.out.name,
        base=base,
        configs={seed: {arm: dataclasses.replace(config, seed=seed) for arm, config in arms.items()} for seed in seeds},
        executor=plan.executor,
        varied=[tuned.place for tuned in plan.space],
    )
    return make_runs(final, progress)


def judged(comparison: Mapping[str, Any], number: int) -> str:
    """Whether a trial is better than the defaults, in a line: by the interval of the paired difference."""
    metric, arm = primary_metric(comparison), f"trial-{number}"
    pair = (entry for entry in comparison["gains"] if (entry["arm"], entry["baseline"]) == (arm, DEFAULT))
    gain = next((entry["gain"] for entry in pair), None)
    if gain is None:
        return f"Whether trial {number} is better than the defaults is not known: final runs failed."
    mean, width = gain["mean"], gain["half_width"]
    found = f"{metric.points(mean, width)} of test {metric.label} over {count(gain['n'], 'fresh seed')}"
    if width is None:
        more = setting("final_seeds", 3)
        return f"Trial {number} against the defaults: {found}. One seed gives no interval: give {more}."
    if abs(mean) <= width:
        return (
            f"Whether trial {number} is better than the defaults is not decided: {found}; the 95 % interval of the "
            f"paired difference covers 0. Keep the defaults, or give more {setting('final_seeds')}."
        )
    word = "better" if mean > 0 else "worse"
    return f"Trial {number} is {word} than the defaults: {found}, 95 % interval of the paired difference."


def _table(trials: Sequence[Trial]) -> str:
    """The best trials, with what they had and what they reached."""
    if not trials:
        return ""
    order = sorted(trials, key=lambda trial: (trial.state != "complete", -_score(trial), trial.number))
    metric, names = (
        next((trial.metric for trial in order if trial.state == "complete"), DEFAULT_METRIC),
        order[0].settings,
    )
    rows = [
        [
            str(trial.number),
            *(shown(trial.settings[name]) for name in names),
            "" if trial.score is None else metric.number(metric.gain(trial.score, 0.0)),
            str(trial.epochs),
            trial.state,
        ]
        for trial in order[:_ROWS]
    ]
    more = f"\n… and {len(order) - _ROWS} more in search.json" if len(order) > _ROWS else ""
    return table(rows, ["trial", *names, f"validation {metric.axis}", "epochs", "state"]) + more


def _score(trial: Trial) -> float:
    return -math.inf if trial.score is None else trial.score


def shown(value: Any) -> str:
    """A value of an option, with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
