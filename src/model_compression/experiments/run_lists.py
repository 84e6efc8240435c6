"""What lists of runs share: who watches them, what is found out before the first of them, and lines about them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from model_compression.core.config import TrainConfig
from model_compression.core.config_json import to_dict
from model_compression.core.errors import Interrupted
from model_compression.core.metric import primary_metric
from model_compression.experiments.executor import Executor, Run, Watcher, execute
from model_compression.experiments.processes import RunError


class Progress(Watcher, Protocol):
    """Who watches a comparison."""

    def expect(self, total: int, done: int) -> None:
        """``total`` runs make up the comparison, ``done`` of them are recorded already."""

    def end(self, name: str) -> None:
        """What began under this name is over, and is no run."""

    def finish(self, name: str, text: str) -> None:
        """A run is done, or was none, as ``text`` says."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What was found before the first run: runs that cannot be made with the reason, and the digests of the data.

    ``recipe`` is what all runs have where the base leaves an option open, by place.
    """

    refused: Mapping[str, str]
    data: Any
    recipe: Mapping[str, Any]


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
) -> Preparation:
    """Checks the runs of ``configs``, and stores the teacher's answers that they read; ``name`` is what messages show.

    Raises UsageError where none can be made, Interrupted after a signal.
    """
    task = {
        "task": "prepare",
        "base": to_dict(base),
        "configs": {arm: to_dict(config) for arm, config in configs.items()},
    }
    found = Preparation(refused={}, data=None, recipe={})
    alone = dataclasses.replace(executor, jobs=1)
    for _, result in execute([Run(name=name, task=task)], _Says(progress), stopped, alone):
        if isinstance(result, Interrupted):
            break
        if isinstance(result, RunError):
            raise RunError(f"{name} failed: {result}") from None
        if isinstance(result, Exception):
            raise result
        found = Preparation(refused=result["refused"], data=result["data_sha256"], recipe=result["recipe"])
    if stopped:
        raise interrupted(stopped, " before the first run")
    progress.end(name)
    return found


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
