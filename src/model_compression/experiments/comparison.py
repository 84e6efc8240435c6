"""The runs of a comparison of methods: those without a record are made, each in a process of its own, and recorded."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_compression.core.config import MethodConfig, TrainConfig
from model_compression.core.config_json import to_dict
from model_compression.core.config_values import from_dict
from model_compression.core.errors import Interrupted, RunFolderError, UsageError
from model_compression.core.files import user_path
from model_compression.core.options import Option, setting
from model_compression.core.run_options import options_for, short_name, value_at, with_values
from model_compression.core.text import count
from model_compression.distillation.objective import create_method, label_weight_of
from model_compression.engine.stop_requests import stop_requests
from model_compression.experiments.executor import ONE_BY_ONE, Executor, Run, execute
from model_compression.experiments.processes import RunError
from model_compression.experiments.recipes import methods_protocol
from model_compression.experiments.records import check_same_data, differences, held, is_recorded, logs, write_record
from model_compression.experiments.run_lists import (
    Preparation,
    Progress,
    interrupted,
    prepare_runs,
    result_line,
    train_task,
)
from model_compression.reports.comparison_tables import write_comparison
from model_compression.reports.records import read_records, record_path, save_record
from model_compression.reports.run_results import Results, read_results

_MOST_SEEDS = 1000
_BY_NETWORKS = ("data.fit", "data.crop_share", "data.interpolation", "data.tokenizer")  # label runs lack the teacher


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is compared: records and tables go to ``out``, run folders to ``runs``; arms by seed.

    ``executor`` makes the runs. Arms may differ in the options at the places ``varied`` too.
    """

    title: str
    out: Path
    runs: Path
    base: TrainConfig
    configs: Mapping[int, Mapping[str, TrainConfig]]
    executor: Executor = ONE_BY_ONE
    varied: Collection[str] = ()

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
    executor: Executor = ONE_BY_ONE,
) -> Plan:
    """``seeds`` runs of each of ``methods``, and of labels, from the seed of ``base`` on.

    Raises UsageError for a number of seeds that cannot be.
    """
    check_seeds(seeds)
    by_networks = [place for place in _BY_NETWORKS if not value_at(base, place)]
    base = dataclasses.replace(base, left_open=[*base.left_open, *by_networks])
    teacher, student = (Path(model.name).stem for model in (base.teacher, base.student) if model)
    return Plan(
        title=f"{student} learns from {teacher}: {Path(base.data.name).name}, {count(base.epochs, 'epoch')}",
        out=user_path(str(out or f"results/compare-{short_name(base)}-{base.epochs}-epochs")),
        runs=user_path(str(runs)),
        base=base,
        configs={seed: methods_protocol(base, methods, seed) for seed in range(base.seed, base.seed + seeds)},
        executor=executor,
    )


def check_seeds(number: int) -> None:
    """Raises UsageError for a number of seeds that nobody can wait for."""
    Option(minimum=1, maximum=_MOST_SEEDS).check("seeds", number)


def make_runs(plan: Plan, progress: Progress) -> tuple[str, dict[str, Any]]:
    """Makes the runs that have no record; returns the tables and their content. ``progress`` watches.

    Another process that makes them is waited for. Raises UsageError when nothing can be run as it is asked for,
    RunFolderError when ``plan.out`` holds runs of another recipe, and Interrupted after a signal, with everything
    saved.
    """
    _check_recipe(plan, plan.base)
    if _pending(plan):
        with stop_requests() as stopped:
            prepared = _prepare(plan, progress, stopped)
        with held(plan.out, progress.message), stop_requests() as stopped:
            _make(plan, prepared, progress, stopped)
    _add_label_agreement(plan)
    _add_label_share(plan)
    return write_comparison(plan.out, plan.title)


def _pending(plan: Plan) -> list[tuple[str, int]]:
    """The runs without a record."""
    return [
        (arm, seed)
        for seed, configs in plan.configs.items()
        for arm, config in configs.items()
        if not is_recorded(record_path(plan.out, arm, seed), config)
    ]


