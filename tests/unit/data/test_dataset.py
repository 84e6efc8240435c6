"""Dataset: construction, digest, subset, hold-out."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compression.core.errors import DataError, UsageError
from model_compression.data.class_numbers import class_numbers
from model_compression.data.dataset import Dataset, content_digest
from model_compression.data.hold_out import hold_out, hold_out_test


def made(labels=(0, 1, 2, 1, 0, 2), **changes):
    labels = labels if isinstance(labels, np.ndarray) else np.array(labels, dtype=np.int64)
    images = np.arange(len(labels) * 12, dtype=np.uint8).reshape(-1, 3, 2, 2)
    fields = {
        "name": "trial",
        "samples": images,
        "labels": labels,
        "class_names": ("a", "b", "c"),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2),
    }
    return Dataset(**(fields | changes))


def test_dataset_knows_its_sizes():
    dataset = made()
    assert (len(dataset), dataset.num_classes, dataset.image_shape) == (6, 3, (3, 2, 2))
    assert dataset.class_counts().tolist() == [2, 2, 2]


def test_dataset_counts_classes_without_images():
    assert made(labels=(0, 0)).class_counts().tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"samples": np.zeros((6, 3, 2, 2), dtype=np.float32)}, "float32"),
        ({"samples": np.zeros((6, 2, 2), dtype=np.uint8)}, r"\(6, 2, 2\)"),
        ({"samples": [[1]]}, "a list"),
        ({"samples": np.zeros((0, 3, 2, 2), dtype=np.uint8)}, "at least one image"),
        ({"samples": np.zeros((5, 3, 2, 2), dtype=np.uint8)}, r"shape \(5,\)"),
        ({"labels": np.zeros(6, dtype=np.int32)}, "int32"),
        ({"labels": np.array([0, 1, 2, 3, 0, 0])}, "the first is 3 of image 3; expected 0 to 2"),
        ({"labels": np.array([0, 1, -1, 2, 0, 0])}, "the first is -1 of image 2"),
        ({"class_names": ()}, "class names"),
        ({"class_names": ("a", "b", "a")}, "no two the same"),
        ({"mean": (0.5,)}, "expected 3 finite values"),
        ({"std": (0.2, 0.0, 0.2)}, "std > 0"),
        ({"mean": (0.5, float("nan"), 0.5)}, "finite"),
        ({"digest": "abc"}, "64 hexadecimal"),
    ],
)
def test_dataset_refuses_what_is_malformed(changes, named):
    with pytest.raises(DataError, match=named):
        made(**changes)


def test_dataset_is_frozen():
    with pytest.raises(AttributeError):
        made().labels = np.zeros(6, dtype=np.int64)


def test_digest_is_sha256_of_shape_pixels_and_labels():
    dataset = made()
    expected = hashlib.sha256(b"uint8 6x3x2x2\n" + bytes(range(72)))
    for label in (0, 1, 2, 1, 0, 2):
        expected.update(label.to_bytes(8, "little"))
    assert dataset.digest == expected.hexdigest()


def test_digest_ignores_memory_layout_and_label_byte_order():
    dataset = made()
    fortran = np.asfortranarray(dataset.images)
    assert content_digest(fortran, dataset.labels.astype(">i8")) == dataset.digest


def test_digest_changes_with_any_pixel_label_or_shape():
    dataset = made()
    images, labels = dataset.images.copy(), dataset.labels.copy()
    images[5, 2, 1, 1] ^= 1
    labels[0] = 1
    digests = {
        dataset.digest,
        content_digest(images, dataset.labels),
        content_digest(dataset.images, labels),
        content_digest(dataset.images.reshape(6, 3, 4, 1), dataset.labels),
    }
    assert len(digests) == 4


def test_subset_keeps_order_and_gets_its_own_digest():
    dataset = made(source="somewhere")
    part = dataset.subset([4, 1, 1])
    assert part.labels.tolist() == [0, 1, 1]
    assert part.images[0, 0, 0, 0] == 4 * 12
    digests = {made().subset(rows).digest for rows in ([4, 1, 1], [4, 1], [1, 4, 1])}
    assert len(digests | {dataset.digest}) == 4
    assert part.digest in digests
    assert part.source == "somewhere"


@pytest.mark.parametrize("indices", [[], [6], [-1], [0.5], [[0, 1]], [True, False]])
def test_subset_refuses_impossible_indices(indices):
    with pytest.raises(UsageError, match="indices into trial"):
        made().subset(indices)


def test_hold_out_is_stratified_and_disjoint():
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    train, validation = hold_out(made(labels=labels, samples=numbered(60)), 12, seed=3)
    assert validation.class_counts().tolist() == [2, 4, 6]
    assert train.class_counts().tolist() == [8, 16, 24]
    assert sorted([*numbers(train), *numbers(validation)]) == list(range(60))
    assert (train.name, validation.name) == ("trial", "trial-validation")  # messages show them


def test_hold_out_keeps_the_order_of_the_data_set():
    train, validation = hold_out(made(labels=[0, 1, 2] * 20, samples=numbered(60)), 12, seed=3)
    assert numbers(train) == sorted(numbers(train))
    assert numbers(validation) == sorted(numbers(validation))


def test_hold_out_depends_on_the_seed_alone():
    dataset = made(labels=[0, 1, 2] * 20, samples=numbered(60))
    np.random.default_rng(0).random(5)
    first, again, other = (hold_out(dataset, 12, seed=seed)[1] for seed in (3, 3, 4))
    assert first.digest == again.digest
    assert first.digest != other.digest


def test_hold_out_is_the_same_on_every_machine():
    _, validation = hold_out(made(labels=[0, 1, 2] * 20, samples=numbered(60)), 6, seed=0)
    assert numbers(validation) == [12, 23, 34, 35, 49, 57]  # as first drawn; a change would mix train and validation


@given(
    counts=st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(lambda counts: sum(counts) > 1), data=st.data()
)
def test_hold_out_gives_each_class_its_share_within_one_and_leaves_none_out(counts, data):
    labels = np.repeat([0, 1, 2], counts)
    count = data.draw(st.integers(1, len(labels) - 1))
    train, validation = hold_out(made(labels=labels, samples=numbered(len(labels))), count, seed=1)
    assert len(validation) == count
    assert len(train) == len(labels) - count
    counts, held = np.array(counts), validation.class_counts()
    exact = counts * count / len(labels)
    if np.all((exact >= 1) & (exact <= counts - 1)):
        assert np.all(np.abs(held - exact) < 1)
    if (counts > 1).sum() <= count <= np.maximum(counts - 1, 0).sum():
        assert np.all((held > 0) == (counts > 1))
        assert np.all((train.class_counts() > 0) == (counts > 0))


def test_hold_out_test_takes_a_fifth_or_one_of_each_class():
    said = []
    whole = made(labels=np.repeat([0, 1, 2], [20, 2, 1]), samples=numbered(23))
    train, test = hold_out_test(whole, "nothing", said.append)
    assert (train.class_counts().tolist(), test.class_counts().tolist()) == ([16, 1, 1], [4, 1, 0])
    pairs = made(labels=np.repeat([0, 1, 2], [2, 2, 2]), samples=numbered(6))
    train, test = hold_out_test(pairs, "nothing", said.append)
    assert (train.class_counts().tolist(), test.class_counts().tolist()) == ([1, 1, 1], [1, 1, 1])
    assert said[1] == "nothing: 3 of 6 images are held out for the test"


@pytest.mark.parametrize("count", [0, -1, 6, 7])
def test_hold_out_refuses_impossible_counts(count):
    with pytest.raises(UsageError, match="choose 1 to 5"):
        hold_out(made(), count, seed=0)


def numbered(count):
    """Images whose first pixel is their number."""
    images = np.zeros((count, 3, 2, 2), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images


def numbers(dataset):
    return dataset.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "caf\udce9"])
def test_class_names_that_cannot_be_printed_are_refused(name):
    images, labels = np.zeros((2, 3, 4, 4), dtype=np.uint8), np.array([0, 1])
    with pytest.raises(DataError, match="has characters that cannot be printed; give it another"):
        Dataset(name="x", samples=images, labels=labels, class_names=("a", name), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize("labels", [[0, -1], [0, 100_000], [10**12], [-2, -1]])
def test_labels_that_can_be_no_class_numbers_are_refused(labels):
    with pytest.raises(DataError, match=f"x: labels run from {min(labels)} to {max(labels)}; expected class numbers"):
        class_numbers([np.array(labels[:1]), np.array(labels)], "x")


def test_labels_from_1_on_are_refused_and_gaps_are_classes():
    with pytest.raises(DataError, match=r"x: labels must be 0…K−1; got 1…3: subtract 1, or name the classes, 0 among"):
        class_numbers([np.array([1, 2]), np.array([3, 1])], "x")
    numbers, names = class_numbers([np.array([2, 0], dtype=">i2"), np.array([1, 4], dtype=np.uint8)], "x")
    assert names == ("0", "1", "2", "3", "4")
    assert [(part.tolist(), part.dtype) for part in numbers] == [([2, 0], np.int64), ([1, 4], np.int64)]


@pytest.mark.parametrize("dtype", [object, str])
def test_texts_are_classes_in_sorted_order(dtype):
    given = [np.array(["pear", "10", "apple"], dtype=dtype), np.array(["9", "pear"], dtype=dtype)]
    numbers, names = class_numbers(given, "x")
    assert names == ("10", "9", "apple", "pear")
    assert [part.tolist() for part in numbers] == [[3, 0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([0.0, 1.0], "a label is 0.0;"),
        ([True, False], "a label is True;"),
        (["a", None], "a label is None beside texts"),
    ],
)
def test_labels_of_another_kind_are_refused(labels, text):
    with pytest.raises(DataError, match=text):
        class_numbers([np.array(labels)], "x")


def test_arrays_of_any_layout_are_held_as_torch_takes_them():
    images = numbered(6)
    frozen = images.copy()
    frozen.flags.writeable = False
    for array in (np.asfortranarray(images), images[:, :, ::-1], frozen):
        held = made(samples=array).images
        np.testing.assert_array_equal(held, array)
        assert held.flags.c_contiguous
        assert held.flags.writeable
    assert made(samples=images).images is images
