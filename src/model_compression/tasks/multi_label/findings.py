"""What `doctor`, and every run, says of labels with several classes a sample, and of a teacher of such."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from model_compression.core.finding import Finding, Level
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.models.prediction import predict
from model_compression.reports.label_sets import average_precisions, guessing_bound, mean_average_precision
from model_compression.tasks.image_classification.class_names import other_classes

_SAMPLE = 1024  # training samples that a teacher is tried on
_GAIN = 0.1  # of mAP by another order of classes, which tells it
_UNEQUAL = 100  # samples of the most frequent class for one of the rarest
_NAMED = 4
_MOST_CLASSES = 200  # each is held against each
Numbers = npt.NDArray[np.int64]


def examine_labels(train: Dataset, test: Dataset) -> Iterator[Finding]:
    """Whether each class is present in some samples and absent in others."""
    if not train.labelled or not train.has_ids:
        return
    shares = [dataset.labels.mean(axis=0) for dataset in (train, test)]
    names = np.array(train.class_names)
    level: Level = "ok"
    text, remedy = f"{len(names)} classes, {train.labels.sum(axis=1).mean():.2g} a sample on average", ""
    for where, share in (("training", shares[0]), ("test", shares[1])):
        for what, found in (("no", share == 0), ("all", share == 1)):
            if found.any():
                level = "warn"
                text = f"{what} {where} {train.noun} are of {_some(names[found].tolist())}"
                remedy = "leave the class out, or bring samples of both kinds: its average precision says nothing"
    yield Finding(area="data", subject="labels", level=level, text=text, remedy=remedy)
    counts = train.labels.astype(np.int64).sum(axis=0)
    if (counts > 0).any() and counts.max() > _UNEQUAL * counts[counts > 0].min():
        rare, most = names[np.where(counts > 0, counts, counts.max() + 1).argmin()], names[counts.argmax()]
        yield Finding(
            area="data", subject="balance", level="warn",
            text=f"{rare} has {counts[counts > 0].min():,} {train.noun}, {most} {counts.max():,}",
            remedy="try class_weights balanced, and choose thresholds on samples that are held out",
        )  # fmt: skip


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"


def find_fault(answer: Callable[[Dataset], Tensor], dataset: Dataset, advice: str) -> str | None:
    """What is wrong with the logits that ``answer`` gives to up to 1,024 training samples, and the remedy."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(dataset))[:_SAMPLE]
    sample = dataset.subset(order)
    logits = answer(sample).numpy()
    found, moved = mean_average_precision(logits, sample.labels), better_order(logits, sample.labels)
    if moved is not None:
        wrong = np.flatnonzero(moved != np.arange(len(moved)))
        names = dataset.class_names
        named = ", ".join(f"{names[n]!r} for {names[moved[n]]!r}" for n in wrong[:_NAMED])
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        ordered = mean_average_precision(logits[:, np.argsort(moved)], sample.labels)
        return (
            f"has its classes in another order than {dataset.name}: it says {named}{more}; so read, its mAP is "
            f"{ordered:.1%} on {len(sample):,} training {dataset.noun}, else {found:.1%}; put the rows of its last "
            "layer, or the columns of the labels, in order"
        )
    bound = guessing_bound(sample.labels)
    if found <= bound < 1:
        return (
            f"has a mAP of {found:.1%} on {len(sample):,} training {dataset.noun}, and answers that know nothing of "
            f"them would have up to {bound:.1%}; {advice}"
        )
    return None


def better_order(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.integer]) -> Numbers | None:
    """(K,) the class that each of the teacher's stands for, if mAP is far larger in that order; else None.

    The order is found on every other sample and confirmed on the rest: the best of all orders would fit some by chance.
    """
    if logits.shape[1] > _MOST_CLASSES:
        return None
    order = _best_order(logits[::2], labels[::2])
    own, seen = labels[1::2], logits[1::2]
    gain = mean_average_precision(seen[:, np.argsort(order)], own) - mean_average_precision(seen, own)
    return _best_order(logits, labels) if gain >= _GAIN else None


def _best_order(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.integer]) -> Numbers:
    """By the lift of each answer's average precision on each class over the class's share."""
    classes = logits.shape[1]
    lift = np.zeros((classes, classes))
    for number in range(classes):
        found = average_precisions(np.repeat(logits[:, [number]], classes, axis=1), labels)
        lift[number] = np.nan_to_num(found - labels.mean(axis=0))
    lift += 1e-3 * np.eye(classes)  # where the samples do not tell, the order stays
    order: Numbers = linear_sum_assignment(lift, maximize=True)[1].astype(np.int64)
    return order


def examine_teacher(
    model: Network, train: Dataset, sample: Dataset | None, device: torch.device, *, thorough: bool
) -> Iterator[Finding]:
    """Findings from what the teacher answers to a ``sample``; None: there is none to be had."""
    other = other_classes(model, train)
    text = other[0] if other else "those of the data, or it does not say"
    remedy = "look whether they are; bring the columns of the labels into its order" if other else ""
    yield Finding(area="teacher", subject="class names", level="warn" if other else "ok", text=text, remedy=remedy)
    if sample is None or not thorough:
        return
    advice = "look at its normalisation, its classes and what it was trained on"
    fault = find_fault(lambda part: predict(model, part, device, torch.float32), sample, advice)
    value = mean_average_precision(predict(model, sample, device, torch.float32).numpy(), sample.labels)
    text, _, remedy = (fault or f"mAP {value:.1%} on {len(sample):,} test {sample.noun}").partition("; ")
    yield Finding(area="teacher", subject="mAP", level="fail" if fault else "ok", text=text, remedy=remedy)