def _check_recipe(plan: Plan, base: TrainConfig) -> None:
    """Raises RunFolderError when the folder holds a run that is not to be compared with those of ``base``."""
    for record in read_records(plan.out):
        own = {"seed", "method"} | (options_for("method") if record["config"]["method"] else set())
        own |= set() if record["config"]["teacher"] else options_for("teacher")
        found = differences(record["config"], to_dict(base))
        own |= set(record["config"].get("left_open", ()))  # as earlier versions recorded what each run chose for itself
        found = [name for name in found if not {name, name.partition(".")[0]} & own and name not in plan.varied]
        if found:
            raise RunFolderError(
                f"{plan.out} holds runs with another {', '.join(found)}, which cannot be compared with these; "
                f"choose another {setting('out')}"
            )


def _make(plan: Plan, prepared: Preparation, progress: Progress, stopped: Sequence[int]) -> None:
    _check_recipe(plan, with_values(plan.base, prepared.recipe))
    for past in read_records(plan.out):
        check_same_data(past, prepared.data, plan.out)
    arms: dict[str, tuple[str, TrainConfig]] = {}
    pending, total = _pending(plan), sum(map(len, plan.configs.values()))
    progress.expect(total, total - len(pending))
    for arm, seed in pending:
        name, config = f"{arm}, seed {seed}", with_values(plan.configs[seed][arm], prepared.recipe)
        if arm in prepared.refused:
            reason = prepared.refused[arm]
            progress.finish(name, f"not run: {reason}")
            write_record(record_path(plan.out, arm, seed), arm, config, {"not_run": reason})
        else:
            arms[name] = (arm, config)
    runs = [
        Run(name=name, task=train_task(config, plan.folder(arm, config.seed))) for name, (arm, config) in arms.items()
    ]
    unfinished = []
    for run, result in execute(runs, progress, stopped, plan.executor):
        arm, config = arms[run.name]
        record = record_path(plan.out, arm, config.seed)
        if isinstance(result, Interrupted):
            unfinished.append(run.name)
        elif isinstance(result, RunError | UsageError):
            progress.finish(run.name, f"failed: {result}")
            write_record(record, arm, config, {"failed": str(result)})
        elif isinstance(result, Exception):
            raise result
        else:
            content = {**result, "data_sha256": prepared.data, **logs(plan.folder(arm, config.seed))}
            write_record(record, arm, config, content)
            progress.finish(run.name, result_line(result))
            write_comparison(plan.out, plan.title)
    if stopped:
        raise interrupted(stopped, f" in {' and '.join(unfinished)}" if unfinished else "")


def _prepare(plan: Plan, progress: Progress, stopped: Sequence[int]) -> Preparation:
    """See `prepare_runs`."""
    first: dict[str, TrainConfig] = {}
    for arm, seed in _pending(plan):
        first.setdefault(arm, plan.configs[seed][arm])
    return prepare_runs(plan.base, first, "checking methods", progress, stopped, plan.executor)


def _add_label_agreement(plan: Plan) -> None:
    """Gives the records of runs that know of no teacher their agreement with that of the others."""
    taught = None
    for record in read_records(plan.out):
        metrics, seed = record.get("metrics", {}), record["config"]["seed"]
        if record["config"]["teacher"] or not metrics or "teacher_agreement" in metrics:
            continue
        own = read_results(plan.folder(record["arm"], seed))
        if own is None or own.section is None or own.predictions is None:
            continue
        taught = _with_teacher(plan) if taught is None else taught
        agreement = None if taught is None else own.section.agreement(own.predictions, taught.predictions)
        if agreement is not None:
            metrics["teacher_agreement"] = agreement
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


def _with_teacher(plan: Plan) -> Results | None:
    """The results of a run with the teacher, which has stored its answers."""
    for record in read_records(plan.out):
        if record["config"]["teacher"] and "metrics" in record:
            found = read_results(plan.folder(record["arm"], record["config"]["seed"]))
            if found is not None and found.predictions is not None:
                return found
    return None
