"""The runs of a comparison of methods: those without a record are made, each in a process of its own, and recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from model_compression.core.config import MethodConfig, TrainConfig
from model_compression.core.config_json import to_dict
from model_compression.core.config_values import from_dict
from model_compression.core.errors import Interrupted, RunFolderError, UsageError
from model_compression.core.files import user_path
from model_compression.core.metric import primary_metric
from model_compression.core.options import Option, setting
from model_compression.core.run_options import options_for, short_name
from model_compression.core.text import count
from model_compression.distillation.objective import create_method, label_weight_of
from model_compression.engine.stop_requests import stop_requests
from model_compression.experiments.processes import RunError, run_isolated
from model_compression.experiments.recipes import methods_protocol
from model_compression.experiments.records import differences, is_recorded, logs, write_record
from model_compression.reports.comparison_tables import write_comparison
from model_compression.reports.predictions import Predictions
from model_compression.reports.records import read_records, record_path, save_record
from model_compression.reports.run_results import read_results

_MOST_SEEDS = 1000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is compared: records and tables go to ``out``, run folders to ``runs``; arms by seed."""

    title: str
    out: Path
    runs: Path
    base: TrainConfig
    configs: Mapping[int, Mapping[str, TrainConfig]]
    debug: bool

    def folder(self, arm: str, seed: int) -> Path:
        """Of a run."""
        return self.runs / self.out.name / f"{arm}-seed{seed}"


def plan_comparison(
    base: TrainConfig,
    methods: Sequence[MethodConfig],
    seeds: int,
    out: str | Path | None,
    runs: str | Path,
    *,
    debug: bool = False,
) -> Plan:
    """``seeds`` runs of each of ``methods``, and of labels, from the seed of ``base`` on.

    Raises UsageError for a number of seeds that cannot be.
    """
    check_seeds(seeds)
    teacher, student = (Path(model.name).stem for model in (base.teacher, base.student) if model)
    return Plan(
        title=f"{student} learns from {teacher}: {Path(base.data.name).name}, {count(base.epochs, 'epoch')}",
        out=user_path(str(out or f"results/compare-{short_name(base)}-{base.epochs}-epochs")),
        runs=user_path(str(runs)),
        base=base,
        configs={seed: methods_protocol(base, methods, seed) for seed in range(base.seed, base.seed + seeds)},
        debug=debug,
    )


def check_seeds(number: int) -> None:
    """Raises UsageError for a number of seeds that nobody can wait for."""
    Option(minimum=1, maximum=_MOST_SEEDS).check("seeds", number)


Pending = list[tuple[str, int]]


class Progress(Protocol):
    """Who watches a comparison."""

    def expect(self, total: int, done: int) -> None:
        """``total`` runs make up the comparison, ``done`` of them are recorded already."""

    def message(self, text: str) -> None:
        """A line for the user."""

    def begin(self, name: str) -> None:
        """What is done now."""

    def watch(self, message: dict[str, Any]) -> None:
        """How far it is, as its process says."""

    def end(self) -> None:
        """Nothing is going on."""

    def finish(self, text: str) -> None:
        """A run is done, or was none, as ``text`` says."""


def make_runs(plan: Plan, progress: Progress) -> tuple[str, dict[str, Any]]:
    """Makes the runs that have no record; returns the tables and their content. ``progress`` watches.

    Raises UsageError when nothing can be run as it is asked for, RunFolderError when ``plan.out`` holds runs of
    another recipe, and Interrupted after a signal, with everything saved.
    """
    _check_recipe(plan)
    wanted = [(arm, seed) for seed, configs in plan.configs.items() for arm in configs]
    pending = [
        (arm, seed)
        for arm, seed in wanted
        if not is_recorded(record_path(plan.out, arm, seed), plan.configs[seed][arm])
    ]
    if pending:
        progress.expect(len(wanted), len(wanted) - len(pending))
        with stop_requests() as stopped:
            _make(plan, pending, progress, stopped)
    _add_label_agreement(plan)
    _add_label_share(plan)
    return write_comparison(plan.out, plan.title)


def _check_recipe(plan: Plan) -> None:
    """Raises RunFolderError when the folder holds a run that is not to be compared with those of ``plan``."""
    for record in read_records(plan.out):
        own = {"seed", "method"} | (options_for("method") if record["config"]["method"] else set())
        own |= set() if record["config"]["teacher"] else options_for("teacher")
        found = differences(record["config"], to_dict(plan.base))
        found = [name for name in found if name.partition(".")[0] not in own]
        if found:
            raise RunFolderError(
                f"{plan.out} holds runs with another {', '.join(found)}, which cannot be compared with these; "
                f"choose another {setting('out')}"
            )


