"""The data: what they are, their labels, and images that are in both sets."""

from collections.abc import Iterator

from model_compression.checks.finding import Finding, Level
from model_compression.data.checks import num_shared_images
from model_compression.data.dataset import Dataset
from model_compression.data.opaque import OpaqueImages

_FAINT = 0.02  # deviation of pixels, 1 = white, below which nobody could see what is in an image
_UNEQUAL = 10  # images of the largest class for one of the smallest


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
    yield _labels(train, test)
    if test.image_shape != train.image_shape:
        yield Finding(
            area="data",
            subject="sizes",
            level="warn",
            text=f"training images are of {shape}, test images of {' × '.join(map(str, test.image_shape))}",
            remedy="scale one of them, unless another size is meant to be tested",
        )
    if train.labelled and not isinstance(train.images, OpaqueImages):
        yield _balance(train)
    # The mean and deviation of a DataLoader's batches are not measured: they only leave its values as they are.
    if max(train.std) < _FAINT and not isinstance(train.images, OpaqueImages):
        yield Finding(
            area="data",
            subject="contrast",
            level="warn",
            text=f"all images are nearly of one colour (mean {_short(train.mean)}, "
            f"deviation {_short(train.std)}, 1 = white)",
            remedy="look at them: 12 bits in files of 16, or pixels of 0 to 1 as integers, come out black",
        )
    if reads_all and not isinstance(train.images, OpaqueImages):
        yield _shared(train, test)


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _labels(train: Dataset, test: Dataset) -> Finding:
    level: Level = "warn"
    absent, untested = _absent(train), _absent(test)
    if isinstance(train.images, OpaqueImages):
        absent = []  # each batch brings its own labels
    if not train.labelled:
        text = "the training images have none: distil with --label-weight 0"
        return Finding(area="data", subject="labels", level="ok", text=text)
    if len(train.class_names) - len(absent) < 2:
        text, remedy = "all training images are of one class", "there is nothing to learn: look at the class folders"
        level = "fail"
    elif absent:
        text, remedy = f"no training images of {_some(absent)}", "bring some, or leave the class out"
    elif untested:
        text = f"no test images of {_some(untested)}"
        remedy = "accuracy says nothing of them: bring some, or hold out more images"
    else:
        text, remedy = f"{train.num_classes} classes, all with training and test images", ""
        level = "ok"
    return Finding(area="data", subject="labels", level=level, text=text, remedy=remedy)


def _absent(dataset: Dataset) -> list[str]:
    return [name for name, count in zip(dataset.class_names, dataset.class_counts(), strict=True) if not count]


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"


def _balance(train: Dataset) -> Finding:
    counts = train.class_counts()
    present = counts[counts > 0]
    most, fewest = train.class_names[counts.argmax()], int(present.min())
    rarest = train.class_names[int((counts == fewest).argmax())]
    largest = int(counts.max())
    text = f"{rarest} has {fewest:,} images, {most} {largest:,}"
    if fewest == largest:
        text = f"each class has {largest:,} images"
    unequal = largest > _UNEQUAL * fewest
    remedy = "accuracy hides the small classes: look at each by itself, or collect more" if unequal else ""
    return Finding(area="data", subject="balance", level="warn" if unequal else "ok", text=text, remedy=remedy)


def _shared(train: Dataset, test: Dataset) -> Finding:
    shared = num_shared_images(train, test)
    if not shared:
        return Finding(area="data", subject="duplicates", level="ok", text="no test image is in the training set")
    return Finding(
        area="data",
        subject="duplicates",
        level="fail" if shared > len(test) / 100 else "warn",
        text=f"{shared:,} of {len(test):,} test images are training images too",
        remedy="remove them from one of the sets: test accuracy flatters",
    )
