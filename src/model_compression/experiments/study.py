"""The trials of a search, in a storage that any number of processes share: claimed, reported, taken over from the dead.

Optuna proposes the settings (tree-structured Parzen estimators, Bergstra et al. 2011) and prunes (median rule).
"""

import dataclasses
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_compression.core.errors import UsageError, reason_of
from model_compression.core.extras import check_extra
from model_compression.core.files import writing_failed
from model_compression.core.metric import DEFAULT_METRIC, RECORDED, Metric, primary_metric
from model_compression.core.options import setting
from model_compression.experiments.search_space import Tuned

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_BEAT_S = 30.0
_SILENT_S = 150.0  # without a beat a trial's process on another machine counts as dead
_FIRST = 10  # trials with settings at random
_NUMBER, _AGAIN, _OWNER, _BEAT, _FAILED = "number", "again", "owner", "beat", "failed"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial as results show it. ``score`` is the metric with the sign that makes higher better, None without one.

    ``state`` is "complete", "pruned" or "failed", with the ``reason``; ``epochs`` are those that were evaluated.
    """

    number: int
    settings: dict[str, Any]
    score: float | None
    epochs: int
    state: str
    reason: str = ""
    metric: Metric = DEFAULT_METRIC


class Study:
    """The trials of one search; ``wanted`` of them are to be made, the first with ``defaults``,
    or the values nearest to them.

    Raises MissingExtraError without Optuna, UsageError for a storage that cannot be opened.
    """

    def __init__(
        self, name: str, storage: str, space: Sequence[Tuned], defaults: dict[str, Any], wanted: int, seed: int
    ):
        check_extra("search", "a search")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._wanted, self._seed = space, wanted, seed
        self._distributions = {tuned.name: _distribution(tuned) for tuned in space}
        self._mine: dict[int, float] = {}  # trial's number → when it beat last
        self._seen: dict[int, tuple[Any, float]] = {}  # a trial of others → its beat, and when that was new
        opened = _opened(storage)
        pruner = optuna.pruners.MedianPruner()
        try:
            self._study = optuna.create_study(storage=opened, study_name=name, direction="maximize", pruner=pruner)
            self._study.enqueue_trial({tuned.name: tuned.nearest(defaults[tuned.name]) for tuned in space})
        except optuna.exceptions.DuplicatedStudyError:
            self._study = optuna.load_study(storage=opened, study_name=name, pruner=pruner)

    def claim(self) -> "optuna.Trial | None":
        """The next trial to make, with its settings in ``params``; None when there is none to begin."""
        import optuna

        self._release_dead()
        trials = self._live()
        waiting = any(trial.state == optuna.trial.TrialState.WAITING for trial in trials)
        if len(trials) >= self._wanted and not waiting:
            return None
        trial = self._study.ask()
        before = [other for other in self._study.get_trials(deepcopy=False) if other.number < trial.number]
        if _NUMBER not in trial.user_attrs:
            if len([other for other in before if other.state != optuna.trial.TrialState.FAIL]) >= self._wanted:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)  # another process was faster
                return None
            trial.set_user_attr(_NUMBER, _number_after(before))
        trial.set_user_attr(_OWNER, _me())
        self._mine[trial.number] = time.monotonic()
        # A sampler of its own makes what is proposed a function of the seed and the trials before, not of the process.
        self._study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=_FIRST,
            multivariate=False,
            constant_liar=True,
            seed=(self._seed * 1_000_003 + number_of(trial)) % 2**32,
        )
        for name, distribution in self._distributions.items():
            trial._suggest(name, distribution)
        return trial

    def beat(self, trial: "optuna.Trial") -> None:
        """Tells the others now and then that the trial's process lives."""
        now = time.monotonic()
        if now - self._mine[trial.number] > _BEAT_S:
            self._mine[trial.number] = now
            trial.set_user_attr(_BEAT, time.time())

    def complete(self, trial: "optuna.Trial", metrics: Mapping[str, Any]) -> None:
        """The trial has the ``metrics`` of its run."""
        metric = primary_metric(metrics)
        trial.set_user_attr(RECORDED, dataclasses.asdict(metric))
        self._study.tell(trial, metric.gain(metrics[metric.key("validation")], 0.0))
        del self._mine[trial.number]

    def prune(self, trial: "optuna.Trial", failed: str = "") -> None:
        """The trial was stopped as it was below the median, or ``failed``."""
        import optuna

        if failed:
            trial.set_user_attr(_FAILED, failed)
        self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        del self._mine[trial.number]

    def release(self, trial: "optuna.Trial") -> None:
        """The trial was interrupted; whoever comes next goes on with it."""
        self._renew(self._study.trials[trial.number])
        del self._mine[trial.number]

    @property
    def is_done(self) -> bool:
        """Whether all trials that are wanted have ended, those of other processes too."""
        trials = self._live()
        return len(trials) >= self._wanted and all(trial.state.is_finished() for trial in trials)

    @property
    def trials(self) -> list[Trial]:
        """Those that have ended, by number."""
        found = []
        for trial in self._live():
            if trial.state.is_finished():
                failed = trial.user_attrs.get(_FAILED, "")
                found.append(
                    Trial(
                        number=number_of(trial),
                        settings={tuned.name: trial.params[tuned.name] for tuned in self._space},
                        score=None if failed else trial.value,
                        epochs=len(trial.intermediate_values),
                        state="failed" if failed else trial.state.name.lower(),
                        reason=failed,
                        metric=primary_metric(trial.user_attrs),
                    )
                )
        return sorted(found, key=lambda trial: trial.number)

    def _live(self) -> "list[FrozenTrial]":
        """All trials but those whose process died, which have a successor."""
        import optuna

        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != optuna.trial.TrialState.FAIL]

    def _release_dead(self) -> None:
        import optuna

        for trial in self._live():
            runs_elsewhere = trial.state == optuna.trial.TrialState.RUNNING and trial.number not in self._mine
            if runs_elsewhere and self._is_dead(trial):
                self._renew(trial)

    def _is_dead(self, trial: "FrozenTrial") -> bool:
        """Whether the process of a trial is gone: from this machine, or silent for long."""
        owner = trial.user_attrs.get(_OWNER)
        if owner is not None and owner["host"] == _me()["host"]:
            return bool(owner != {**owner, **_process(owner["pid"])})
        beat = (owner, trial.user_attrs.get(_BEAT))
        known, since = self._seen.get(trial.number, (None, 0.0))
        if known != beat:
            self._seen[trial.number] = (beat, time.monotonic())
            return False
        return time.monotonic() - since > _SILENT_S

    def _renew(self, trial: "FrozenTrial") -> None:
        """Replaces a trial that did not end by a new one of the same number, with the same settings if it had all."""
        import optuna

        before = [other for other in self._study.get_trials(deepcopy=False) if other.number < trial.number]
        try:
            self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        except (ValueError, RuntimeError):  # another process was faster
            return
        has_all = all(name in trial.params for name in self._distributions)
        known = trial.params if has_all else trial.system_attrs.get("fixed_params", {})
        number = trial.user_attrs.get(_NUMBER, _number_after(before))
        self._study.enqueue_trial(known, user_attrs={_NUMBER: number, _AGAIN: True})


