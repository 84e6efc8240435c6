"""What `doctor`, and every run, says of a teacher of images with one class each."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from model_compression.core.finding import Finding
from model_compression.core.options import settings
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.models.prediction import predict
from model_compression.models.preprocessing import Preprocessing
from model_compression.reports.paired_images import OnImages
from model_compression.reports.statistics import Proportion
from model_compression.tasks.image_classification.class_names import other_classes
from model_compression.tasks.image_classification.teacher_faults import better_order, weakness

_BETTER = 0.03  # of accuracy by another normalisation, which is worth a word
_LUCK = 0.001  # p of McNemar's test, above which it may be luck
# What networks are often trained with, beside the data's own: channel means and deviations, 1 = white.
_USUAL = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "−1 to 1": ((0.5,) * 3, (0.5,) * 3),
    "0 to 1": ((0.0,) * 3, (1.0,) * 3),
    "0 to 255": ((0.0,) * 3, (1 / 255,) * 3),
}


def examine_teacher(
    model: Network, train: Dataset, sample: Dataset | None, device: torch.device, *, thorough: bool
) -> Iterator[Finding]:
    """Findings from what the teacher answers to a ``sample`` of images; None: there is none to be had."""
    yield _class_names(model, train)
    if sample is None:
        return
    answers = _answers(model, sample, device)
    if thorough:
        yield _accuracy(model, answers, sample)
    if sample.holds_images and (
        thorough or (answers == sample.labels).mean() < 1 - _BETTER
    ):  # else none can be far better
        yield _normalisation(model, answers, sample, train, device)
    if thorough:
        yield _order(answers, sample)


def _class_names(model: Network, data: Dataset) -> Finding:
    """Whether it learned classes of the data's names; in another order they are refused by `check_classes`."""
    other = other_classes(model, data)
    text = other[0] if other else "those of the data, or it does not say"
    remedy = "look whether they are; put the data's class folders in its order" if other else ""
    return Finding(area="teacher", subject="class names", level="warn" if other else "ok", text=text, remedy=remedy)


def _answers(model: Network, sample: Dataset, device: torch.device) -> npt.NDArray[np.int64]:
    answers: npt.NDArray[np.int64] = predict(model, sample, device, torch.float32).argmax(dim=1).numpy()
    return answers


def _accuracy(model: Network, answers: npt.NDArray[np.int64], sample: Dataset) -> Finding:
    stated = model.facts.get("test_accuracy")
    stated = stated if isinstance(stated, float) else None
    text = f"{float((answers == sample.labels).mean()):.1%} of {len(sample):,} test {sample.noun} are right"
    text += f"; its file states {stated:.1%}" if stated is not None else ""
    chance = float(sample.class_counts().max()) / len(sample)  # of who always says the largest class
    text += f"; by chance {chance:.1%}"
    weak = weakness(answers, sample.labels, stated, sample.noun)
    if weak:
        of_images = "normalisation, image size and " if sample.holds_images else ""
        remedy = f"look at its {of_images}order of classes, and what it was trained on"
        return Finding(area="teacher", subject="accuracy", level="fail", text=text, remedy=remedy)
    lowest, _ = Proportion(count=int((answers == sample.labels).sum()), total=len(sample)).interval
    if lowest <= chance:
        remedy = f"with as few {sample.noun} that may be luck: give more, or look at its accuracy elsewhere"
        return Finding(area="teacher", subject="accuracy", level="warn", text=text, remedy=remedy)
    return Finding(area="teacher", subject="accuracy", level="ok", text=text)


def _normalisation(
    model: Network, answers: npt.NDArray[np.int64], sample: Dataset, train: Dataset, device: torch.device
) -> Finding:
    """Whether another usual normalisation gives more right answers."""
    own, right = model.preprocessing, answers == sample.labels
    found = {"its own": right}
    others = {"the data's": (train.mean, train.std), **(_USUAL if train.image_shape[0] == 3 else {})}
    try:
        for name, (mean, std) in others.items():
            model.preprocessing = dataclasses.replace(own, mean=mean, std=std, mean_image=None)
            found[name] = _answers(model, sample, device) == sample.labels
    finally:
        model.preprocessing = own
    best = max(found, key=lambda name: int(found[name].sum()))
    alone = OnImages(
        count=len(sample), only_first=int((found[best] & ~right).sum()), only_second=int((right & ~found[best]).sum())
    )
    if alone.difference < _BETTER or alone.p_value > _LUCK:
        return Finding(
            area="teacher", subject="normalisation", level="ok", text=f"no usual one is better than {_told(own)}"
        )
    better = [[float(f"{value:.3g}") for value in values] for values in others[best]]
    return Finding(
        area="teacher",
        subject="normalisation",
        level="fail",
        text=f"with {best} {found[best].mean():.1%} are right, with its own ({_told(own)}) {right.mean():.1%}",
        remedy=settings(teacher_mean=better[0], teacher_std=better[1]),
    )


def _told(own: Preprocessing) -> str:
    if own.mean_image is not None:
        return "its own mean image"
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (own.mean, own.std))
    return f"mean {mean}; std {std}"


def _order(answers: npt.NDArray[np.int64], sample: Dataset) -> Finding:
    order = better_order(answers, sample.labels, sample.num_classes)
    if order is None:
        return Finding(area="teacher", subject="class order", level="ok", text="that of the data")
    moved = [f"{sample.class_names[n]} for {sample.class_names[c]}" for n, c in enumerate(order) if n != c][:3]
    return Finding(
        area="teacher",
        subject="class order",
        level="fail",
        text=f"another than the data's: it says {', '.join(moved)}{' …' if len(moved) == 3 else ''}; so read, "
        f"{float((order[answers] == sample.labels).mean()):.1%} are right",
        remedy=f"put the rows of its last layer in the order {np.argsort(order).tolist()}, or the classes of the data",
    )
