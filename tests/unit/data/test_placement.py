"""What is held in memory and what is streamed: decided by its size against what is free, or by the user."""

import os

import numpy as np
import pytest

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.data import placement
from model_compression.data.dataset import Dataset
from model_compression.data.on_demand import ArraySource, OnDemandImages
from model_compression.data.placement import default_workers, place_images

SIZE = 3 * 4 * 4  # of an image, in bytes


def dataset(count, lazy):
    images = np.random.default_rng(count).integers(0, 256, (count, 3, 4, 4), dtype=np.uint8)
    images = OnDemandImages(source=ArraySource(images), rows=np.arange(count)) if lazy else images
    settings = {"class_names": ("a", "b"), "mean": (0.5,) * 3, "std": (0.2,) * 3}
    return Dataset(name=f"d{count}", samples=images, labels=np.arange(count) % 2, **settings)


@pytest.mark.parametrize(("free", "held"), [(4 * 30 * SIZE, True), (4 * 30 * SIZE - 4, False)])
def test_auto_holds_what_takes_a_quarter_of_the_free_memory(monkeypatch, free, held):
    monkeypatch.setattr(placement, "available_memory_bytes", lambda: free)
    said, pair = [], (dataset(20, True), dataset(10, True))
    found = place_images(*pair, workers=3, report=said.append)
    for before, after in zip(pair, found, strict=True):
        assert isinstance(after.images, np.ndarray) == held
        np.testing.assert_array_equal(after.images[:], before.images[:])
        assert after.digest == before.digest  # so that a run can be resumed where less memory is free
    assert [part.images.workers for part in found if not held] == [3, 3][: 2 * (not held)]
    assert len(said) == (not held)
    if said:
        assert "d20: its 30 images would take 0.0 GiB of the 0.0 GiB that are free: 3 other processes decode" in said[0]


def test_what_is_in_memory_already_stays_there_and_is_not_counted(monkeypatch):
    monkeypatch.setattr(placement, "available_memory_bytes", lambda: 0)
    pair = dataset(20, False), dataset(10, False)
    assert place_images(*pair) == pair


def test_on_and_off_are_obeyed_whatever_is_free(monkeypatch):
    for free in (0, 2**60):
        monkeypatch.setattr(placement, "available_memory_bytes", lambda free=free: free)
        held = place_images(dataset(20, True), dataset(10, False), "on")
        streamed = place_images(dataset(20, True), dataset(10, False), "off", 5)
        assert all(isinstance(part.images, np.ndarray) for part in held)
        assert all(isinstance(part.images, OnDemandImages) and part.images.workers == 5 for part in streamed)
        np.testing.assert_array_equal(streamed[1].images[:], held[1].images)
        assert streamed[1].digest == held[1].digest


def test_default_workers_leave_a_processor_to_the_network(monkeypatch):
    for processors, expected in ((1, 1), (2, 1), (4, 3), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=processors: set(range(n)), raising=False)
        assert default_workers() == expected
    assert place_images(dataset(4, True), dataset(4, True), "off")[0].images.workers == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resident": "yes"}, "unknown resident 'yes'"),
        ({"workers": -1}, "workers must be at least 0 and at most 1,024, got -1"),
    ],
)
def test_data_config_refuses_what_is_no_way_to_hold_images(options, message):
    with pytest.raises(UsageError, match=message):
        DataConfig(**options)


def test_more_workers_than_a_machine_has_use_for_are_refused(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(UsageError, match="workers must be at most 32 on 2 processors, got 1024"):
        place_images(dataset(4, True), dataset(4, True), "off", workers=1024)
