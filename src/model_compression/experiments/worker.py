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
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from model_compression.core.config import MethodConfig, TrainConfig
from model_compression.core.config_values import from_dict
from model_compression.core.errors import ModelCompressionError, UsageError
from model_compression.core.trust import command
from model_compression.distillation.objective import create_method
from model_compression.distillation.teachers.cache import CachedTeacher
from model_compression.engine.contracts import Progress
from model_compression.engine.events import read_events
from model_compression.engine.parts import Parts
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_run, fill_cache, finish_run
from model_compression.engine.trainer import Trainer

Say = Callable[[dict[str, Any]], None]

_EVERY_S = 0.5


def main() -> int:
    """Does the task; returns 0, or 1 after an error, which is said."""
    say = _channel()
    try:
        task = json.load(sys.stdin)
        with command(task["trust"]["own"], trusts_all=task["trust"]["trusts_all"]):
            result = _prepare(task, say) if task["task"] == "prepare" else _train(task, say)
        say({"result": result})
    except ModelCompressionError as error:
        say({"error": str(error), "usage": isinstance(error, UsageError)})
        return 1
    except Exception as error:  # whatever it is, it is this run's, and a row of the table
        traceback.print_exc()
        reason = str(error).strip().partition("\n")[0]
        say({"error": f"{type(error).__name__}: {reason}".removesuffix(": "), "usage": False})
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
    was_finished = RunFolder(folder).is_finished()  # by a process that died before the record was written
    metrics = finish_run(from_dict(TrainConfig, task["config"]), folder, Reporter(say))
    timing = [line.get("seconds") for line in read_events(RunFolder(folder).timing)]
    seconds = [value for value in timing if isinstance(value, int | float)]
    # The median: an epoch in which the run was stopped counts only from where it went on.
    facts = {"metrics": metrics, "seconds_per_epoch": median(seconds) if seconds else None}
    return facts if was_finished else {**facts, **peak_memory()}


def _prepare(task: dict[str, Any], say: Say) -> dict[str, Any]:
    """Finds which methods cannot run, and why, and stores the teacher's answers if one of them reads them.

    Raises UsageError when it is not the method's fault: with labels only, or the plainest method, it is the same.
    """
    configs = {arm: from_dict(TrainConfig, values) for arm, values in task["configs"].items()}
    reporter = Reporter(say)
    parts = Parts()
    parts.load_data(next(iter(configs.values())).data, reporter.message)
    refused: dict[str, str] = {}
    stored: list[TrainConfig] = []
    plain: TrainConfig | None = None
    for number, (arm, config) in enumerate(configs.items()):
        say({"done": number, "total": len(configs), "note": arm})
        if config.method is None:
            check_run(config, parts)
            continue
        if plain is None:
            plain = dataclasses.replace(config, method=MethodConfig(name="logits"), label_smoothing=0.0)
            check_run(plain, parts)
        try:
            if isinstance(check_run(config, parts).teacher, CachedTeacher):
                stored.append(config)
        except UsageError as error:
            refused[arm] = str(error)
        except Exception:  # its own run will fail, and say why
            traceback.print_exc()
    if stored:
        fill_cache(max(stored, key=_needs_embedding), reporter, parts)
    return {"refused": refused}


def _needs_embedding(config: TrainConfig) -> bool:
    return config.method is not None and "embedding" in create_method(config.method).needs


def peak_memory() -> dict[str, int]:
    """The most that this process held at once: ``peak_memory_bytes``, and ``peak_gpu_memory_bytes`` where one computes.

    Where Linux tells, it is this program's own peak: getrusage's begins with that of the process which started it.
    """
    import torch

    peaks = {}
    peak = _peak_rss()
    if peak is not None:
        peaks["peak_memory_bytes"] = peak
    if torch.cuda.is_initialized():
        peaks["peak_gpu_memory_bytes"] = torch.cuda.max_memory_reserved()
    return peaks


def _peak_rss() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Reporter:
    """An observer that says how far a run is, twice a second at most."""

    def __init__(self, say: Say):
        self._say, self._last = say, 0.0
        self._steps = self._epochs = 0

    def started(self, trainer: Trainer, eval_set: str) -> None:
        """Notes how long the run is."""
        self._steps, self._epochs = trainer.total_steps, trainer.config.epochs
        self._say({"done": trainer.step, "total": self._steps, "note": ""})

    def stepped(self, progress: Progress) -> None:
        """Says how many steps are done."""
        if self._is_due():
            self._say(
                {"done": progress.step, "total": self._steps, "note": f"epoch {progress.epoch + 1}/{self._epochs}"}
            )

    def epoch_done(self, event: dict[str, Any]) -> None:
        """Nothing: the record has it."""

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
