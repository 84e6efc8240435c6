"""PyTorch's datasets and DataLoaders: what they hold is what arrives, and what cannot serve is named."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from model_compression.core.errors import DataError, UsageError
from model_compression.data.on_demand import OnDemandImages
from model_compression.data.torch_datasets import from_loaders, from_torch_datasets, pixels_of

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 3, 6, 5), dtype=np.uint8)
LABELS = np.arange(12) % 3


class Items(torch.utils.data.Dataset):
    """(image, label) as ``make`` has them; ``read`` counts what was asked for."""

    def __init__(self, make=lambda n: (torch.from_numpy(PIXELS[n]), int(LABELS[n])), count=12, **attributes):
        self.make, self.count, self.read = make, count, []
        vars(self).update(attributes)

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        self.read.append(number)
        return self.make(number)


def pil(number, mode="RGB"):
    return Image.fromarray(PIXELS[number].transpose(1, 2, 0)).convert(mode)


def fail(text):
    raise AssertionError(text)


@pytest.mark.parametrize("as_pil", [False, True])
def test_items_arrive_to_the_pixel_with_their_labels(as_pil):
    items = Items((lambda n: (pil(n), LABELS[n])) if as_pil else Items().make)  # a label may be NumPy's
    said = []
    train, test = from_torch_datasets(items, items, said.append)
    assert isinstance(train.images, OnDemandImages)
    np.testing.assert_array_equal(train.images[:], PIXELS)
    np.testing.assert_array_equal(test.labels, LABELS)
    assert train.class_names == ("0", "1", "2")
    assert train.mean == pytest.approx(PIXELS.mean(axis=(0, 2, 3)) / 255, abs=1e-5)
    assert (train.labelled, train.name, test.name) == (True, "Items", "Items-test")
    assert said[0] == "the training dataset lists no labels: each of its 12 items is read for its own"


def test_listed_labels_and_classes_are_taken_without_reading_all_items():
    attributes = {"targets": torch.from_numpy(LABELS), "classes": ["ape", "bee", "cat", "dog"]}
    items = Items(count=12, **attributes)
    part = Subset(items, [7, 2, 0, 3])
    train, test = from_torch_datasets(items, part, fail)
    assert test.labels.tolist() == [1, 2, 0, 0]
    np.testing.assert_array_equal(test.images[:], PIXELS[[7, 2, 0, 3]])
    assert train.class_names == ("ape", "bee", "cat", "dog")
    assert np.array_equal(train.labels, LABELS)


def test_listed_labels_that_are_not_the_items_labels_are_not_believed():
    items = Items(lambda n: (pil(n), 5 - int(LABELS[n])), targets=LABELS.tolist())
    train, _ = from_torch_datasets(items, items, lambda text: None)
    assert train.labels.tolist() == (5 - LABELS).tolist()


def test_items_without_labels_are_unlabelled_for_training_only():
    images, items = Items(pil), Items()
    train, test = from_torch_datasets(images, items, lambda text: None)
    assert (train.labelled, test.labelled) == (False, True)
    assert train.class_names == test.class_names == ("0", "1", "2")
    with pytest.raises(UsageError, match="items of the test dataset have no labels; expected"):
        from_torch_datasets(items, images, lambda text: None)


def test_grey_stays_grey_and_other_modes_become_rgb():
    grey = Image.fromarray(PIXELS[0, 0])
    np.testing.assert_array_equal(pixels_of(grey), PIXELS[0, :1])
    np.testing.assert_array_equal(pixels_of(pil(0).convert("RGBA")), PIXELS[0])
    with pytest.raises(UsageError, match="an image has the mode 'I;16', of more than 8 bits"):
        pixels_of(Image.fromarray(np.zeros((4, 4), dtype=np.uint16)))


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (Items(lambda n: (torch.zeros(3, 6, 5), 0)), r"is torch.float32 \(3, 6, 5\); expected a PIL image or a uint8"),
        (Items(lambda n: {"image": pil(n)}), "an item of the dataset is a dict; expected .image, label."),
        (Items(lambda n: (pil(n), "cat")), "a label of the dataset is 'cat'; expected"),
        (Items(lambda n: (pil(n), -1)), "a label of the dataset is -1"),
        (Items(lambda n: (pil(n), 0.5)), "a label of the dataset is 0.5"),
        (Items(lambda n: (torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8), 0)), "item 0 .* transformed at random"),
        (Items(count=1), "has fewer than two"),
        (Endless(), "the training dataset is a Endless: its items come as a stream, .*; give hf:NAME, .* tar:PATTERN"),
    ],
)
def test_items_that_cannot_serve_are_named(items, message):
    with pytest.raises(UsageError, match=message):
        from_torch_datasets(items, Items(), lambda text: None)


def test_item_of_another_size_or_that_fails_is_named_when_it_is_read():
    larger = Items(lambda n: (pil(n).resize((5, 6 + (n == 9))), 0))
    with pytest.raises(DataError, match=r"image 9 is \(3, 7, 5\), the first is \(3, 6, 5\)"):
        from_torch_datasets(larger, Items(), lambda text: None)
    items = Items(targets=LABELS)
    train, _ = from_torch_datasets(items, Items(), lambda text: None)
    items.make = lambda n: 1 / 0
    with pytest.raises(DataError, match="item 4 of the dataset cannot be read: ZeroDivisionError: division by zero"):
        train.images[4:5]


def floats(count=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(count, 3, 4, 4, generator=generator), torch.arange(count) % 3)


def test_loaders_give_their_first_batch_and_the_test_labels():
    data = floats()
    train, test = from_loaders(DataLoader(data, batch_size=4), DataLoader(data, batch_size=3))
    assert (len(train), len(test), train.image_shape) == (10, 10, (3, 4, 4))
    assert test.labels.tolist() == (np.arange(10) % 3).tolist()
    np.testing.assert_array_equal(train.images[:2], data.tensors[0][:2])
    assert train.num_viewable == 4
    visible = train.thumbnails(np.arange(4))
    assert (visible.dtype, visible.shape, visible.min(), visible.max()) == (np.uint8, (4, 3, 4, 4), 0, 255)
    with pytest.raises(UsageError, match="images of a DataLoader cannot be held out"):
        train.subset([0, 1])
    dropped, _ = from_loaders(DataLoader(data, batch_size=4, drop_last=True), DataLoader(data))
    assert len(dropped) == 8


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(TensorDataset(torch.zeros(4, 3, 4, 4, dtype=torch.uint8), torch.arange(4))), r"is torch.uint8"),
        (DataLoader(TensorDataset(torch.zeros(4, 3, 4, 4))), "is a list of 1 parts; expected .float images"),
        (DataLoader(TensorDataset(torch.zeros(4, 3, 4, 4), torch.zeros(4))), "and torch.float32"),
        (DataLoader(TensorDataset(torch.zeros(4, 3, 4), torch.arange(4))), r"torch.float32 \(1, 3, 4\)"),
        (DataLoader(Endless()), "the training DataLoader has no length"),
        (DataLoader(floats(3), batch_size=4, drop_last=True), "the training DataLoader gives no batches"),
    ],
)
def test_loaders_that_cannot_serve_are_named(loader, message):
    with pytest.raises(UsageError, match=message):
        from_loaders(loader, DataLoader(floats()))
