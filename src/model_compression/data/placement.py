"""Which datasets are held in memory, decoded, and which are decoded batch by batch while they are trained on."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from model_compression.core.data_config import Resident
from model_compression.core.errors import UsageError
from model_compression.core.free_memory import available_memory_bytes
from model_compression.data.dataset import Dataset
from model_compression.data.loader_images import LoaderImages
from model_compression.data.on_demand import ArraySource, OnDemandImages, OriginalSource
from model_compression.data.samples import Samples

_SHARE = 4  # decoded images take at most this part of the memory that is free: networks and a run need the rest
_MAX_WORKERS = 8
_WORKERS_ALWAYS, _WORKERS_EACH = 32, 4  # what may be asked for: as many, or so many for each processor


def place_images(
    train: Dataset,
    test: Dataset,
    resident: Resident = "auto",
    workers: int | None = None,
    report: Callable[[str], None] | None = None,
    *,
    crops: bool = False,
) -> tuple[Dataset, Dataset]:
    """Both sets as ``resident`` wants them: "on" in memory, "off" streamed, "auto" in memory where that is a quarter
    of what is free at most. ``workers`` processes decode what is streamed; None: `default_workers`.

    A set that is in memory already stays there unless "off" is said. Digests, and so runs, are the same either way.
    Where views crop, ``crops``, training images of files are never held: a crop is cut from the original.
    """
    processors = os.cpu_count() or 1
    if workers is not None and workers > max(_WORKERS_ALWAYS, _WORKERS_EACH * processors):
        raise UsageError(
            f"workers must be at most {max(_WORKERS_ALWAYS, _WORKERS_EACH * processors)} on {processors} processors, "
            f"got {workers}; each is a process with its own memory"
        )
    workers = default_workers() if workers is None else workers
    if resident == "off":
        return stream(train, workers), stream(test, workers)
    of_originals = isinstance(train.samples, OnDemandImages) and isinstance(train.samples.source, OriginalSource)
    if crops and of_originals and not train.has_masks:
        return stream(train, workers), _place([test], resident, workers, report)[0]
    train, test = _place([train, test], resident, workers, report)
    return train, test


def _place(
    sets: list[Dataset], resident: Resident, workers: int, report: Callable[[str], None] | None
) -> list[Dataset]:
    """``sets`` in memory, or all streamed where ``resident`` leaves it open and they are too large together."""
    size = sum(one.samples.size_bytes for one in sets if isinstance(one.samples, OnDemandImages))
    free = available_memory_bytes()
    if resident == "auto" and size > free // _SHARE:
        if report is not None:
            report(
                f"{sets[0].name}: its {sum(map(len, sets)):,} images would take {size / 2**30:.1f} GiB of the "
                f"{free / 2**30:.1f} GiB that are free: {workers or 'no'} other processes decode them while the "
                "network trains"
            )
        return [stream(one, workers) for one in sets]
    return [_hold(one) for one in sets]


def default_workers() -> int:
    """One process fewer than there are processors for this one, at least 1 and at most 8."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MAX_WORKERS, count - 1))


def stream(dataset: Dataset, workers: int) -> Dataset:
    """The same images, decoded batch by batch by ``workers`` processes; samples of other kinds stay as they are."""
    images = dataset.samples
    if isinstance(images, LoaderImages | Samples):
        return dataset
    if isinstance(images, np.ndarray):
        images = OnDemandImages(source=ArraySource(images), rows=np.arange(len(images)))
    return dataclasses.replace(dataset, samples=dataclasses.replace(images, workers=workers))


def _hold(dataset: Dataset) -> Dataset:
    if not isinstance(dataset.samples, OnDemandImages):
        return dataset
    return dataclasses.replace(dataset, samples=dataset.samples[:])
