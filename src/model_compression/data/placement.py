"""Which datasets are held in memory, decoded, and which are decoded batch by batch while they are trained on."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from model_compression.core.config import Resident
from model_compression.core.errors import UsageError
from model_compression.core.free_memory import available_memory_bytes
from model_compression.data.dataset import Dataset
from model_compression.data.loader_images import LoaderImages
from model_compression.data.on_demand import ArraySource, OnDemandImages

_SHARE = 4  # decoded images take at most this part of the memory that is free: networks and a run need the rest
_MAX_WORKERS = 8
_WORKERS_ALWAYS, _WORKERS_EACH = 32, 4  # what may be asked for: as many, or so many for each processor


def place_images(
    train: Dataset,
    test: Dataset,
    resident: Resident = "auto",
    workers: int | None = None,
    report: Callable[[str], None] | None = None,
) -> tuple[Dataset, Dataset]:
    """Both sets as ``resident`` wants them: "on" in memory, "off" streamed, "auto" in memory where that is a quarter
    of what is free at most. ``workers`` processes decode what is streamed; None: `default_workers`.

    A set that is in memory already stays there unless "off" is said. Digests, and so runs, are the same either way.
    """
    processors = os.cpu_count() or 1
    if workers is not None and workers > max(_WORKERS_ALWAYS, _WORKERS_EACH * processors):
        raise UsageError(
            f"workers must be at most {max(_WORKERS_ALWAYS, _WORKERS_EACH * processors)} on {processors} processors, "
            f"got {workers}; each is a process with its own memory"
        )
    workers = default_workers() if workers is None else workers
    if resident == "off":
        return _stream(train, workers), _stream(test, workers)
    size = sum(dataset.images.size_bytes for dataset in (train, test) if isinstance(dataset.images, OnDemandImages))
    free = available_memory_bytes()
    if resident == "auto" and size > free // _SHARE:
        if report is not None:
            report(
                f"{train.name}: its {len(train) + len(test):,} images would take {size / 2**30:.1f} GiB of the "
                f"{free / 2**30:.1f} GiB that are free: {workers or 'no'} other processes decode them while the "
                "network trains"
            )
        return _stream(train, workers), _stream(test, workers)
    return _hold(train), _hold(test)


def default_workers() -> int:
    """One process fewer than there are processors for this one, at least 1 and at most 8."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MAX_WORKERS, count - 1))


def _stream(dataset: Dataset, workers: int) -> Dataset:
    images = dataset.images
    if isinstance(images, LoaderImages):
        return dataset
    if isinstance(images, np.ndarray):
        images = OnDemandImages(source=ArraySource(images), rows=np.arange(len(images)))
    return dataclasses.replace(dataset, images=dataclasses.replace(images, workers=workers))


def _hold(dataset: Dataset) -> Dataset:
    if not isinstance(dataset.images, OnDemandImages):
        return dataset
    return dataclasses.replace(dataset, images=dataset.images[:])
