"""The data sets by name. A loader is imported when it is asked for: listing the names costs nothing."""

import os
from collections.abc import Callable

from model_compression.data.dataset import Dataset
from model_compression.registry import Registry

# A loader takes (data_dir, report, allow_download), as load_cifar10 does, and returns (training set, test set).
Loader = Callable[..., tuple[Dataset, Dataset]]
PathLike = str | os.PathLike[str]

DATASETS: Registry[Loader] = Registry("data set")


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
