"""The resident loader: orders, views and batches are functions of what they should be, and no image is left out."""

import dataclasses
import gc
import weakref

import numpy as np
import pytest
import torch

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.data.augment import apply_plan, sample_plan
from model_compression.data.batches import balanced_order, epoch_order
from model_compression.data.dataset import Dataset
from model_compression.data.loader import ResidentLoader

N = 23
CPU = torch.device("cpu")


@pytest.fixture
def dataset():
    images = np.random.default_rng(0).integers(0, 256, (N, 3, 8, 6), dtype=np.uint8)
    labels = np.arange(N, dtype=np.int64) % 4
    return Dataset(name="d", samples=images, labels=labels, class_names=tuple("abcd"), mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.fixture
def loader(dataset):
    def built(**options):
        return ResidentLoader(dataset, DataConfig(**options), CPU)

    return built


def test_epoch_order_is_a_permutation_and_a_function_of_seed_and_epoch():
    orders = {(seed, epoch): epoch_order(500, seed, epoch) for seed in range(3) for epoch in range(3)}
    for key, order in orders.items():
        assert sorted(order.tolist()) == list(range(500))
        assert torch.equal(order, epoch_order(500, *key))
    assert len({tuple(order.tolist()) for order in orders.values()}) == 9


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(7, 3, [3, 4]), (8, 3, [3, 3, 2]), (9, 3, [3] * 3), (3, 2, [3]), (1, 4, [1]), (3, 1, [1] * 3), (4, 3, [4])],
)
def test_image_alone_in_the_last_batch_joins_the_one_before(dataset, count, batch_size, sizes):
    few = dataset.subset(range(count))
    loader = ResidentLoader(few, DataConfig(), torch.device("cpu"))
    batches = list(loader.epoch(epoch=1, seed=2, batch_size=batch_size))
    assert [len(batch.targets) for batch in batches] == sizes
    assert loader.steps(batch_size) == len(sizes)
    assert torch.equal(torch.cat([batch.ids for batch in batches]), epoch_order(count, 2, 1))


def test_epoch_order_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    epoch_order(10, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_loader_epoch_shows_every_image_once_with_its_label(dataset, loader):
    batches = list(loader().epoch(epoch=2, seed=1, batch_size=5))
    assert [len(batch.targets) for batch in batches] == [5, 5, 5, 5, 3]  # the last partial batch is kept
    indices = torch.cat([batch.ids for batch in batches])
    assert torch.equal(indices, epoch_order(N, 1, 2))
    for batch in batches:
        assert batch.inputs.dtype == torch.uint8
        np.testing.assert_array_equal(batch.inputs.numpy(), dataset.images[batch.ids])
        np.testing.assert_array_equal(batch.targets.numpy(), dataset.labels[batch.ids])


@pytest.mark.parametrize("first", [0, 1, 3, 4, 5])
def test_loader_epoch_goes_on_from_any_batch(loader, first):
    made = loader(augmentation="flip_shift")
    whole = list(made.epoch(epoch=3, seed=1, batch_size=5))
    rest = list(made.epoch(epoch=3, seed=1, batch_size=5, first=first))
    assert len(rest) == 5 - first
    for expected, found in zip(whole[first:], rest, strict=True):
        assert torch.equal(expected.ids, found.ids)
        assert torch.equal(expected.inputs, found.inputs)


def test_loader_in_order_shows_a_view_in_index_order(loader):
    made = loader(augmentation="flip_shift", shift=2, view_seed=9)
    batches = list(made.in_order(view=5, batch_size=10))
    assert torch.equal(torch.cat([batch.ids for batch in batches]), torch.arange(N))
    plan = sample_plan("flip_shift", torch.arange(N), view_seed=9, view=5, shift=2)
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), apply_plan(made.images, plan))
    assert {batch.view for batch in batches} == {5}


def test_loader_images_depend_on_view_and_index_and_not_on_the_batch(loader):
    made = loader(augmentation="flip_shift")
    shuffled = {}
    for batch in made.epoch(epoch=4, seed=7, batch_size=4):
        assert batch.view == 4
        shuffled |= dict(zip(batch.ids.tolist(), batch.inputs, strict=True))
    for batch in made.in_order(view=4, batch_size=11):
        for index, image in zip(batch.ids.tolist(), batch.inputs, strict=True):
            assert torch.equal(image, shuffled[index])


