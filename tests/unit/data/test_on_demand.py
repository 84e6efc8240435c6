"""Images that are decoded when they are asked for: indexed as an array is, known by what they are made of."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from model_compression.core.errors import DataError
from model_compression.data.dataset import Dataset
from model_compression.data.hold_out import hold_out
from model_compression.data.on_demand import ArraySource, OnDemandImages, evenly, mean_and_std


@dataclass
class Source:
    """Images of one value each, with a record of what was decoded."""

    count: int
    threads: int = 1
    image_shape: tuple = (3, 2, 4)
    decoded: list = field(default_factory=list)
    names: dict = field(default_factory=dict)

    def decode(self, number):
        self.decoded.append(number)
        return np.full(self.image_shape, number % 251, dtype=np.uint8)

    def identity(self, number):
        return self.names.get(number, f"{number}.png").encode()

    def content(self, number):
        return bytes([number % 251])


def lazy(count, **options):
    source = Source(count, **options)
    return source, OnDemandImages(source=source, rows=np.arange(count))


def values(images):
    assert images.dtype == np.uint8
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [slice(2), slice(None), slice(1, None, 4), np.array([7, 0, 7]), np.array([], int)])
def test_lazy_images_are_indexed_as_an_array_is(rows, threads):
    source, images = lazy(9, threads=threads)
    expected = np.arange(9, dtype=np.uint8)[rows]
    assert values(images[rows]) == expected.tolist()
    assert images[rows].shape == (len(expected), 3, 2, 4)
    assert sorted(source.decoded) == sorted(expected.tolist() * 2)  # and nothing else was decoded


def test_lazy_subset_of_a_subset_decodes_nothing_until_it_is_indexed():
    source, images = lazy(9)
    part = images.subset(np.array([8, 3, 1, 5])).subset(np.array([0, 2]))
    assert (len(part), part.shape, source.decoded) == (2, (2, 3, 2, 4), [])
    assert values(part[:]) == [8, 1]


def test_lazy_image_of_another_size_is_named():
    source, images = lazy(3)
    source.decode = lambda number: np.zeros((3, 2, 4 + number), dtype=np.uint8)
    with pytest.raises(DataError, match=r"image 1 is \(3, 2, 5\), the first is \(3, 2, 4\); expected one size"):
        images[:]


def dataset(images, **options):
    settings = {"class_names": ("a", "b"), "mean": (0.5,) * 3, "std": (0.2,) * 3}
    return Dataset(name="d", samples=images, labels=np.arange(len(images)) % 2, **settings | options)


def test_lazy_digest_sees_names_labels_order_and_sampled_content():
    _, images = lazy(2500)
    digest = dataset(images).digest
    assert dataset(lazy(2500)[1]).digest == digest
    others = [dataset(lazy(2500, names={1: "other.png"})[1]), dataset(images.subset(np.arange(2500)[::-1]))]
    others += [dataset(lazy(2501)[1]), dataset(lazy(2500, image_shape=(3, 4, 2))[1])]
    others.append(Dataset(**{**vars(dataset(images)), "labels": 1 - dataset(images).labels, "digest": ""}))
    for number in (0, 2499):  # the first and the last are always in the sample
        source, changed = lazy(2500)
        source.content = lambda n, number=number: b"x" if n == number else bytes([n % 251])
        others.append(dataset(changed))
    assert len({digest, *(other.digest for other in others)}) == len(others) + 1


def test_lazy_digest_reads_a_thousand_contents_and_decodes_nothing():
    source, images = lazy(5000)
    read = []
    source.content = lambda number: read.append(number) or b""
    dataset(images)
    assert (len(set(read)), min(read), max(read), source.decoded) == (1000, 0, 4999, [])


def test_lazy_data_set_is_held_out_as_an_array_is():
    pixels = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 4), dtype=np.uint8)
    _, images = lazy(30)
    for found, expected in zip(hold_out(dataset(images), 7, 0), hold_out(dataset(pixels), 7, 0), strict=True):
        assert isinstance(found.images, OnDemandImages)
        np.testing.assert_array_equal(found.images[:], expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.thumbnails(np.array([1, 3])), expected.images[[1, 3]])
        assert found.num_viewable == len(found)


def test_evenly_takes_first_and_last_and_all_of_few():
    assert evenly(3).tolist() == [0, 1, 2]
    assert evenly(1).tolist() == [0]
    assert evenly(100, 5).tolist() == [0, 25, 50, 74, 99]


def test_mean_and_std_are_those_of_float64():
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 5), dtype=np.uint8)
    mean, std = mean_and_std(images)
    scaled = images.astype(np.float64) / 255
    assert mean == pytest.approx(scaled.mean(axis=(0, 2, 3)), abs=5e-6)
    assert std == pytest.approx(scaled.std(axis=(0, 2, 3)), abs=5e-6)
    assert mean_and_std(np.zeros((2, 3, 1, 1), dtype=np.uint8))[1] == (1e-5,) * 3


def test_array_source_gives_the_array_back():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 5), dtype=np.uint8)
    images = OnDemandImages(source=ArraySource(pixels), rows=np.arange(5))
    np.testing.assert_array_equal(images[1:4], pixels[1:4])
    assert images.shape == pixels.shape
    assert images.size_bytes == pixels.nbytes
