"""What masks, and a teacher's answers to them, show to be wrong."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from model_compression.core.finding import Finding, Level
from model_compression.core.masks import IGNORE, Masks
from model_compression.data.dataset import Dataset
from model_compression.tasks.image_classification.teacher_faults import better_order, order_fault, weakness

_IMAGES, _PIXELS = 128, 32  # that a teacher is judged by, and of each as many pixels as differ enough
_RARE = 1e-3  # of the pixels, below which mIoU depends on a few of them


def pixel_fault(predict: Callable[[Dataset], Masks], dataset: Dataset, advice: str) -> str | None:
    """What is wrong with the masks (N, H, W) that ``predict`` gives; see `teacher_faults`, for pixels.

    Some pixels of each image stand for all: those of one image are too much alike to be counted each.
    """
    generator = np.random.Generator(np.random.PCG64(0))
    sample = dataset.subset(generator.permutation(len(dataset))[:_IMAGES])
    return _fault(predict(sample), sample, generator, advice, dataset.name)


def _fault(masks: Masks, sample: Dataset, generator: np.random.Generator, advice: str, name: str = "") -> str | None:
    """The same of ``masks`` (N, H, W), which answer the ``sample`` of the data ``name``."""
    sample = replace(sample, name=name) if name else sample
    found, truth = masks.reshape(len(sample), -1), sample.labels.reshape(len(sample), -1)
    chosen = generator.integers(truth.shape[1], size=(len(sample), _PIXELS))
    answers, labels = (np.take_along_axis(one, chosen, axis=1).ravel().astype(np.int64) for one in (found, truth))
    counted = labels != IGNORE
    answers, labels = answers[counted], labels[counted]
    if not len(labels):
        return None
    order = better_order(answers, labels, sample.num_classes)
    if order is not None:
        return order_fault(order, answers, labels, sample, "pixels")
    fault = weakness(answers, labels, noun="pixels")
    return None if fault is None else f"{fault}; {advice}"


def examine_answers(found: Masks, sample: Dataset, miou: float) -> Finding:
    """Whether a teacher's masks (N, H, W) ``found`` of a ``sample``, with this mIoU, are worth to be learned from."""
    generator = np.random.Generator(np.random.PCG64(0))
    fault = _fault(found, sample, generator, "look at its normalisation and the order of its classes")
    text = f"mIoU {miou:.1%} on {len(sample):,} test images"
    if fault is None:
        return Finding(area="teacher", subject="answers", level="ok", text=text)
    text, _, remedy = f"{text}: it {fault}".rpartition("; ")
    return Finding(area="teacher", subject="answers", level="fail", text=text, remedy=remedy)


def examine_masks(train: Dataset, test: Dataset) -> Iterator[Finding]:
    """Whether each class has pixels, and enough of them to be judged."""
    if not train.labelled:
        yield Finding(area="data", subject="masks", level="ok", text="the training images have none")
        return
    shares = []
    for dataset in (train, test):
        counts = sum((np.bincount(one.ravel(), minlength=256) for one in dataset.labels), start=np.zeros(256, int))
        counted = max(1, counts.sum() - counts[IGNORE])
        shares.append(counts[: dataset.num_classes] / counted)
    in_train, in_test = shares
    level: Level = "warn"
    absent, untested, rare = (
        [name for name, wanted in zip(train.class_names, which, strict=True) if wanted]
        for which in (in_train == 0, in_test == 0, (in_test > 0) & (in_test < _RARE))
    )
    remedy = ""
    unseen = next((name for name, share in (("training", in_train), ("test", in_test)) if not share.any()), None)
    if unseen is not None:
        text, remedy, level = f"no pixel of the {unseen} masks counts", "look at what masks ignore", "fail"
    elif np.count_nonzero(in_train) < 2:
        text, remedy, level = "all training pixels are of one class", "there is nothing to learn", "fail"
    elif absent:
        text, remedy = f"no training pixels of {_some(absent)}", "bring some, or leave the class out"
    elif untested:
        text, remedy = f"no test pixels of {_some(untested)}", "mIoU leaves them out: hold out more images"
    elif rare:
        text = f"{_some(rare)} have under {_RARE:.1%} of the test pixels"
        remedy = "mIoU counts them as much as the others: look at IoU by class"
    else:
        text, level = f"{train.num_classes} classes, all with training and test pixels", "ok"
    yield Finding(area="data", subject="masks", level=level, text=text, remedy=remedy)


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
