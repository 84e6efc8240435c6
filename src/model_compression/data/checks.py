"""What is odd about a data set and no error yet: worth a line to the person who trains on it."""

import hashlib
from collections.abc import Iterator

import numpy as np

from model_compression.data.dataset import Dataset
from model_compression.data.lazy import LazyImages


def oddities(train: Dataset, test: Dataset) -> list[str]:
    """One line for each: a class without images, a single class, test images that are training images as well."""
    found = []
    for dataset in filter(lambda dataset: dataset.labelled, (train, test)):
        counts = dataset.class_counts()
        absent = [dataset.class_names[label] for label in np.flatnonzero(counts == 0)]
        if np.count_nonzero(counts) == 1:
            found.append(f"{dataset.name}: all images are of the class {dataset.class_names[counts.argmax()]}")
        elif absent:
            found.append(f"{dataset.name}: no images of {', '.join(absent[:5])}{' …' if len(absent) > 5 else ''}")
    leaked = num_shared_images(train, test)
    if leaked:
        found.append(f"{leaked} of {len(test)} test images are in the training set too: test accuracy will flatter")
    return found


def num_shared_images(train: Dataset, test: Dataset) -> int:
    """How many images of ``test`` are, to the byte, in ``train`` as well; of images not decoded yet, their files."""
    if train.image_shape != test.image_shape:
        return 0
    tested = list(_digests(test))  # the smaller set is held, the larger one passes by
    wanted = set(tested)
    shared = {digest for digest in _digests(train) if digest in wanted}
    return sum(digest in shared for digest in tested)


def _digests(dataset: Dataset) -> Iterator[bytes]:
    images = dataset.images
    for row in range(len(dataset)):
        content = images.content(row) if isinstance(images, LazyImages) else images[row : row + 1].tobytes()
        yield hashlib.sha256(content).digest()
