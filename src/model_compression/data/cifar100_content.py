"""What CIFAR-100 is, whatever it came in: two files of records, and the hashes that prove them.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, FileFormatError
from model_compression.data.cifar10_content import CHANNELS, IMAGE_BYTES, SIDE, Arrays, Bytes

NAME = "CIFAR-100"
NUM_COARSE = 20
_FINE_LABELS = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CLASS_NAMES = tuple(_FINE_LABELS.split())
MEAN = (0.50708, 0.48655, 0.44092)  # as published for the training images
STD = (0.26733, 0.25644, 0.27615)
RECORDS = {"train": 50_000, "test": 10_000}

# SHA-256 of the members of the official binary archive (coarse label, fine label and 3,072 pixel bytes a record), as
# torchvision-ruby has them, whose hashes of CIFAR-10's members are those of cifar10_content.BATCH_SHA256.
FILE_SHA256 = {
    "train": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
    "test": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
}

Part = tuple[Bytes, Bytes]
"""Images (N, 3, 32, 32) and labels (N, 2), coarse and fine, of one file."""


def part_bytes(name: str) -> int:
    """Size of one member of the binary archive."""
    return RECORDS[name] * (2 + IMAGE_BYTES)


def part_of(images: Bytes, coarse: npt.NDArray[np.integer], fine: npt.NDArray[np.integer], source: str) -> Part:
    """Checks one file's worth: pixels in the order R, G, B planes, coarse labels 0 to 19 and fine ones 0 to 99.

    Raises FileFormatError that names ``source``.
    """
    count = fine.size
    if images.dtype != np.uint8 or images.size != count * IMAGE_BYTES or coarse.shape != fine.shape:
        raise FileFormatError(
            f"{source} holds pixels of {images.dtype}, shape {images.shape}, with labels {coarse.shape} and "
            f"{fine.shape}; expected uint8, {IMAGE_BYTES} for each label; fetch the file again"
        )
    for labels, bound in ((coarse, NUM_COARSE), (fine, len(CLASS_NAMES))):
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or count == 0 or labels.min() < 0 or labels.max() >= bound:
            raise FileFormatError(f"{source} holds labels that are none of 0 to {bound - 1}; fetch the file again")
    both: Bytes = np.stack([coarse, fine], axis=1).astype(np.uint8)
    return images.reshape(-1, CHANNELS, SIDE, SIDE), both


def part_from_records(payload: bytes, source: str) -> Part:
    """One member of the binary archive. Raises FileFormatError."""
    if not payload or len(payload) % (2 + IMAGE_BYTES):
        raise FileFormatError(
            f"{source} has {len(payload)} bytes, expected a multiple of {2 + IMAGE_BYTES}; fetch the file again"
        )
    records = np.frombuffer(payload, dtype=np.uint8).reshape(-1, 2 + IMAGE_BYTES)
    return part_of(records[:, 2:], records[:, 0], records[:, 1], source)


def assemble(parts: Iterable[tuple[str, Part]], source: str) -> Arrays:
    """Both files together. Raises FileFormatError when one is missing, comes twice or has another length."""
    found: dict[str, Part] = {}
    for name, part in parts:
        if name in found:
            raise FileFormatError(f"{source} holds {name} twice; expected train and test once each")
        if len(part[1]) != RECORDS[name]:
            raise FileFormatError(f"{source}: {name} has {len(part[1])} images; expected {RECORDS[name]}")
        found[name] = part
    missing = sorted(set(RECORDS) - set(found))
    if missing:
        raise FileFormatError(f"{source} lacks {', '.join(missing)}; expected train and test: fetch it again")
    (train_images, train_labels), (test_images, test_labels) = found["train"], found["test"]
    return Arrays(
        train_images=train_images, train_labels=train_labels, test_images=test_images, test_labels=test_labels
    )


def sha256_of(images: Bytes, labels: Bytes) -> str:
    """That of the file of records which the official archive holds."""
    hasher = hashlib.sha256()
    for start in range(0, len(images), 1000):
        some = slice(start, start + 1000)
        hasher.update(np.hstack([labels[some], images[some].reshape(-1, IMAGE_BYTES)]).data)
    return hasher.hexdigest()


def verify(arrays: Arrays, source: str) -> None:
    """Raises DataError when the content is not that of CIFAR-100, to the byte."""
    for name, images, labels in (
        ("train", arrays.train_images, arrays.train_labels),
        ("test", arrays.test_images, arrays.test_labels),
    ):
        found = sha256_of(images, labels)
        if found != FILE_SHA256[name]:
            raise DataError(
                f"{source} is not {NAME}: SHA-256 of its {name} records is {found}, expected {FILE_SHA256[name]}; it "
                "was altered or is another data set: fetch it again, or leave --data-dir out to have it fetched"
            )


def shapes() -> dict[str, tuple[int, ...]]:
    """Those of `Arrays`."""
    image = (CHANNELS, SIDE, SIDE)
    return {
        "train_images": (RECORDS["train"], *image),
        "train_labels": (RECORDS["train"], 2),
        "test_images": (RECORDS["test"], *image),
        "test_labels": (RECORDS["test"], 2),
    }
