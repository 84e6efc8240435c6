"""The data sets by name. A loader is imported when it is asked for: listing the names costs nothing."""

import os
from collections.abc import Callable

from model_compression.data.dataset import Dataset
from model_compression.errors import UsageError
from model_compression.registry import Registry

# A loader takes (data_dir, report, allow_download), as load_cifar10 does, and returns (training set, test set).
Loader = Callable[..., tuple[Dataset, Dataset]]
PathLike = str | os.PathLike[str]

DATASETS: Registry[Loader] = Registry("data set", "model_compression.datasets")


@DATASETS.register("cifar10")
def cifar10(
    data_dir: PathLike | None = None, report: Callable[[str], None] | None = None, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """CIFAR-10, see data.cifar10.load_cifar10."""
    from model_compression.data.cifar10 import load_cifar10, tell

    return load_cifar10(data_dir, report or tell, allow_download)


@DATASETS.register("synthetic")
def synthetic(
    data_dir: PathLike | None = None, report: Callable[[str], None] | None = None, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """Small coloured patterns for trials, see data.synthetic.load_synthetic."""
    from model_compression.data.synthetic import load_synthetic

    return load_synthetic(data_dir, report, allow_download)


FOLDER = "folder:"
MAX_IMAGE_SIZE = 2048  # all images are held in memory


def load_dataset(
    name: str,
    data_dir: PathLike | None = None,
    report: Callable[[str], None] | None = None,
    image_size: int = 0,
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of a registered data set, or of a folder of class folders, "folder:PATH".

    Raises UnknownNameError with near matches, UsageError for options that the data set has no use for, DataError.
    """
    if name.startswith(FOLDER):
        from model_compression.data.folder import load_folder

        if not name.removeprefix(FOLDER).strip():
            raise UsageError("folder: names no path; expected folder:PATH")
        if image_size != 0 and not 1 <= image_size <= MAX_IMAGE_SIZE:
            raise UsageError(
                f"--image-size must lie between 1 and {MAX_IMAGE_SIZE}, got {image_size}; 32 to 256 are usual"
            )
        if data_dir is not None:
            raise UsageError(f"--data-dir has no effect with {name}, which says where the images are")
        return load_folder(name.removeprefix(FOLDER), image_size, report)
    loader = DATASETS.get(name)
    if image_size:
        raise UsageError(f"--image-size is for folder:PATH; the images of {name} have a size of their own")
    return loader(data_dir, report)
