"""A search for better settings of a run: trials on held-out images, then the best against the defaults, paired."""

import dataclasses
import hashlib
import json
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_compression.core.errors import Interrupted, UsageError
from model_compression.core.files import read_json, write_json
from model_compression.core.run_options import short_name, with_values
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.stop_requests import stop_requests
from model_compression.experiments.executor import Run, execute
from model_compression.experiments.processes import MachineError, RunError
from model_compression.experiments.records import check_same_data
from model_compression.experiments.run_lists import Progress, interrupted, prepare_runs, result_line, train_task
from model_compression.experiments.search_plan import SearchPlan
from model_compression.experiments.search_results import Found, finish, shown
from model_compression.experiments.search_space import check_effects, settings_of, with_settings_of
from model_compression.experiments.study import Study, number_of

if TYPE_CHECKING:
    import optuna

_POLL_S = 1.0


def make_search(plan: SearchPlan, progress: Progress) -> Found:
    """Makes the trials that are not made, with whoever else works on them, then the final runs; ``progress`` watches.

    Raises UsageError for a run that cannot be made, RunFolderError when ``plan.out`` holds another search, and
    Interrupted after a signal, with everything saved.
    """
    identity = plan.identity
    name = f"{short_name(plan.base)}-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]}"
    with stop_requests() as stopped:
        prepared = prepare_runs(plan.base, {"run": plan.trial_config}, "checking", progress, stopped, plan.executor)
        if prepared.refused:
            raise UsageError(prepared.refused["run"])
        plan = dataclasses.replace(plan, base=with_values(plan.base, prepared.recipe))
        check_effects(plan.base, plan.space)
        defaults = settings_of(plan.base, plan.space)
        study = Study(name, plan.storage, plan.space, defaults, plan.trials, plan.base.seed)
        if plan.results.exists():
            check_same_data(read_json(plan.results), prepared.data, plan.out)
        else:
            write_json(plan.results, {**identity, "data_sha256": prepared.data})
        progress.expect(plan.trials, len(study.trials))
        _Trials(plan, study, progress, stopped).make()
    identity["data_sha256"] = prepared.data
    return finish(plan, identity, study.trials, defaults, progress)


class _Trials:
    """Makes trials by an executor, and watches them for it."""

    def __init__(self, plan: SearchPlan, study: Study, progress: Progress, stopped: Sequence[int]):
        self._plan, self._study, self._progress, self._stopped = plan, study, progress, stopped
        self._active: dict[str, tuple[Run, optuna.Trial]] = {}
        self._pruned: set[str] = set()
        self.begin, self.message = progress.begin, progress.message

    def make(self) -> None:
        """Makes trials until all have ended, those of other processes too. Raises Interrupted after a signal."""
        waits = False
        while not self._study.is_done:
            for run, result in execute(self._claims(), self, self._stopped, self._plan.executor):
                self._end(run, result)
            if self._stopped:
                raise interrupted(self._stopped, "")
            if not waits and not self._study.is_done:
                waits = True
                self.message("other processes make the last trials: waiting for them")
            time.sleep(_POLL_S * (not self._study.is_done))

    def watch(self, name: str, message: dict[str, Any]) -> None:
        """Reports the epochs of a trial, and stops it below the median of the others."""
        self._progress.watch(name, message)
        run, trial = self._active[name]
        self._study.beat(trial)
        if "epoch" in message:
            trial.report(message["score"], message["epoch"])
            if message["epoch"] < self._plan.base.epochs and trial.should_prune():
                self._pruned.add(name)
                run.stop.append(signal.SIGTERM)

    def _claims(self) -> Iterator[Run]:
        """The runs of trials, each claimed when there is a process for it."""
        while (trial := self._study.claim()) is not None:
            number = number_of(trial)
            config = with_settings_of(self._plan.trial_config, self._plan.space, trial.params)
            folder = self._plan.folder(number)
            _wait_until_free(folder)
            run = Run(
                name=f"trial {number} ({', '.join(f'{name} {shown(value)}' for name, value in trial.params.items())})",
                task=train_task(config, folder),
            )
            self._active[run.name] = (run, trial)
            yield run

    def _end(self, run: Run, result: dict[str, Any] | Exception) -> None:
        trial = self._active.pop(run.name)[1]
        if isinstance(result, Interrupted) and run.name in self._pruned:
            self._study.prune(trial)
            self._progress.finish(run.name, "pruned: below the median of the trials so far")
        elif isinstance(result, Interrupted):
            self._study.release(trial)
        elif isinstance(result, MachineError):  # the others would end so too, and count as bad settings
            self._study.release(trial)
            raise MachineError(f"{run.name} failed: {result}; then give the same command again: it goes on from there")
        elif isinstance(result, RunError | UsageError):
            self._study.prune(trial, failed=str(result))
            self._progress.finish(run.name, f"failed: {result}")
        elif isinstance(result, Exception):
            raise result
        else:
            self._study.complete(trial, result["metrics"])
            self._progress.finish(run.name, result_line(result))


def _wait_until_free(folder: Path) -> None:
    """A process whose parent was killed saves its state first, and gives the folder back."""
    run, deadline = RunFolder(folder), time.monotonic() + 30
    while run.config.exists() and not run.metrics.exists() and not run.is_stopped and time.monotonic() < deadline:
        time.sleep(_POLL_S)
