"""What is done before the first step, so that no run fails at its end for what could be seen at its beginning."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_compression.core.config import TrainConfig
from model_compression.core.errors import ModelCompressionError
from model_compression.data.dataset import Dataset
from model_compression.data.loader_images import LoaderImages
from model_compression.engine.observer import Observer
from model_compression.engine.parts import Parts
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.setup import Prepared

_FEW = 4  # images that stand for the evaluation set

# Evaluates what is prepared and writes the results into the folder of a run, which took some seconds.
Finish = Callable[[TrainConfig, Prepared, RunFolder, float, Observer], Any]


def rehearse(config: TrainConfig, prepared: Prepared, parts: Parts, observer: Observer, finish: Finish) -> None:
    """Reads the images that are evaluated, and writes all results once.

    The results are those of the untrained student on a few images, and go into a temporary folder. Nothing that a run
    is made of changes. Raises what ``finish`` does; an error without a line for the user becomes one.
    """
    parts.read_all(prepared.data.evaluation)
    few = dataclasses.replace(prepared.data, evaluation=_few(prepared.data.evaluation))
    rehearsed = dataclasses.replace(prepared, data=few)
    try:
        with tempfile.TemporaryDirectory(prefix="model-compression-") as folder, torch.random.fork_rng(devices=[]):
            run = RunFolder(Path(folder) / "rehearsal")
            run.create(config)
            try:
                finish(config, rehearsed, run, 0.0, observer)
            finally:
                run.unlock()
    except Exception as error:
        if isinstance(error, OSError) or isinstance(error.__cause__, OSError):
            observer.message(f"writing the results was not tried beforehand: {error}")  # no room beside the run
        elif isinstance(error, ModelCompressionError):
            raise
        else:
            reason = str(error).strip().partition("\n")[0]
            raise ModelCompressionError(
                f"the results of this run could not be written at its end: {type(error).__name__}: {reason}; nothing "
                "is trained"
            ) from error


def _few(dataset: Dataset) -> Dataset:
    """Some images of ``dataset``, of the same kind."""
    images = dataset.images
    if not isinstance(images, LoaderImages):
        return dataset.subset(np.arange(min(_FEW, len(dataset))))
    first, labels = images.first[:_FEW], dataset.labels[: min(_FEW, len(images.first))]
    batch = (torch.from_numpy(first), torch.from_numpy(labels))
    few = LoaderImages(loader=[batch], first=first, count=len(labels))
    return dataclasses.replace(dataset, images=few, labels=labels, digest="")
