"""CIFAR-100: from the store, from what people have, or fetched from the first of two sources that answers."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model_compression.data import cifar100_content as content
from model_compression.data.cifar10_content import Arrays
from model_compression.data.cifar100_own import EXPECTED, looks_official, read_archive, read_own, refuse_foreign
from model_compression.data.dataset import Dataset
from model_compression.data.published import Fetch, Published, Report, obtain, tell

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
ARCHIVE_SHA256 = "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
MAX_BYTES = 200_000_000  # it has about 169 million
REPOSITORY = "uoft-cs/cifar100"
HUB_FILES = {name: f"cifar100/{name}-00000-of-00001.parquet" for name in ("train", "test")}


def load_cifar100(
    data_dir: str | os.PathLike[str] | None = None, report: Report = tell, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """CIFAR-100 with its 100 fine labels, as (training set of 50,000, test set of 10,000), proven by two SHA-256.

    The arguments, and what is raised, are those of `load_cifar10`; the sources are the official site and the Hugging
    Face hub.
    """
    published = Published(
        name=content.NAME,
        command="cifar100",
        sources=sources,
        expected=EXPECTED,
        read_own=read_own,
        looks_official=looks_official,
        refuse_foreign=refuse_foreign,
        shapes=content.shapes(),
        verify=content.verify,
    )
    arrays, source, path = obtain(published, data_dir, report, allow_download)
    train, test = (
        Dataset(
            name=name,
            images=images,
            labels=labels[:, 1].astype(np.int64),
            class_names=content.CLASS_NAMES,
            mean=content.MEAN,
            std=content.STD,
            source=source,
            path=path,
        )
        for name, images, labels in (
            ("cifar100", arrays.train_images, arrays.train_labels),
            ("cifar100-test", arrays.test_images, arrays.test_labels),
        )
    )
    return train, test


def sources() -> dict[str, Fetch]:
    """Where CIFAR-100 is fetched from, in the order in which it is tried."""
    return {"official archive": fetch_official, f"Hugging Face hub {REPOSITORY}": fetch_hub}


def fetch_official(workspace: Path) -> Arrays:
    """Downloads the binary archive of the authors' site into ``workspace``, or the rest of it, and reads it.

    Raises DataError when the site is not reached or sends something else.
    """
    from model_compression.data.download import download

    archive = workspace / "cifar-100-binary.tar.gz.part"
    download(URL, archive, sha256=ARCHIVE_SHA256, max_bytes=MAX_BYTES)
    return read_archive(archive)


def fetch_hub(workspace: Path) -> Arrays:
    """Downloads the hub's parquet files into ``workspace`` and reads them.

    Raises MissingExtraError without the packages of the extra 'hub', DataError when the hub is not reached.
    """
    from model_compression.data.cifar10_hub import fetch_files

    return read_parquet(*fetch_files(REPOSITORY, list(HUB_FILES.values()), workspace))


def read_parquet(train: Path, test: Path) -> Arrays:
    """Reads the hub's files, columns img.bytes (PNG), coarse_label and fine_label. Raises FileFormatError."""
    from model_compression.data.cifar10_hub import read_rows

    def parts() -> Iterator[tuple[str, content.Part]]:
        for name, path in (("train", train), ("test", test)):
            images, labels = read_rows(path, content.RECORDS[name], ["coarse_label", "fine_label"])
            yield name, content.part_of(images, labels[:, 0], labels[:, 1], str(path))

    return content.assemble(parts(), f"{train.name} and {test.name}")