def _number_after(before: "Sequence[FrozenTrial]") -> int:
    """The number of the trial that is asked for after ``before``: their successors have those that they replace."""
    return sum(_AGAIN not in other.user_attrs for other in before)


def number_of(trial: "optuna.Trial | FrozenTrial") -> int:
    """The number of a trial that was claimed, from 0; its successors keep it."""
    return int(trial.user_attrs[_NUMBER])


def _distribution(tuned: Tuned) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if tuned.choices:
        return CategoricalDistribution(tuned.choices)
    if tuned.kind is int:
        return IntDistribution(int(tuned.low), int(tuned.high), log=tuned.log)
    return FloatDistribution(tuned.low, tuned.high, log=tuned.log)


def _opened(storage: str) -> "optuna.storages.BaseStorage":
    """A journal file, or a database by its address."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    try:
        if "://" in storage:
            return optuna.storages.RDBStorage(storage)
        path = Path(storage).absolute()  # the lock is a link to it
        path.parent.mkdir(parents=True, exist_ok=True)
        return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        raise writing_failed(storage, error) from error
    except Exception as error:  # of SQLAlchemy, a driver
        kind, _, rest = storage.partition("://")
        address = f"{kind}://{rest.rpartition('@')[2]}" if rest else storage  # without a password
        raise UsageError(
            f"{setting('storage')} {address} cannot be opened: {reason_of(error)}; expected a file for a journal, or "
            "the address of a database that SQLAlchemy opens, as sqlite:///search.db or postgresql://USER@HOST/NAME"
        ) from None


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), **_process(os.getpid())}


def _process(number: int) -> dict[str, Any]:
    """A process of this machine, with its start where Linux tells: numbers are used again. Empty for none."""
    try:
        started = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
        return {"pid": number, "started": started}
    except OSError:
        pass
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return {"pid": None, "started": None}
    except OSError:
        pass
    return {"pid": number, "started": None}
