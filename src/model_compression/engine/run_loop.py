"""The epochs of a run: each is recorded and saved, and a signal stops them with the state kept."""

import time
from collections.abc import Sequence
from typing import Any, NoReturn

from model_compression.core.config import TrainConfig
from model_compression.core.errors import Interrupted
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.engine.checkpoint import State, save_state
from model_compression.engine.contracts import Progress
from model_compression.engine.events import EventLog
from model_compression.engine.observer import Observer
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.setup import Prepared
from model_compression.engine.trackers import Tracker
from model_compression.models.weights import save_weights


class RunLoop:
    """Trains what is ``prepared`` in the folder of ``run``, from ``state`` on, or from the beginning for None.

    ``stopped`` gets the number of a signal when one has come: the run ends at the next step, see `train`.
    """

    def __init__(
        self,
        config: TrainConfig,
        prepared: Prepared,
        run: RunFolder,
        observer: Observer,
        state: State | None,
        stopped: Sequence[int],
    ):
        self._config, self._prepared, self._run, self._observer = config, prepared, run, observer
        self._trainer, self._stopped = prepared.trainer, stopped
        progress: dict[str, Any] = {"events": 0, "timing": 0, "seconds": 0.0} if state is None else state.progress
        logs: dict[str, Any] = progress.get("logs", {})  # states of before have no copy
        if state is not None:
            self._trainer.restore(state)
        self._trainer.report = observer.message
        self._events = EventLog(run.events, progress["events"], logs.get("events"), observer.message)
        self._timing = EventLog(run.timing, progress["timing"], logs.get("timing"), observer.message)
        self._begun: float = time.monotonic() - progress["seconds"]

    @property
    def seconds(self) -> float:
        """That the run has taken, its parts before interruptions included."""
        return time.monotonic() - self._begun

    @property
    def next_epoch(self) -> int:
        """The number of the first epoch that is not done, from 1."""
        return self._trainer.epoch + 1

    @property
    def _is_stopped(self) -> bool:
        """Whether a signal has come, to any process."""
        return self._trainer.runtime.agree(bool(self._stopped))

    def change_lr(self, lr: float) -> None:
        """Goes on with ``lr`` as the schedule's largest rate, also when the run is interrupted again."""
        self._trainer.change_lr(lr)
        self._save()

    def train(self, trackers: Sequence[Tracker]) -> None:
        """Trains to the last epoch; ``trackers`` are told of each. Raises Interrupted after a signal."""
        trainer, config = self._trainer, self._config
        if isinstance(trainer.teacher, CachedTeacher):
            trainer.teacher.between_blocks = self._watch_answers
        self._observer.started(trainer, self._prepared.data.evaluation_name)
        trainer.run_first_stage(self._watch_first_stage)
        while trainer.step < trainer.total_steps:
            event = self._epoch()
            for tracker in trackers:
                tracker.epoch(event)
            if config.keep_every and event["epoch"] % config.keep_every == 0:
                save_weights(self._run.path / f"student-{event['epoch']}.safetensors", trainer.network)
            self._observer.epoch_done(event)
            if self._is_stopped:
                self._stop()
            if trainer.step == trainer.total_steps:
                self._check_end()
            due = event["epoch"] % config.checkpoint_every == 0 or event["epoch"] == config.epochs
            if due and not trainer.guard.alarmed:
                self._save()

    def _check_end(self) -> None:
        """Raises NumericalError when the run has diverged, before its last state replaces one from before that."""
        trainer, eval_set = self._trainer, self._prepared.data.evaluation
        if trainer.objective.warms_up:
            return  # its loss grows with the weights of its terms
        trainer.guard.check_end(
            trainer.total_steps, lambda: trainer.task.guessing_fault(trainer.evaluate(eval_set), eval_set)
        )

    def _epoch(self) -> dict[str, Any]:
        """Trains and records one epoch; returns its event."""
        begun = time.monotonic()
        event = self._trainer.run_epoch(self._watch)
        seconds = time.monotonic() - begun
        every, last = self._config.evaluate_every, event["epoch"] == self._config.epochs
        if every and (event["epoch"] % every == 0 or last):
            name = f"{self._prepared.data.evaluation_name}_{self._trainer.task.metric.name}"
            event[name] = self._trainer.evaluate(self._prepared.data.evaluation)
        self._events.append(event)
        self._timing.append({"epoch": event["epoch"], "seconds": round(seconds, 3)})
        return event

    def _save(self) -> None:
        counts = {"events": self._events.count, "timing": self._timing.count, "seconds": self.seconds}
        logs = {"events": self._events.events, "timing": self._timing.events}
        facts = {
            "step": self._trainer.step,
            "code": self._prepared.code,
            **self._prepared.identity,
            **counts,
            "logs": logs,
        }
        save_state(self._run.state, State(tensors=self._trainer.state(), progress=facts))

    def _watch(self, progress: Progress) -> None:
        self._observer.stepped(progress)
        if self._is_stopped and self._trainer.step % self._trainer.steps_per_epoch:
            self._stop()  # after its last step an epoch is recorded first

    def _watch_answers(self) -> None:
        if self._stopped:
            self._stop()

    def _watch_first_stage(self) -> None:
        if self._stopped:  # nothing is saved: the stage is short, and begins anew
            raise self._interrupted("stopped before the first step")

    def _stop(self) -> NoReturn:
        if self._trainer.guard.alarmed:
            said = "its loss being that of an explosion: the state before is kept"
        else:
            self._save()
            said = "state saved"
        raise self._interrupted(f"stopped at step {self._trainer.step} of {self._trainer.total_steps}, {said}")

    def _interrupted(self, said: str) -> Interrupted:
        way_on = f"continue with: {self._run.way_on}"
        return Interrupted(f"{said}; {way_on}", exit_code=128 + self._stopped[0])
