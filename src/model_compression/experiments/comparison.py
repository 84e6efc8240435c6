"""The runs of a comparison of methods: those without a record are made, each in a process of its own, and recorded."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
from model_compression.experiments.executor import ONE_BY_ONE, Executor, Run, Watcher, execute
from model_compression.experiments.processes import RunError
from model_compression.experiments.recipes import methods_protocol
from model_compression.experiments.records import check_same_data, differences, is_recorded, logs, write_record
from model_compression.reports.comparison_tables import write_comparison
from model_compression.reports.records import read_records, record_path, save_record
from model_compression.reports.run_results import Results, read_results

_MOST_SEEDS = 1000


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


Pending = list[tuple[str, int]]


class Progress(Watcher, Protocol):
    """Who watches a comparison."""

    def expect(self, total: int, done: int) -> None:
        """``total`` runs make up the comparison, ``done`` of them are recorded already."""

    def end(self, name: str) -> None:
        """What began under this name is over, and is no run."""

    def finish(self, name: str, text: str) -> None:
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
        found = [name for name in found if name.partition(".")[0] not in own and name not in plan.varied]
        if found:
            raise RunFolderError(
                f"{plan.out} holds runs with another {', '.join(found)}, which cannot be compared with these; "
                f"choose another {setting('out')}"
            )


def _make(plan: Plan, pending: Pending, progress: Progress, stopped: Sequence[int]) -> None:
    refused, data = _refused(plan, pending, progress, stopped)
    for past in read_records(plan.out):
        check_same_data(past, data, plan.out)
    arms: dict[str, tuple[str, int]] = {}
    for arm, seed in pending:
        name = f"{arm}, seed {seed}"
        if arm in refused:
            progress.finish(name, f"not run: {refused[arm]}")
            write_record(record_path(plan.out, arm, seed), arm, plan.configs[seed][arm], {"not_run": refused[arm]})
        else:
            arms[name] = (arm, seed)
    runs = [_run(plan, name, *arms[name]) for name in arms]
    unfinished = []
    for run, result in execute(runs, progress, stopped, plan.executor):
        arm, seed = arms[run.name]
        record, config = record_path(plan.out, arm, seed), plan.configs[seed][arm]
        if isinstance(result, Interrupted):
            unfinished.append(run.name)
        elif isinstance(result, RunError | UsageError):
            progress.finish(run.name, f"failed: {result}")
            write_record(record, arm, config, {"failed": str(result)})
        elif isinstance(result, Exception):
            raise result
        else:
            write_record(record, arm, config, {**result, "data_sha256": data, **logs(plan.folder(arm, seed))})
            progress.finish(run.name, result_line(result))
            write_comparison(plan.out, plan.title)
    if stopped:
        raise interrupted(stopped, f" in {' and '.join(unfinished)}" if unfinished else "")


def _run(plan: Plan, name: str, arm: str, seed: int) -> Run:
    return Run(name=name, task=train_task(plan.configs[seed][arm], plan.folder(arm, seed)))


def _refused(plan: Plan, pending: Pending, progress: Progress, stopped: Sequence[int]) -> tuple[dict[str, str], Any]:
    """See `prepare_runs`: the methods that cannot run; the teacher's answers are stored for the others."""
    first: dict[str, TrainConfig] = {}
    for arm, seed in pending:
        first.setdefault(arm, plan.configs[seed][arm])
    return prepare_runs(plan.base, first, "checking methods", progress, stopped, plan.executor)


def train_task(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """The task of `worker` that makes a run in ``folder``, or what is missing of it."""
    return {"task": "train", "config": to_dict(config), "folder": str(folder)}


def prepare_runs(
    base: TrainConfig,
    configs: Mapping[str, TrainConfig],
    name: str,
    progress: Progress,
    stopped: Sequence[int],
    executor: Executor,
) -> tuple[dict[str, str], Any]:
    """Checks the runs of ``configs``, and stores the teacher's answers that they read; ``name`` is what messages show.

    Returns the runs that cannot be made, with the reason, and the digests of the data of ``base``. Raises UsageError
    where none can, Interrupted after a signal.
    """
    task = {
        "task": "prepare",
        "base": to_dict(base),
        "configs": {arm: to_dict(config) for arm, config in configs.items()},
    }
    refused: dict[str, str] = {}
    data: Any = None
    alone = dataclasses.replace(executor, jobs=1)
    for _, result in execute([Run(name=name, task=task)], _Says(progress), stopped, alone):
        if isinstance(result, Interrupted):
            break
        if isinstance(result, RunError):
            raise RunError(f"{name} failed: {result}") from None
        if isinstance(result, Exception):
            raise result
        refused, data = result["refused"], result["data_sha256"]
    if stopped:
        raise interrupted(stopped, " before the first run")
    progress.end(name)
    return refused, data


class _Says:
    """Passes on the lines for the user as well, of which each run would repeat those of the preparation."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self.begin, self.message = progress.begin, progress.message

    def watch(self, name: str, message: dict[str, Any]) -> None:
        if "message" in message:
            self.message(message["message"])
        self._progress.watch(name, message)


def interrupted(stopped: Sequence[int], where: str) -> Interrupted:
    """What a signal ends a list of runs with."""
    return Interrupted(
        f"stopped{where}; what is done is saved; the same command goes on from there", exit_code=128 + stopped[0]
    )


def result_line(result: Mapping[str, Any]) -> str:
    """The result of a run of `train_task` in a line: metric, time and memory."""
    metrics = result["metrics"]
    metric = primary_metric(metrics)
    value = metrics.get(metric.key("validation"), metrics.get(metric.key("test")))
    seconds, peak = result["seconds_per_epoch"], result.get("peak_memory_bytes")
    time = "" if seconds is None else f", {seconds:.1f} s an epoch"
    return f"{metric.text(value)}{time}" + ("" if peak is None else f", {peak / 2**20:,.0f} MiB")


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