def _make(plan: Plan, pending: Pending, progress: Progress, stopped: Sequence[int]) -> None:
    refused = _prepare(plan, pending, progress, stopped)
    for arm, seed in pending:
        if stopped:
            raise _interrupted(stopped, "")
        config, name = plan.configs[seed][arm], f"{arm}, seed {seed}"
        record = record_path(plan.out, arm, seed)
        if arm in refused:
            progress.finish(f"{name}: not run: {refused[arm]}")
            write_record(record, arm, config, {"not_run": refused[arm]})
            continue
        progress.begin(name)
        folder = plan.folder(arm, seed)
        task = {"task": "train", "config": to_dict(config), "folder": str(folder)}
        try:
            result = run_isolated(task, progress.watch, stopped, debug=plan.debug)
        except (RunError, UsageError) as error:
            progress.finish(f"{name}: failed: {error}")
            write_record(record, arm, config, {"failed": str(error)})
            continue
        except Interrupted:
            raise _interrupted(stopped, f" in {name}") from None
        write_record(record, arm, config, {**result, **logs(folder)})
        progress.finish(_result_line(name, result))
        write_comparison(plan.out, plan.title)


def _prepare(plan: Plan, pending: Pending, progress: Progress, stopped: Sequence[int]) -> dict[str, str]:
    """The methods that cannot run, with the reason; the teacher's answers are stored for the others."""
    first: dict[str, TrainConfig] = {}
    for arm, seed in pending:
        first.setdefault(arm, plan.configs[seed][arm])

    def watch(message: dict[str, Any]) -> None:
        if "message" in message:
            progress.message(message["message"])
        progress.watch(message)

    progress.begin("checking methods")
    task = {"task": "prepare", "configs": {arm: to_dict(config) for arm, config in first.items()}}
    try:
        refused: dict[str, str] = run_isolated(task, watch, stopped, debug=plan.debug)["refused"]
    except Interrupted:
        raise _interrupted(stopped, " before the first run") from None
    except RunError as error:
        raise RunError(f"the methods could not be checked: {error}") from None
    progress.end()
    return refused


def _interrupted(stopped: Sequence[int], where: str) -> Interrupted:
    return Interrupted(
        f"stopped{where}; what is done is saved; the same command goes on from there", exit_code=128 + stopped[0]
    )


def _result_line(name: str, result: Mapping[str, Any]) -> str:
    metrics = result["metrics"]
    metric = primary_metric(metrics)
    value = metrics.get(metric.key("validation"), metrics.get(metric.key("test")))
    seconds, peak = result["seconds_per_epoch"], result.get("peak_memory_bytes")
    time = "" if seconds is None else f", {seconds:.1f} s an epoch"
    return f"{name}: {metric.text(value)}{time}" + ("" if peak is None else f", {peak / 2**20:,.0f} MiB")


def _add_label_agreement(plan: Plan) -> None:
    """Gives the records of runs that know of no teacher their agreement with that of the others."""
    answers = None
    for record in read_records(plan.out):
        metrics, seed = record.get("metrics", {}), record["config"]["seed"]
        if record["config"]["teacher"] or not metrics or "teacher_agreement" in metrics:
            continue
        own = _predictions(plan.folder(record["arm"], seed))
        answers = _teacher_classes(plan) if answers is None and own is not None else answers
        if own is not None and answers is not None:
            metrics["teacher_agreement"] = float(np.mean(own.student.argmax(axis=1) == answers))
            _write_again(plan, record)


def _add_label_share(plan: Plan) -> None:
    """Gives the records of methods what the weighted label loss was of the whole in the last epoch, 0 to 1."""
    for record in read_records(plan.out):
        if not record["config"]["method"] or "metrics" not in record or "label_share" in record:
            continue
        method, last = from_dict(MethodConfig, record["config"]["method"]), record["events"][-1]
        weight = label_weight_of(method, create_method(method))
        share = weight * last["terms"].get("label", 0.0) / last["train_loss"]
        record["label_share"] = share if 0 <= share <= 1 else None  # a loss may be negative
        _write_again(plan, record)


def _write_again(plan: Plan, record: Mapping[str, Any]) -> None:
    save_record(record_path(plan.out, record["arm"], record["config"]["seed"]), record)


def _teacher_classes(plan: Plan) -> npt.NDArray[np.int64] | None:
    """What the teacher takes each test image for (N,), as any run with it has stored."""
    for record in read_records(plan.out):
        if record["config"]["teacher"] and "metrics" in record:
            found = _predictions(plan.folder(record["arm"], record["config"]["seed"]))
            if found is not None and found.teacher is not None:
                classes: npt.NDArray[np.int64] = found.teacher.argmax(axis=1)
                return classes
    return None


def _predictions(folder: Path) -> Predictions | None:
    results = read_results(folder)
    return None if results is None else results.predictions
