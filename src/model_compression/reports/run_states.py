"""How far the runs below a folder are: finished, running, stopped, or damaged."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from model_compression.core.errors import ModelCompressionError, UsageError
from model_compression.reports.groups import run_recipe
from model_compression.reports.run_files import RunFiles, has_state, read_run
from model_compression.reports.words import sentence

State = Literal["finished", "running", "stopped", "damaged"]
_DEPTH = 3  # folders of schemes and comparisons below a folder of experiments


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run at ``path``: what it is in words, its seed, the epochs that are done, of how many, and the last accuracy.

    ``accuracy`` is on ``eval_set``, None where none was measured yet; ``age_s`` are seconds since something was
    written last. A damaged run says in ``what`` what is wrong, and has no epochs.
    """

    path: Path
    state: State
    what: str
    seed: int | None
    done: int
    epochs: int
    accuracy: float | None
    eval_set: str
    age_s: float

    @property
    def resumable(self) -> bool:
        """Whether `resume` goes on with it from a state."""
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
        run = read_run(folder)
    except (ModelCompressionError, OSError) as error:
        return RunState(
            path=folder, state="damaged", what=str(error), seed=None, done=0, epochs=0, accuracy=None,
            eval_set="test", age_s=age_s,
        )  # fmt: skip
    state: State = "finished" if run.metrics is not None else "running" if _is_locked(folder) else "stopped"
    return RunState(
        path=folder,
        state=state,
        what=sentence(run_recipe(run)),
        seed=run.seed,
        done=len(run.events),
        epochs=int(run.config["epochs"]),
        accuracy=_accuracy(run),
        eval_set=run.eval_set,
        age_s=age_s,
    )


def _accuracy(run: RunFiles) -> float | None:
    if run.accuracy is not None:
        return run.accuracy
    measured = [event[f"{run.eval_set}_accuracy"] for event in run.events if f"{run.eval_set}_accuracy" in event]
    return float(measured[-1]) if measured else None


def _is_locked(folder: Path) -> bool:
    """Whether a process has the run; a folder that was never locked is left as it is."""
    if not (folder / ".lock").exists():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except (Timeout, OSError):
        return True
