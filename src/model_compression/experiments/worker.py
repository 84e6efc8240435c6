"""The program that `processes` starts: one run in a process of its own, whose memory and failure are its own.

It reads a task from stdin as JSON and answers in JSON lines on stdout; stderr is for tracebacks.
"""

import dataclasses
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from model_compression.core.config import MethodConfig, TrainConfig
from model_compression.core.config_values import from_dict
from model_compression.core.errors import ModelCompressionError, UsageError, reason_of
from model_compression.core.free_memory import most_memory_bytes
from model_compression.core.metric import DEFAULT_METRIC, primary_metric
from model_compression.core.run_options import value_at, with_values
from model_compression.core.trust import command
from model_compression.data.texts import Texts
from model_compression.data.tokenizers import tokenizer_beside
from model_compression.distillation.objective import create_method
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.engine.contracts import Progress
from model_compression.engine.events import read_events
from model_compression.engine.parts import Parts, names_of_networks
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_run, fill_cache
from model_compression.engine.trainer import Trainer
from model_compression.engine.training import Training

Say = Callable[[dict[str, Any]], None]

_EVERY_S = 0.5
_PATIENCE_S = 60


def main() -> int:
    """Does the task; returns 0, or 1 after an error, which is said."""
    say = _channel()
    try:
        task = json.load(sys.stdin)
        with command(task["trust"]["own"], trusts_all=task["trust"]["trusts_all"]):
            result = _prepare(task, say) if task["task"] == "prepare" else _train(task, say)
        say({"result": result})
    except ModelCompressionError as error:
        is_of_machine = isinstance(error.__cause__, OSError)  # as a full disk: with other settings it is the same
        say({"error": str(error), "usage": isinstance(error, UsageError), "is_of_machine": is_of_machine})
        return 1
    except Exception as error:  # whatever it is, it is this run's, and a row of the table
        traceback.print_exc()
        say({"error": f"{type(error).__name__}: {reason_of(error)}", "usage": False})
        return 1
    return 0


