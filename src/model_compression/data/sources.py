"""The datasets by name. A loader is imported when it is asked for: listing the names costs nothing."""

import os
from collections.abc import Callable

from model_compression.core.config import Resident
from model_compression.core.config_json import GIVEN
from model_compression.core.errors import GivenAsObjectError, UsageError
from model_compression.core.files import user_path
from model_compression.core.options import setting
from model_compression.core.registry import Registry, unknown_name
from model_compression.data.dataset import Dataset
from model_compression.data.placement import place_images

# A loader takes (data_dir, report, allow_download), as load_cifar10 does, and returns (training set, test set).
Loader = Callable[..., tuple[Dataset, Dataset]]
PathLike = str | os.PathLike[str]

DATASETS: Registry[Loader] = Registry("dataset", "model_compression.datasets")


@DATASETS.register("cifar10")
def cifar10(
    data_dir: PathLike | None = None, report: Callable[[str], None] | None = None, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """CIFAR-10, see data.cifar.load_cifar10."""
    from model_compression.data.cifar import load_cifar10, print_to_stderr

    return load_cifar10(data_dir, report or print_to_stderr, allow_download)


@DATASETS.register("cifar100")
def cifar100(
    data_dir: PathLike | None = None, report: Callable[[str], None] | None = None, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """CIFAR-100 with fine labels, see data.cifar.load_cifar100."""
    from model_compression.data.cifar import load_cifar100, print_to_stderr

    return load_cifar100(data_dir, report or print_to_stderr, allow_download)


@DATASETS.register("synthetic")
def synthetic(
    data_dir: PathLike | None = None, report: Callable[[str], None] | None = None, allow_download: bool = True
) -> tuple[Dataset, Dataset]:
    """Small coloured patterns for trials, see data.synthetic.load_synthetic."""
    from model_compression.data.synthetic import load_synthetic

    return load_synthetic(data_dir, report, allow_download)


FOLDER, HUGGING_FACE = "folder:", "hf:"
MAX_IMAGE_SIZE = 2048


def load_dataset(
    name: str,
    data_dir: PathLike | None = None,
    report: Callable[[str], None] | None = None,
    image_size: int = 0,
    *,
    unlabelled: str = "",
    resident: Resident = "auto",
    workers: int | None = None,
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of a registered dataset, of "folder:PATH" or of "hf:NAME".

    ``unlabelled``, as "folder:PATH", are images that take the place of the training images. ``resident`` and
    ``workers`` are those of `place_images`.

    Raises UnknownNameError with near matches, UsageError for options that the dataset has no use for, DataError.
    """
    train, test = _load(name, data_dir, report, image_size)
    if unlabelled:
        from model_compression.data.folder import load_unlabelled

        if not unlabelled.startswith(FOLDER) or not unlabelled.removeprefix(FOLDER).strip():
            raise UsageError(f"{setting('unlabelled')} must be folder:PATH, a folder of images, got {unlabelled!r}")
        train = load_unlabelled(unlabelled.removeprefix(FOLDER), like=train)
    return place_images(train, test, resident, workers, report)


def _load(
    name: str, data_dir: PathLike | None, report: Callable[[str], None] | None, image_size: int
) -> tuple[Dataset, Dataset]:
    if name.startswith(GIVEN):
        raise GivenAsObjectError(f"the data {name.removeprefix(GIVEN)!r}", f"name a dataset with {setting('data')}")
    prefix = next((prefix for prefix in (FOLDER, HUGGING_FACE) if name.startswith(prefix)), None)
    if prefix is None:
        if name not in DATASETS and user_path(name).is_dir():
            raise UsageError(
                f"{name} is a folder, not a dataset's name; write {setting('data', f'folder:{name}')}, or hf:{name}"
            )
        if name not in DATASETS:
            raise unknown_name("dataset", name, [*DATASETS, f"{FOLDER}PATH", f"{HUGGING_FACE}NAME"])
        loader = DATASETS.get(name)
        if image_size:
            raise UsageError(
                f"{setting('image_size')} is for folder:PATH and hf:NAME; the images of {name} have a size of their own"
            )
        return loader(data_dir, report)
    if not name.removeprefix(prefix).strip():
        what = "path; expected folder:PATH" if prefix == FOLDER else "dataset; expected hf:NAME or hf:PATH"
        raise UsageError(f"{prefix} names no {what}")
    if image_size != 0 and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise UsageError(
            f"{setting('image_size')} must lie between 1 and {MAX_IMAGE_SIZE}, got {image_size}; 32 to 256 are usual"
        )
    if data_dir is not None:
        raise UsageError(f"{setting('data_dir')} has no effect with {name}, which says where the images are")
    if prefix == FOLDER:
        from model_compression.data.folder import load_folder

        return load_folder(name.removeprefix(FOLDER), image_size, report)
    from model_compression.data.hugging_face import load_hugging_face

    return load_hugging_face(name.removeprefix(HUGGING_FACE), image_size, report)