@pytest.mark.parametrize(
    ("options", "views"),
    [
        ({}, [0, 0, 0, 0, 0]),
        ({"views": 2}, [0, 0, 0, 0, 0]),
        ({"augmentation": "flip"}, [0, 1, 2, 3, 4]),
        ({"augmentation": "flip", "views": 2}, [0, 1, 0, 1, 0]),
        ({"augmentation": "flip_shift", "views": 3}, [0, 1, 2, 0, 1]),
    ],
)
def test_loader_views_follow_the_epochs(loader, options, views):
    made = loader(**options)
    assert [made.view_of(epoch) for epoch in range(5)] == views
    assert [next(made.epoch(epoch=epoch, seed=0, batch_size=9)).view for epoch in range(5)] == views


def test_loader_order_does_not_depend_on_the_view_seed_nor_views_on_the_seed(loader):
    first, second = loader(augmentation="flip"), loader(augmentation="flip", view_seed=1)
    one, two = (next(made.epoch(epoch=0, seed=0, batch_size=N)) for made in (first, second))
    assert torch.equal(one.ids, two.ids)
    assert not torch.equal(one.inputs, two.inputs)
    other = next(first.epoch(epoch=0, seed=1, batch_size=N))
    assert not torch.equal(one.ids, other.ids)
    assert torch.equal(one.inputs[one.ids.argsort()], other.inputs[other.ids.argsort()])


def test_loader_takes_batches_that_are_larger_than_the_data_set(loader):
    (batch,) = loader().epoch(epoch=0, seed=0, batch_size=1000)
    assert len(batch.targets) == len(loader()) == N


def test_loader_refuses_a_shift_that_no_border_can_reflect(loader):
    assert loader(augmentation="flip_shift", shift=5)
    assert loader(augmentation="flip", shift=50)  # has no effect there
    with pytest.raises(UsageError, match="shift must be below the images' 6 pixels, got 6"):
        loader(augmentation="flip_shift", shift=6)


def test_images_are_on_a_device_once_and_as_long_as_their_data_set(dataset, uploads):
    first = ResidentLoader(dataset, DataConfig(), CPU)
    same = dataclasses.replace(dataset, name="another name")
    assert ResidentLoader(same, DataConfig(augmentation="flip"), CPU).images is first.images
    other = dataset.subset(range(N))  # another digest
    assert ResidentLoader(other, DataConfig(), CPU).images is not first.images
    assert uploads == ["d", "d[23]"]
    kept = weakref.ref(first.images)
    del first
    assert ResidentLoader(dataset, DataConfig(), CPU).images is kept()
    assert len(uploads) == 2


def test_images_leave_the_device_with_the_last_data_set_of_theirs(uploads):
    settings = {"class_names": ("a", "b"), "mean": (0.5,), "std": (0.2,), "labels": np.arange(2)}
    one = Dataset(name="d", samples=np.zeros((2, 1, 4, 4), dtype=np.uint8), **settings)
    two = dataclasses.replace(one)
    images = weakref.ref(ResidentLoader(one, DataConfig(), CPU).images)
    assert ResidentLoader(two, DataConfig(), CPU).images is images()
    del one
    gc.collect()
    assert images() is not None
    del two
    gc.collect()
    assert images() is None
    assert len(uploads) == 1


@pytest.mark.parametrize("counts", [(90, 7, 3), (5, 5, 5), (1, 40, 2)], ids=str)
def test_balanced_order_shows_classes_and_their_samples_equally_often(counts):
    labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat([4, 0, 9], counts)))
    seen = torch.zeros(len(labels), dtype=torch.long)
    orders = [balanced_order(labels, 3, epoch) for epoch in range(12)]
    for epoch, order in enumerate(orders):
        assert len(order) == len(labels)
        of_class = torch.stack([(labels[order] == name).sum() for name in (4, 0, 9)])
        assert of_class.max() - of_class.min() <= 1
        assert torch.equal(order, balanced_order(labels, 3, epoch))  # whatever came before
        seen += torch.bincount(order, minlength=len(labels))
        for name in (4, 0, 9):
            own = seen[labels == name]
            assert own.max() - own.min() <= 1
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], balanced_order(labels, 4, 0))


def test_a_loader_samples_classes_equally_often_where_it_is_asked_to(dataset):
    labels = np.where(np.arange(N) < 18, 0, dataset.labels)
    unequal = dataclasses.replace(dataset, labels=labels, digest="")
    loader = ResidentLoader(unequal, DataConfig(sampling="balanced"), CPU)
    batches = list(loader.epoch(epoch=2, seed=1, batch_size=5))
    assert torch.equal(torch.cat([batch.ids for batch in batches]), balanced_order(torch.from_numpy(labels), 1, 2))
    assert all(torch.equal(batch.targets, torch.from_numpy(labels)[batch.ids]) for batch in batches)
