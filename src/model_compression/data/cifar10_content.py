"""What CIFAR-10 is, whatever it came in: six batches of records, and the hashes that prove them.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, FileFormatError

NAME = "CIFAR-10"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.49140, 0.48216, 0.44653)
STD = (0.24703, 0.24349, 0.26159)
CHANNELS, SIDE = 3, 32
IMAGE_BYTES = CHANNELS * SIDE * SIDE
RECORDS_PER_BATCH = 10_000
TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH = "test_batch"
BATCHES = (*TRAIN_BATCHES, TEST_BATCH)

# SHA-256 of training images, training labels, test images, test labels, each as the bytes of a uint8 array.
CONTENT_SHA256 = "32e5966899bde482c0ef7d076bf69809b4b1488c806f657a814cfca4646ec493"

# SHA-256 of the members of the official binary archive: label and 3,072 pixel bytes a record.
BATCH_SHA256 = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays:
    """All of CIFAR-10 or CIFAR-100: images (N, 3, 32, 32), labels (N,) or (N, 2) coarse and fine, all uint8."""

    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One of the six files: images (10000, 3, 32, 32) and labels (10000,), both uint8."""

    images: Bytes
    labels: Bytes


def batch_bytes() -> int:
    """Size of one member of the binary archive."""
    return RECORDS_PER_BATCH * (1 + IMAGE_BYTES)


def batch_of(images: Bytes, labels: Iterable[int], source: str) -> Batch:
    """Checks one batch: ``images`` hold 10,000 × 3,072 bytes in the order R, G, B planes; ``labels`` are 0 to 9.

    Raises FileFormatError that names ``source``.
    """
    values = np.asarray(labels)
    if images.dtype != np.uint8 or images.size != RECORDS_PER_BATCH * IMAGE_BYTES:
        raise FileFormatError(
            f"{source} holds pixels of {images.dtype}, shape {images.shape}; "
            f"expected uint8, {RECORDS_PER_BATCH} × {IMAGE_BYTES}; fetch the file again"
        )
    if values.shape != (RECORDS_PER_BATCH,) or values.dtype.kind not in "iu":
        raise FileFormatError(
            f"{source} holds labels of {values.dtype}, shape {values.shape}; expected {RECORDS_PER_BATCH} integers; "
            "fetch the file again"
        )
    if values.min() < 0 or values.max() >= len(CLASS_NAMES):
        raise FileFormatError(f"{source} holds labels from {values.min()} to {values.max()}; expected 0 to 9")
    return Batch(images=images.reshape(-1, CHANNELS, SIDE, SIDE), labels=values.astype(np.uint8))


def batch_from_records(payload: bytes, source: str) -> Batch:
    """One member of the binary archive: records of a label byte and 3,072 pixel bytes. Raises FileFormatError."""
    if len(payload) != batch_bytes():
        raise FileFormatError(
            f"{source} has {len(payload)} bytes, expected {batch_bytes()}; it is truncated or something else: "
            "fetch the file again"
        )
    records = np.frombuffer(payload, dtype=np.uint8).reshape(RECORDS_PER_BATCH, 1 + IMAGE_BYTES)
    return batch_of(records[:, 1:], records[:, 0], source)


def records_from_batch(batch: Batch) -> bytes:
    """The inverse of batch_from_records: what the official binary file holds."""
    return np.hstack([batch.labels[:, None], batch.images.reshape(RECORDS_PER_BATCH, IMAGE_BYTES)]).tobytes()


def assemble(batches: Iterable[tuple[str, Batch]], source: str) -> Arrays:
    """Puts the six batches, which may come in any order, into their places.

    Raises FileFormatError when one is missing or comes twice; each is copied as it comes, so only one is held.
    """
    records = RECORDS_PER_BATCH * len(BATCHES)
    images = np.empty((records, CHANNELS, SIDE, SIDE), dtype=np.uint8)
    labels = np.empty(records, dtype=np.uint8)
    missing = set(BATCHES)
    for name, batch in batches:
        if name not in missing:
            raise FileFormatError(f"{source} holds {name} twice; expected each of the six batches once")
        missing.remove(name)
        start = BATCHES.index(name) * RECORDS_PER_BATCH
        images[start : start + RECORDS_PER_BATCH] = batch.images
        labels[start : start + RECORDS_PER_BATCH] = batch.labels
    if missing:
        raise FileFormatError(
            f"{source} lacks {', '.join(sorted(missing))}; expected {', '.join(BATCHES)}: fetch it again"
        )
    split = RECORDS_PER_BATCH * len(TRAIN_BATCHES)
    return Arrays(
        train_images=images[:split], train_labels=labels[:split], test_images=images[split:], test_labels=labels[split:]
    )


def sha256_of(arrays: Arrays) -> str:
    """The digest that CONTENT_SHA256 is compared with."""
    hasher = hashlib.sha256()
    for array in (arrays.train_images, arrays.train_labels, arrays.test_images, arrays.test_labels):
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def verify(arrays: Arrays, source: str) -> None:
    """Raises DataError when the content is not that of CIFAR-10, to the byte."""
    found = sha256_of(arrays)
    if found != CONTENT_SHA256:
        raise DataError(
            f"{source} is not {NAME}: SHA-256 of its images and labels is {found}, expected {CONTENT_SHA256}; "
            "it was altered or is another data set: fetch it again, or leave --data-dir out to have it fetched"
        )


def shapes() -> dict[str, tuple[int, ...]]:
    """Those of `Arrays`."""
    train, test = RECORDS_PER_BATCH * len(TRAIN_BATCHES), RECORDS_PER_BATCH
    image = (CHANNELS, SIDE, SIDE)
    return {
        "train_images": (train, *image),
        "train_labels": (train,),
        "test_images": (test, *image),
        "test_labels": (test,),
    }
