"""Resumes what a folder holds: a run, or a stage of several."""

from contextlib import chdir
from pathlib import Path
from typing import Any

from model_compression.compression.pipeline import Compression
from model_compression.compression.prune import Pruning
from model_compression.compression.quantize import Quantisation
from model_compression.core.errors import UsageError
from model_compression.core.files import user_path
from model_compression.engine.observer import Observer
from model_compression.engine.relative_paths import origin
from model_compression.engine.runs import resume_run
from model_compression.engine.stages import Stage
from model_compression.experiments.schemes import Scheme

StageKind = type[Stage[Any, Any]]
_KINDS: tuple[StageKind, ...] = (Pruning, Quantisation, Compression, Scheme)


def stage_kind(folder: str | Path) -> StageKind | None:
    """What ``folder`` holds besides a run; None for a run, or nothing."""
    path = user_path(folder)
    return next((kind for kind in _KINDS if (path / kind.FILE).is_file()), None)


def resume(folder: str | Path, observer: Observer, *, lr: float | None = None) -> dict[str, Any]:
    """Does what is left; returns what the run or stage does. ``lr``: as for `resume_run`.

    Raises UsageError for an ``lr`` for several runs, RunFolderError when nothing is left, Interrupted after a signal.
    """
    kind, path = stage_kind(folder), user_path(folder)
    if kind is None:
        return resume_run(path, observer, lr=lr)
    if lr is not None:
        raise UsageError("lr is for one run: give the folder of the stage that stopped, then resume the whole")
    began = origin(path) or Path.cwd()
    path = path if began == Path.cwd() else path.resolve()
    with chdir(began):  # where the relative paths of all its stages are
        result: dict[str, Any] = kind.at(path, observer).resume()
        return result