def _channel() -> Say:
    """Sends messages to who started this process; what anything else prints on stdout goes to stderr."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        try:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()
        except BrokenPipeError:  # no one is there any more: save the state and end
            signal.raise_signal(signal.SIGTERM)

    return say


def _train(task: dict[str, Any], say: Say) -> dict[str, Any]:
    """Makes the run, or what is missing of it."""
    folder = Path(task["folder"])
    if task.get("attempt", 1) > 1:  # what is left of the attempt before may still save its state
        RunFolder(folder).wait_until_free(_PATIENCE_S)
    was_finished = RunFolder(folder).is_finished()  # by a process that died before the record was written
    past = read_events(RunFolder(folder).events)
    metrics = Training(from_dict(TrainConfig, task["config"]), folder, Reporter(say, past)).finish()
    if was_finished:
        metric = primary_metric(metrics)
        for event in past:
            if (value := event.get(metric.key("validation"))) is not None:
                say({"epoch": event["epoch"], "score": metric.gain(value, 0.0)})
    timing = [line.get("seconds") for line in read_events(RunFolder(folder).timing)]
    seconds = [value for value in timing if isinstance(value, int | float)]
    # The median: an epoch in which the run was stopped counts only from where it went on.
    facts = {"metrics": metrics, "seconds_per_epoch": median(seconds) if seconds else None}
    return facts if was_finished else {**facts, **peak_memory()}


def _prepare(task: dict[str, Any], say: Say) -> dict[str, Any]:
    """Finds which methods cannot run, and why, and stores the teacher's answers if one of them reads them.

    All runs have the recipe that is chosen for the base, where that leaves one open. Raises UsageError when it is not
    the method's fault: with labels only, or the plainest method, it is the same.
    """
    configs = {arm: from_dict(TrainConfig, values) for arm, values in task["configs"].items()}
    reporter = Reporter(say)
    parts = Parts()
    base = from_dict(TrainConfig, task["base"])
    train, test = parts.load_data(base, reporter.message)
    say({"done": 0, "total": len(configs), "note": next(iter(configs))})
    decided = check_run(_plainest(base), parts).config
    recipe = {place: value_at(decided, place) for place in base.left_open}
    if "data.tokenizer" in recipe and isinstance(train.samples, Texts):
        beside = map(tokenizer_beside, names_of_networks(base.student, base.teacher))
        recipe["data.tokenizer"] = next(filter(None, beside), "")
    refused: dict[str, str] = {}
    stored: list[TrainConfig] = []
    for number, (arm, unsettled) in enumerate(configs.items()):
        say({"done": number, "total": len(configs), "note": arm})
        config = with_values(unsettled, recipe)
        if config.method is None:
            check_run(config, parts)
            continue
        try:
            if isinstance(check_run(config, parts).trainer.teacher, CachedTeacher):
                stored.append(config)
        except UsageError as error:
            refused[arm] = str(error)
        except Exception:  # its own run will fail, and say why
            traceback.print_exc()
    if stored:
        fill_cache(max(stored, key=_needs_embedding), reporter, parts)
    return {"refused": refused, "data_sha256": [train.digest, test.digest], "recipe": recipe}


def _plainest(base: TrainConfig) -> TrainConfig:
    """``base`` with the plainest method that its teacher serves, on labels without one."""
    if base.teacher is None:
        return dataclasses.replace(base, method=None)
    name = "kd" if base.teacher_cache_topk else "logits"  # which needs all of them
    name = "align" if base.data.task == "embedding" else name
    return dataclasses.replace(base, method=MethodConfig(name=name), label_smoothing=0.0)


def _needs_embedding(config: TrainConfig) -> bool:
    return config.method is not None and "embedding" in create_method(config.method).needs


def peak_memory() -> dict[str, int]:
    """The most that this process held at once: ``peak_memory_bytes``, and ``peak_gpu_memory_bytes`` where one computes.

    Where Linux tells, it is this program's own peak: getrusage's begins with that of the process which started it.
    """
    import torch

    peaks = {}
    peak = most_memory_bytes()
    if peak is not None:
        peaks["peak_memory_bytes"] = peak
    if torch.cuda.is_initialized():
        peaks["peak_gpu_memory_bytes"] = torch.cuda.max_memory_reserved()
    return peaks


class Reporter:
    """An observer that says how far a run is, twice a second at most, and the result of each epoch, ``past`` first."""

    def __init__(self, say: Say, past: Sequence[dict[str, Any]] = ()):
        self._say, self._past, self._last = say, past, 0.0
        self._steps = self._epochs = 0
        self._key, self._metric = "", DEFAULT_METRIC

    def started(self, trainer: Trainer, eval_set: str) -> None:
        """Notes how long the run is."""
        self._steps, self._epochs = trainer.total_steps, trainer.config.epochs
        self._metric = trainer.task.metric
        self._key = self._metric.key(eval_set)
        self._say({"done": trainer.step, "total": self._steps, "note": ""})
        for event in self._past[: trainer.epoch]:
            self.epoch_done(event)

    def stepped(self, progress: Progress) -> None:
        """Says how many steps are done."""
        if self._is_due():
            self._say(
                {"done": progress.step, "total": self._steps, "note": f"epoch {progress.epoch + 1}/{self._epochs}"}
            )

    def epoch_done(self, event: dict[str, Any]) -> None:
        """Says the primary metric, higher for better, where the epoch was evaluated."""
        if self._key in event:
            self._say({"epoch": event["epoch"], "score": self._metric.gain(event[self._key], 0.0)})

    def teacher_answered(self, done: int, total: int) -> None:
        """Says how many images are answered."""
        if self._is_due() or done == total:
            self._say({"done": done, "total": total, "note": "the teacher answers"})

    def message(self, text: str) -> None:
        """Passes it on."""
        self._say({"message": text})

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last < _EVERY_S:
            return False
        self._last = now
        return True


if __name__ == "__main__":
    sys.exit(main())
