"""Resumes what a folder holds: a run, or a stage of several."""

from contextlib import chdir
from pathlib import Path
from typing import Any

from model_compression.compression.pipeline import Compression
from model_compression.compression.prune import Pruning
from model_compression.compression.quantize import Quantisation
from model_compression.core import processes
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.engine.observer import Observer
from model_compression.engine.relative_paths import origin
from model_compression.engine.runs import resume_run
from model_compression.engine.stages import Stage
from model_compression.engine.training import Training
from model_compression.experiments.schemes import Scheme

StageKind = type[Stage[Any, Any]]
_KINDS: tuple[StageKind, ...] = (Pruning, Quantisation, Compression, Scheme, Training)


def stage_kind(folder: str | Path) -> StageKind:
    """What ``folder`` holds; a run where it holds nothing, which says so when it is read."""
    path = user_path(folder)
    return next((kind for kind in _KINDS if (path / kind.FILE).is_file()), Training)


def resume(folder: str | Path, observer: Observer, *, lr: float | None = None) -> dict[str, Any]:
    """Does what is left; returns what the run or stage does. ``lr``: as for `resume_run`.

    Raises UsageError for an ``lr`` for several runs, RunFolderError when nothing is left, Interrupted after a signal.
    """
    processes.meet()
    kind, path = processes.on_main(lambda: stage_kind(folder)), user_path(folder)
    if processes.world_size() > 1:
        if kind is not Training:
            raise UsageError(f"{folder} holds a {kind.NOUN}, which one process resumes: leave processes out")
        return resume_run(path, observer, lr=lr)
    if kind is Training:
        run = Training.at(path, observer)
        run.lr = lr
        return run.resume()
    if lr is not None:
        raise UsageError("lr is for one run: give the folder of the stage that stopped, then resume the whole")
    began = origin(path) or Path.cwd()
    path = path if began == Path.cwd() else path.resolve()
    with chdir(began):  # where the relative paths of all its stages are
        result: dict[str, Any] = kind.at(path, observer).resume()
        return result
