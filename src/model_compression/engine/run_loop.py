"""The epochs of a run: each is recorded and saved, and a signal stops them with the state kept."""

import signal
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from model_compression.core import processes
from model_compression.core.config import TrainConfig
from model_compression.core.errors import Interrupted
from model_compression.core.metric import Metric
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.engine.checkpoint import State, save_state
from model_compression.engine.contracts import Progress
from model_compression.engine.events import EventLog
from model_compression.engine.first_stage import run_first_stage
from model_compression.engine.observer import Observer
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.setup import Prepared
from model_compression.engine.trackers import Tracker
from model_compression.engine.trainer_state import restore, state_of
from model_compression.models.weights import save_weights


def is_stalled(values: Sequence[float], patience: int, metric: Metric) -> bool:
    """Whether the last ``patience`` of the ``values``, of one epoch each, are no better than one before them."""
    best = min(range(len(values)), key=lambda epoch: metric.order(values[epoch]), default=0)
    return len(values) - 1 - best >= patience


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
            restore(self._trainer, state)
        self._trainer.report = observer.message
        self._trainer.gradients.received_signal = self._received
        write = processes.is_main()
        self._events = EventLog(run.events, progress["events"], logs.get("events"), observer.message, write=write)
        self._timing = EventLog(run.timing, progress["timing"], logs.get("timing"), observer.message, write=write)
        self._begun: float = time.monotonic() - progress["seconds"]

    @property
    def seconds(self) -> float:
        """That the run has taken, its parts before interruptions included."""
        return time.monotonic() - self._begun

    @property
    def next_epoch(self) -> int:
        """The number of the first epoch that is not done, from 1."""
        return self._trainer.epoch + 1

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
        run_first_stage(trainer, self._watch_first_stage)
        while not self._ended():
            event = self._epoch()
            for tracker in trackers:
                tracker.epoch(event)
            if config.keep_every and event["epoch"] % config.keep_every == 0:
                self._keep_weights(event["epoch"])
            self._observer.epoch_done(event)
            gradients = trainer.gradients
            (gradients.stopped_by,) = trainer.runtime.agree(gradients.received_signal())
            if gradients.stopped_by:
                self._stop()
            if self._ended():
                self._check_end()
            due = event["epoch"] % config.checkpoint_every == 0 or self._ended()
            if due and not trainer.guard.alarmed:
                self._save()
        if trainer.step < trainer.total_steps:
            epochs = f"{config.patience} epochs" if config.patience > 1 else "an epoch"
            self._observer.message(
                f"stopped after epoch {trainer.epoch} of {config.epochs}: {epochs} without a better "
                f"{trainer.task.metric.label} on {self._prepared.data.evaluation_name} data; the last epoch is kept"
            )

    def _ended(self) -> bool:
        """Whether the last epoch is done, or the result on held-out data has long not become better."""
        trainer, patience = self._trainer, self._config.patience
        if trainer.step >= trainer.total_steps:
            return True
        if not patience or trainer.step % trainer.steps_per_epoch:
            return False
        key = trainer.task.metric.key(self._prepared.data.evaluation_name)
        return is_stalled([event[key] for event in self._events.events], patience, trainer.task.metric)

    def _received(self) -> int:
        """The signal that has come, or that the launcher of several processes would have sent before it was killed."""
        if self._stopped:
            return int(self._stopped[0])
        return signal.SIGTERM if processes.is_orphan() else 0

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
        if self._config.patience or (every and (event["epoch"] % every == 0 or last)):
            name = self._trainer.task.metric.key(self._prepared.data.evaluation_name)
            event[name] = self._trainer.evaluate(self._prepared.data.evaluation)
        self._events.append(event)
        self._timing.append({"epoch": event["epoch"], "seconds": round(seconds, 3)})
        return event

    def _keep_weights(self, epoch: int) -> None:
        if processes.is_main():
            save_weights(self._run.path / f"student-{epoch}.safetensors", self._trainer.network)

    def _save(self) -> None:
        if not processes.is_main():
            return
        counts = {"events": self._events.count, "timing": self._timing.count, "seconds": self.seconds}
        logs = {"events": self._events.events, "timing": self._timing.events}
        facts = {
            "step": self._trainer.step,
            "code": self._prepared.code,
            **self._prepared.identity,
            **counts,
            "logs": logs,
        }
        save_state(self._run.state, State(tensors=state_of(self._trainer), progress=facts))

    def _watch(self, progress: Progress) -> None:
        self._observer.stepped(progress)
        gradients = self._trainer.gradients
        if self._trainer.runtime.world_size == 1:  # several have agreed in the step
            gradients.stopped_by = gradients.received_signal()
        if gradients.stopped_by and self._trainer.step % self._trainer.steps_per_epoch:
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
        return Interrupted(
            f"{said}; {way_on}", exit_code=128 + (self._trainer.gradients.stopped_by or self._stopped[0])
        )
