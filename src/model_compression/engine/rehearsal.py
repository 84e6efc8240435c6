"""What is done before the first step, so that no run fails at its end for what could be seen at its beginning."""

import dataclasses
import errno
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from model_compression.core.config import TrainConfig
from model_compression.core.errors import ModelCompressionError, reason_of
from model_compression.engine.observer import Observer
from model_compression.engine.parts import Parts
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.setup import Prepared
from model_compression.engine.trackers import rehearse_trackers

_FEW = 4  # samples that stand for the evaluation set

# Evaluates what is prepared and writes the results into the folder of a run, which took some seconds.
Finish = Callable[[TrainConfig, Prepared, RunFolder, float, Observer], Any]


def rehearse(config: TrainConfig, prepared: Prepared, parts: Parts, observer: Observer, finish: Finish) -> None:
    """Reads the samples that are evaluated, and writes all results once.

    The results are those of the untrained student on a few samples, and go into a temporary folder. Nothing that a run
    is made of changes. Raises what ``finish`` does; an error without a line for the user becomes one.
    """
    parts.read_all(prepared.data.evaluation)
    train, evaluation = (data.head(_FEW) for data in (prepared.data.train, prepared.data.evaluation))
    few = dataclasses.replace(prepared.data, train=train, evaluation=evaluation)
    rehearsed = dataclasses.replace(prepared, data=few)
    try:
        with tempfile.TemporaryDirectory(prefix="model-compression-") as folder, torch.random.fork_rng(devices=[]):
            run = RunFolder(Path(folder) / "rehearsal")
            run.create(config)
            try:
                metrics = finish(config, rehearsed, run, 0.0, observer)
                rehearse_trackers(config, run.path, metrics, observer.message)
            finally:
                run.unlock()
    except Exception as error:
        of_disk = error if isinstance(error, OSError) else error.__cause__
        if isinstance(of_disk, OSError) and of_disk.errno != errno.EFBIG:  # a limit of files' sizes is one here as well
            observer.message(f"writing the results was not tried beforehand: {error}")  # no room beside the run
        elif isinstance(error, ModelCompressionError):
            raise
        else:
            raise ModelCompressionError(
                f"the results of this run could not be written at its end: {type(error).__name__}: {reason_of(error)}; "
                "nothing is trained"
            ) from error
