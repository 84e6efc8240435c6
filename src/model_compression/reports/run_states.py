"""How far the runs below a folder are: finished, running, stopped, or damaged."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from model_compression.core.errors import ModelCompressionError, UsageError
from model_compression.core.metric import DEFAULT_METRIC, Metric
from model_compression.core.text import size
from model_compression.reports.compression_stages import FILE as STAGES
from model_compression.reports.groups import run_recipe
from model_compression.reports.run_files import QUANTISED, RunFiles, read_run
from model_compression.reports.run_results import has_state
from model_compression.reports.shipped import read_shipped
from model_compression.reports.words import sentence

State = Literal["finished", "running", "stopped", "damaged"]
_DEPTH = 3  # folders of schemes and comparisons below a folder of experiments


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run at ``path``: its recipe in words, its seed, how many of its epochs are done, and its last result.

    A file that ships, of a quantisation or a compression, is listed as well: at its folder, without seed and epochs.
    ``result`` is the ``metric`` on ``eval_set``, None before the first evaluation; ``age_s`` are seconds since the last
    file was written. For a damaged run, ``what`` is the reason, and there are no epochs.
    """

    path: Path
    state: State
    what: str
    seed: int | None
    done: int
    epochs: int
    metric: Metric
    result: float | None
    eval_set: str
    age_s: float

    @property
    def resumable(self) -> bool:
        """Whether `resume` continues it."""
        return self.state == "stopped" and has_state(self.path)


def run_states(folder: Path) -> list[RunState]:
    """The runs in ``folder`` and below, what was written last first. Raises UsageError where there is no folder."""
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is {'a file' if folder.exists() else 'not there'}; expected a folder with runs in it, as runs/"
        )
    return sorted((_state(path) for path in _run_folders(folder, _DEPTH)), key=lambda run: run.age_s)


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / "config.json").is_file():
        yield folder
    elif depth:
        is_stage = (folder.parent / "compress.json").is_file()  # whose end is that of the compression
        if (folder / STAGES).is_file() or ((folder / QUANTISED).is_file() and not is_stage):
            yield folder
        try:
            children = [child for child in folder.iterdir() if child.is_dir() and not child.is_symlink()]
        except OSError:  # it may not be looked into, and is listed as what cannot be read
            yield folder
            return
        for child in children:
            yield from _run_folders(child, depth - 1)


def _state(folder: Path) -> RunState:
    age_s = 0.0
    try:
        written = [path.stat().st_mtime for path in folder.iterdir() if path.is_file() and path.name != ".lock"]
        age_s = max(0.0, time.time() - max(written, default=0.0))
        ships = None if (folder / "config.json").is_file() else read_shipped(folder)
        if ships is not None:
            what = f"what ships: {ships.what}, {size(ships.size_bytes)}"
            return RunState(
                path=folder, state="finished", what=what, seed=None, done=0, epochs=0, metric=ships.metric,
                result=ships.result, eval_set="test", age_s=age_s,
            )  # fmt: skip
        run = read_run(folder)
    except (ModelCompressionError, OSError) as error:
        return RunState(
            path=folder, state="damaged", what=str(error), seed=None, done=0, epochs=0, metric=DEFAULT_METRIC,
            result=None, eval_set="test", age_s=age_s,
        )  # fmt: skip
    state: State = "finished" if run.metrics is not None else "running" if _is_locked(folder) else "stopped"
    return RunState(
        path=folder,
        state=state,
        what=sentence(run_recipe(run)),
        seed=run.seed,
        done=len(run.events),
        epochs=int(run.config["epochs"]),
        metric=run.metric,
        result=_last_result(run),
        eval_set=run.eval_set,
        age_s=age_s,
    )


def _last_result(run: RunFiles) -> float | None:
    if run.result is not None:
        return run.result
    key = run.metric.key(run.eval_set)
    return next((float(event[key]) for event in reversed(run.events) if key in event), None)


def _is_locked(folder: Path) -> bool:
    """Whether a process has the run; a folder that was never locked is left as it is."""
    if not (folder / ".lock").exists():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except (Timeout, OSError):
        return True
