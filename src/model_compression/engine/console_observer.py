"""Shows a run on stderr: a bar on a terminal, and a line for each epoch."""

import time
from collections.abc import Callable
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from model_compression.core.console import console
from model_compression.core.files import seen_from_here
from model_compression.core.free_memory import most_memory_bytes
from model_compression.core.metric import DEFAULT_METRIC
from model_compression.core.options import setting
from model_compression.core.text import count, duration, size
from model_compression.engine.contracts import Progress as Training
from model_compression.engine.default_recipe import in_words
from model_compression.engine.trainer import Trainer

_REFRESH_S = 0.5
_FIRST_EPOCHS = 0.1  # before, the time of an epoch is not known well enough
_FEW_STEPS, _SMALL_BATCH = 4, 16
_WARM_STEPS, _MEASURED_S = 3, 5.0  # steps that are not measured, and seconds that are
_SHORT_S = 120.0  # a run that takes no longer is not estimated


class ConsoleObserver:
    """A bar on a terminal, lines elsewhere; all on stderr, so that stdout holds results only."""

    def __init__(self, note: str = "", epochs: int = 0) -> None:
        """``note`` is a line for the beginning of training: errors before it come first.

        ``epochs`` are about those of all runs to come: the bar also shows the time that is left for all of them.
        """
        self._note = note
        self._all_epochs, self._done_epochs, self._begun = epochs, 0.0, time.monotonic()
        self.console = console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            refresh_per_second=4,
            transient=True,
        )
        self._task: TaskID | None = None
        self._teacher_counter: Callable[[int], None] | None = None
        self._messages: set[str] = set()
        self._batch_size = self._epochs = self._num_images = self._steps_per_epoch = 0
        self._last_time, self._last_step = 0.0, 0
        self._epoch_time, self._epoch_step = 0.0, 0
        self._eval_name, self._metric, self._unit = "test", DEFAULT_METRIC, "img/s"
        self._total_steps, self._device = 0, torch.device("cpu")
        self._first_step: int | None = None
        self._measured_from: tuple[int, float] | None = None

    def __enter__(self) -> "ConsoleObserver":
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:  # elsewhere it was not started, and stopping it prints an empty line
            self.progress.stop()

    def message(self, text: str) -> None:
        """Prints a line once: every run repeats the data warnings."""
        if text not in self._messages:
            self._messages.add(text)
            self._line(text)

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def started(self, trainer: Trainer, eval_set: str) -> None:
        """Prints what is trained and how, and opens the bar."""
        if self._note:
            self.message(self._note)
        config = trainer.config
        precision = str(trainer.runtime.precision).removeprefix("torch.")
        names = " beside ".join(seen_from_here(one.name) for one in (config.student, config.peers) if one is not None)
        self._line(
            f"{names}: {len(trainer.loader):,} {trainer.loader.noun}, {count(config.epochs, 'epoch')} of "
            f"{count(trainer.steps_per_epoch, 'step')}, {precision} on {trainer.device.type}"
            + (", compiled" if trainer.compiled else "")
        )
        self.message(f"recipe: {in_words(config)}")
        if trainer.steps_per_epoch < _FEW_STEPS and config.batch_size > _SMALL_BATCH:
            self.message(
                f"few steps an epoch: from as few {trainer.loader.noun} a network learns faster in smaller batches, as "
                f"{setting('batch_size', _SMALL_BATCH)}"
            )
        self._eval_name, self._metric = eval_set, trainer.task.metric
        self._unit = "img/s" if trainer.loader.noun == "images" else f"{trainer.loader.noun}/s"
        self._epochs, self._batch_size = config.epochs, config.batch_size
        self._num_images, self._steps_per_epoch = len(trainer.loader), trainer.steps_per_epoch
        if self._task is not None:  # of the run before, in a scheme
            self.progress.remove_task(self._task)
        self._task = self.progress.add_task("", total=trainer.total_steps, completed=trainer.step, note="")
        self._last_time, self._last_step = time.monotonic(), trainer.step
        self._epoch_time, self._epoch_step = self._last_time, trainer.step
        self._total_steps, self._first_step = trainer.total_steps, trainer.step
        self._device, self._measured_from = trainer.device, None

    def _estimate(self, step: int, now: float) -> None:
        """Says once, some seconds into a long run, how long it takes and how much memory, from steps that it did."""
        if self._first_step is None or step < self._first_step + _WARM_STEPS:
            return
        if self._measured_from is None:  # what the first steps take is another matter: kernels, compilation, answers
            self._measured_from = step, now
            return
        begun_at, begun = self._measured_from
        if now - begun < _MEASURED_S:
            return
        self._first_step = None
        left = (now - begun) / (step - begun_at) * (self._total_steps - step)
        if left > _SHORT_S:
            peak = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else most_memory_bytes()
            memory = "" if peak is None else f", {size(peak)} of memory"
            self._line(f"about {duration(60 * round(left / 60)).removesuffix(' 0 s')}{memory}")

    def stepped(self, progress: Training) -> None:
        """Refreshes the bar twice a second: reading the loss waits for the device."""
        now = time.monotonic()
        if self._task is None:
            return
        self._estimate(progress.step, now)
        if now - self._last_time < _REFRESH_S:
            return
        rate = (self._images(progress.step) - self._images(self._last_step)) / (now - self._last_time)
        self._last_time, self._last_step = now, progress.step
        if self.console.is_terminal:
            score = self._metric.text(progress.score, self._metric.digits - 1)
            note = f"loss {progress.loss:.3f} {self._metric.label} {score} {rate:,.0f} {self._unit}"
            note += self._left_in_all(progress.step)
            self.progress.update(
                self._task,
                completed=progress.step,
                description=f"{progress.epoch + 1}/{self._epochs}",
                note=note,
            )

    def epoch_done(self, event: dict[str, Any]) -> None:
        """A line for the epoch, with its mean rate."""
        now = time.monotonic()
        rate = (self._images(event["step"]) - self._images(self._epoch_step)) / (now - self._epoch_time)
        self._epoch_time, self._epoch_step = now, event["step"]
        line = f"epoch {event['epoch']:>3}/{self._epochs}  loss {event['train_loss']:.4f}  "
        if "train_agreement" in event:  # the images have no labels
            line += f"agrees with the teacher {event['train_agreement']:.2%}"
        else:
            line += f"train {self._metric.text(event[self._metric.key('train')])}"
        key = self._metric.key(self._eval_name)
        if key in event:
            line += f"  {self._eval_name} {self._metric.text(event[key])}"
        self._line(f"{line}  {rate:,.0f} {self._unit}")
        self._done_epochs += 1
        if event["epoch"] == self._epochs and self._task is not None:  # what follows is not training
            self.progress.remove_task(self._task)
            self._task = None

    def _left_in_all(self, step: int) -> str:
        """As ", 12 min in all", where the number of epochs of all runs is known."""
        done = self._done_epochs + step / self._steps_per_epoch % 1
        if not self._all_epochs or done < _FIRST_EPOCHS:
            return ""
        left = (time.monotonic() - self._begun) / done * max(0.0, self._all_epochs - done)
        return f", {duration(left)} in all"

    def _images(self, step: int) -> int:
        """How many images were used by ``step``: the last batch of an epoch may be smaller than the others."""
        epochs, steps = divmod(step, self._steps_per_epoch)
        return epochs * self._num_images + min(steps * self._batch_size, self._num_images)

    def teacher_answered(self, done: int, total: int) -> None:
        """Shows the progress of the teacher's answers."""
        if not done:  # another run stores them
            return
        if self._teacher_counter is None:
            self.message("storing the teacher's answers; later runs read them")
            self._teacher_counter = self.counter("teacher", total)
        self._teacher_counter(done)
        if done == total:
            self._teacher_counter = None

    def counter(self, name: str, total: int, unit: str = "images") -> Callable[[int], None]:
        """A separate bar for other work: call the result with how many are done; the bar goes when all are."""
        task = self.progress.add_task(name, total=total, note="")

        def count(done: int) -> None:
            self.progress.update(task, completed=done, note=f"{done:,} of {total:,} {unit}")
            if done == total:
                self.progress.remove_task(task)

        return count
