"""What a teacher's answers to some training images show to be wrong: weak answers, or classes in another order."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.stats import beta, binom

from model_compression.data.dataset import Dataset

_FEW, _MANY = 256, 1024  # images for every teacher, and for one that is not plainly good on those
_GOOD = 0.8  # Cohen's kappa of a teacher that is plainly good
_WEAK = 0.1  # and of one whose answers are next to unrelated to the labels
_OTHERS = 0.1  # of images that are of another class than the one which is answered to all
_LOSS = 0.1  # of accuracy below the stated one that is too much
_GAIN = 0.1  # of accuracy by another order of classes that tells it, if so read
_ORDERED = 0.5  # is at least its kappa: a teacher of other classes gains by an order too, which mends nothing
_RISK = 0.01  # that a teacher at one of these bounds is refused by bad luck
_NAMED = 4  # classes that an error names

Classes = npt.NDArray[np.int64]


def find_fault(
    predict: Callable[[Dataset], Classes], dataset: Dataset, stated: float | None, advice: str
) -> str | None:
    """What is wrong with the classes that ``predict`` chooses; a larger sample settles what a first one leaves open.

    ``stated``: the accuracy that the network's file states, 0 to 1. ``advice`` is what to do about weak answers.
    """
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(dataset))
    answers = labels = order[:0]
    for count in (_FEW, _MANY):
        sample = dataset.subset(order[:count])
        answers, labels = predict(sample), sample.labels
        if _is_plainly_good(answers, labels, stated):
            return None
    found = better_order(answers, labels, dataset.num_classes)
    if found is not None:
        return order_fault(found, answers, labels, dataset)
    fault = weakness(answers, labels, stated, dataset.noun)
    return None if fault is None else f"{fault}; {advice}"


def weakness(answers: Classes, labels: Classes, stated: float | None = None, noun: str = "images") -> str | None:
    """What is wrong with a teacher that chose the classes ``answers`` (N,) for samples of the classes ``labels`` (N,).

    ``noun`` is what several samples are called.

    An accuracy far below the ``stated`` one, one class for all images where a tenth are of others, or answers that are
    next to unrelated to the labels by Cohen's kappa (1960, doi 10.1177/001316446002000104), which a class that is most
    of the data does not deceive. The first and the last only where the number of images rules bad luck out (Clopper &
    Pearson 1934, one-sided). None: nothing.
    """
    count, right = len(labels), int((answers == labels).sum())
    highest = 1.0 if right == count else float(beta.ppf(1 - _RISK, right + 1, count - right))  # that can be believed
    found = f"is right on {right / count:.1%} of {count:,} training {noun}"
    if stated is not None and highest < stated - _LOSS:
        return f"{found}, and its file states {stated:.1%} of the test {noun}"
    if (answers == answers[0]).all() and (labels != answers[0]).mean() >= _OTHERS:
        return f"gives one and the same class to all of {count:,} training {noun}"
    chance = _chance(answers, labels)
    if chance < 1 and (highest - chance) / (1 - chance) < _WEAK:
        return f"{found}, and answers that know nothing of them would be on {chance:.1%}"
    return None


def better_order(answers: Classes, labels: Classes, num_classes: int) -> Classes | None:
    """The class (K,) that each class of the teacher's stands for, if far more ``answers`` (N,) are right in that order.

    The order is found on every other image and confirmed on the rest (sign test), as the best of all orders would fit
    some images by chance. None when the teacher's own order does about as well.
    """
    order = _best_order(answers[::2], labels[::2], num_classes)
    answers_seen, labels_seen = answers[1::2], labels[1::2]
    was_right, is_right = answers_seen == labels_seen, order[answers_seen] == labels_seen
    better, worse = int((is_right & ~was_right).sum()), int((was_right & ~is_right).sum())
    if better - worse < _GAIN * len(labels_seen) or binom.sf(better - 1, better + worse, 0.5) > _RISK**2:
        return None
    if _kappa(order[answers_seen], labels_seen) < _ORDERED:
        return None
    return _best_order(answers, labels, num_classes)


def _best_order(answers: Classes, labels: Classes, num_classes: int) -> Classes:
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (answers, labels), 1)
    counts += np.eye(num_classes) / 2  # where the images do not tell, the order stays
    order: Classes = linear_sum_assignment(counts, maximize=True)[1].astype(np.int64)
    return order


def order_fault(order: Classes, answers: Classes, labels: Classes, dataset: Dataset, noun: str = "") -> str:
    """What is wrong with a teacher whose classes stand in ``order`` (K,) for those of the data."""
    moved = np.flatnonzero(order != np.arange(len(order)))
    named = [f"{dataset.class_names[n]!r} for {dataset.class_names[order[n]]!r}" for n in moved[:_NAMED]]
    more = f" and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
    rows = f" (rows {np.argsort(order).tolist()})" if len(order) <= 20 else ""
    return (
        f"has its classes in another order than {dataset.name}, or is not trained: it says {', '.join(named)}{more}; "
        f"so read, {(order[answers] == labels).mean():.1%} of {len(labels):,} training {noun or dataset.noun} are "
        f"right, else {(answers == labels).mean():.1%}; put the rows of its last layer{rows} or the classes of the "
        "data in order"
    )


def _is_plainly_good(answers: Classes, labels: Classes, stated: float | None) -> bool:
    as_stated = stated is None or float((answers == labels).mean()) >= stated - _LOSS
    return as_stated and _kappa(answers, labels) >= _GOOD


def _kappa(answers: Classes, labels: Classes) -> float:
    """Cohen's kappa: 0 where answers have nothing to do with the labels, 1 where they are the same."""
    chance = _chance(answers, labels)
    return (float((answers == labels).mean()) - chance) / (1 - chance) if chance < 1 else 0.0


def _chance(answers: Classes, labels: Classes) -> float:
    """How many answers (N,) would be right, 0 to 1, if they had nothing to do with the labels (N,)."""
    classes = int(max(answers.max(), labels.max())) + 1
    shares = [np.bincount(chosen, minlength=classes) / len(chosen) for chosen in (answers, labels)]
    return float(shares[0] @ shares[1])
