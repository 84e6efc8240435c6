"""Which data sets are held in memory, decoded, and which are decoded batch by batch while they are trained on."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model_compression.core.config import Resident
from model_compression.core.errors import UsageError
from model_compression.data.dataset import Dataset
from model_compression.data.loader_images import LoaderImages
from model_compression.data.on_demand import ArraySource, OnDemandImages

_SHARE = 4  # decoded images take at most this part of the memory that is free: networks and a run need the rest
_UNKNOWN = 2 * 2**30  # taken for free where the system does not say
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


def available_memory_bytes() -> int:
    """What is free in this machine, or in the container that this process is bound to."""
    bounds = [_machine_bytes(), _container_bytes()]
    return min(bound for bound in bounds if bound is not None)


def _machine_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # no such call, as on Windows
        return _UNKNOWN


def _container_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """None where there is no bound."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int((root / limit).read_text()) - int((root / usage).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return None


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
