"""What `doctor`, and every run, says of the labels of images with one class each."""

from collections.abc import Iterator

from model_compression.core.finding import Finding, Level
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset

_UNEQUAL = 10  # images of the largest class for one of the smallest


def examine_labels(train: Dataset, test: Dataset) -> Iterator[Finding]:
    """Whether each class has images, and about as many as the others."""
    yield _labels(train, test)
    if train.labelled and train.has_ids:
        yield _balance(train)


def _labels(train: Dataset, test: Dataset) -> Finding:
    level: Level = "warn"
    absent, untested = _absent(train), _absent(test)
    if not train.has_ids:
        absent = []  # each batch brings its own labels
    if not train.labelled:
        text = f"the training {train.noun} have none: distil with {setting('label_weight', 0)}"
        return Finding(area="data", subject="labels", level="ok", text=text)
    if len(train.class_names) - len(absent) < 2:
        text, remedy = (
            f"all training {train.noun} are of one class",
            "there is nothing to learn: look at the class folders",
        )
        level = "fail"
    elif absent:
        text, remedy = f"no training {train.noun} of {_some(absent)}", "bring some, or leave the class out"
    elif untested:
        text = f"no test {test.noun} of {_some(untested)}"
        remedy = f"accuracy says nothing of them: bring some, or hold out more {test.noun}"
    else:
        text, remedy = f"{train.num_classes} classes, all with training and test {test.noun}", ""
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
    text = f"{rarest} has {fewest:,} {train.noun}, {most} {largest:,}"
    if fewest == largest:
        text = f"each class has {largest:,} {train.noun}"
    unequal = largest > _UNEQUAL * fewest
    remedy = "accuracy hides the small classes: look at each by itself, or collect more" if unequal else ""
    return Finding(area="data", subject="balance", level="warn" if unequal else "ok", text=text, remedy=remedy)
