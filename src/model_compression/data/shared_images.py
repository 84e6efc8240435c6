"""Images that are in two datasets."""

import hashlib
from collections.abc import Iterator

from model_compression.data.dataset import Dataset
from model_compression.data.on_demand import OnDemandImages


def count_shared_images(train: Dataset, test: Dataset) -> int:
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
        content = images.content(row) if isinstance(images, OnDemandImages) else images[row : row + 1].tobytes()
        yield hashlib.sha256(content).digest()
