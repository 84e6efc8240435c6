"""Samples that are in two datasets."""

import hashlib
from collections.abc import Iterator

import numpy as np

from model_compression.data.dataset import Dataset
from model_compression.data.on_demand import OnDemandImages
from model_compression.data.samples import Arrays, Samples


def count_shared(train: Dataset, test: Dataset) -> int:
    """How many samples of ``test`` are, to the byte, in ``train`` as well; of images not decoded yet, their files."""
    if train.holds_images and train.image_shape != test.image_shape:
        return 0
    tested = list(_digests(test))  # the smaller set is held, the larger one passes by
    wanted = set(tested)
    shared = {digest for digest in _digests(train) if digest in wanted}
    return sum(digest in shared for digest in tested)


def _digests(dataset: Dataset) -> Iterator[bytes]:
    images = dataset.samples
    if isinstance(images, Samples):
        yield from map(_digest, (images.take(np.array([row])) for row in range(len(images))))
        return
    for row in range(len(dataset)):
        content = images.content(row) if isinstance(images, OnDemandImages) else images[row : row + 1].tobytes()
        yield hashlib.sha256(content).digest()


def _digest(sample: Arrays) -> bytes:
    hasher = hashlib.sha256()
    for array in sample.values() if isinstance(sample, dict) else [sample]:
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.digest()
