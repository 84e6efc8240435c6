"""The data: what they are, their labels, and images that are in both sets."""

from collections.abc import Iterator

from model_compression.core.finding import Finding
from model_compression.data.dataset import Dataset
from model_compression.data.shared_images import count_shared_images
from model_compression.tasks import task_of

_FAINT = 0.02  # deviation of pixels, 1 = white, below which nobody could see what is in an image


def examine_data(train: Dataset, test: Dataset, *, reads_all: bool = True) -> Iterator[Finding]:
    """Findings on a training and a test set; without ``reads_all`` those for which no image is read again."""
    shape = " × ".join(map(str, train.image_shape))
    yield Finding(
        area="data",
        subject="content",
        level="ok",
        text=f"{train.name}: {len(train):,} training and {len(test):,} test images of {shape}; SHA-256 of the training "
        f"set {train.digest[:12]}",
    )
    for note in dict.fromkeys((*train.notes, *test.notes)):
        yield Finding(area="data", subject="left out", level="warn", text=note, remedy="convert, repair or remove them")
    yield from task_of(train).data_findings(train, test)
    if test.image_shape != train.image_shape:
        yield Finding(
            area="data",
            subject="sizes",
            level="warn",
            text=f"training images are of {shape}, test images of {' × '.join(map(str, test.image_shape))}",
            remedy="scale one of them, unless another size is meant to be tested",
        )
    # The mean and deviation of a DataLoader's batches are not measured: they only leave its values as they are.
    if max(train.std) < _FAINT and train.has_ids:
        yield Finding(
            area="data",
            subject="contrast",
            level="warn",
            text=f"all images are nearly of one colour (mean {_short(train.mean)}, "
            f"deviation {_short(train.std)}, 1 = white)",
            remedy="look at them: 12 bits in files of 16, or pixels of 0 to 1 as integers, come out black",
        )
    if reads_all and train.has_ids:
        yield _shared(train, test)


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _shared(train: Dataset, test: Dataset) -> Finding:
    shared = count_shared_images(train, test)
    if not shared:
        return Finding(area="data", subject="duplicates", level="ok", text="no test image is in the training set")
    return Finding(
        area="data",
        subject="duplicates",
        level="fail" if shared > len(test) / 100 else "warn",
        text=f"{shared:,} of {len(test):,} test images are training images too",
        remedy="remove them from one of the sets: test accuracy flatters",
    )
