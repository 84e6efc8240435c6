"""The data: what they are, their labels, and images that are in both sets."""

from collections.abc import Iterator

from model_compression.data.checks import num_shared_images
from model_compression.data.dataset import Dataset
from model_compression.data.opaque import OpaqueImages
from model_compression.train.examination.finding import Finding

_UNEQUAL = 10  # images of the largest class for one of the smallest


def examine_data(train: Dataset, test: Dataset) -> Iterator[Finding]:
    """Findings on a training and a test set."""
    shape = " × ".join(map(str, train.image_shape))
    yield Finding(
        area="data",
        subject="content",
        level="ok",
        text=f"{train.name}: {len(train):,} training and {len(test):,} test images of {shape}; SHA-256 of the training "
        f"set {train.digest[:12]}",
    )
    yield _labels(train, test)
    if train.labelled:
        yield _balance(train)
    if not isinstance(train.images, OpaqueImages):
        yield _shared(train, test)


def _labels(train: Dataset, test: Dataset) -> Finding:
    absent = [name for name, count in zip(train.class_names, train.class_counts(), strict=True) if not count]
    if not train.labelled:
        text, remedy = "the training images have none", "distil with --label-weight 0"
    elif len(train.class_names) - len(absent) < 2:
        text, remedy = "all training images are of one class", "there is nothing to learn: look at the class folders"
        return Finding(area="data", subject="labels", level="fail", text=text, remedy=remedy)
    elif absent:
        text, remedy = f"no training images of {', '.join(absent[:5])}", "bring some, or leave the class out"
    else:
        text = (
            f"{train.num_classes} classes, all with training images; {int((test.class_counts() > 0).sum())} in the test"
        )
        return Finding(area="data", subject="labels", level="ok", text=text)
    return Finding(area="data", subject="labels", level="warn", text=text, remedy=remedy)


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
