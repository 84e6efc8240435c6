"""What `doctor`, and every run, says of targets that are numbers, and of a teacher of such."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.finding import Finding
from model_compression.core.options import settings
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.models.prediction import predict
from model_compression.reports.values import in_units, names_or_numbers, r_squared
from model_compression.tasks.image_classification.class_names import other_names

_SAMPLE = 1024  # training samples that a teacher is tried on
_GAIN = 0.1  # of R² by another scale or order, which tells it
_KNOWS = 0.05  # R² after the best scaling, below which answers have nothing to do with the targets
_FAR = 8  # deviations from the mean
_BEYOND = 0.05  # of the test samples
_ALIKE = 1e-4  # of a scale
Floats = npt.NDArray[np.float64]


def check_scale(role: str, model: Network, dataset: Dataset, answer: Tensor) -> None:
    """Raises UsageError unless ``answer`` is (2, D), and the network's numbers have the dataset's order and scale."""
    count = dataset.num_outputs
    if answer.ndim != 2 or answer.shape[1] != count:
        raise UsageError(
            f"the {role} answers two {dataset.noun} with {tuple(answer.shape)}; expected {count} "
            f"number{'' if count == 1 else 's'} for each, as {dataset.name} has"
        )
    if role == "student":
        return
    own, names = model.facts.get("target_names"), names_or_numbers(dataset.target_names, count)
    if isinstance(own, list) and own != names and set(map(str, own)) == set(names):
        raise UsageError(
            f"the {role} {model.name} has its numbers in another order than {dataset.name}: {', '.join(own)}, the data "
            f"{', '.join(names)}; {settings(label_columns=','.join(own))} brings them into its order"
        )
    scale = [model.facts.get(name) for name in ("target_mean", "target_std")]
    if not all(isinstance(one, list) and len(one) == count for one in scale):
        return
    wanted = [
        list(part) or [default] * count for part, default in ((dataset.target_mean, 0.0), (dataset.target_std, 1.0))
    ]
    mean, std = (np.array(one, dtype=np.float64) for one in scale)
    if (np.abs(mean - wanted[0]) > _ALIKE * np.abs(std)).any() or (np.abs(std / wanted[1] - 1) > _ALIKE).any():
        scaling = settings(target_mean=_listed(scale[0]), target_std=_listed(scale[1]))
        other = other_numbers(model, dataset)  # by a scale no other unit comes right
        advice = "bring the data into its units" if other else f"give {scaling}"
        raise UsageError(
            f"the {role} {model.name} scales its numbers by mean {_listed(scale[0])} and deviation "
            f"{_listed(scale[1])}, {dataset.name} by {_listed(wanted[0])} and {_listed(wanted[1])}; {advice}"
        )


def other_numbers(model: Network, dataset: Dataset) -> list[str]:
    """A line where a trained network and the dataset give their numbers other names or units; none has no names."""
    own, names = model.facts.get("target_names"), list(dataset.target_names)
    unnamed = own == names_or_numbers((), len(names))
    return [] if unnamed else other_names(own, names, dataset.name, "number", "numbers")


def _listed(values: object) -> str:
    assert isinstance(values, list)
    return ",".join(f"{value:g}" for value in values)


def examine_targets(train: Dataset, test: Dataset) -> Iterator[Finding]:
    """The range of each number, values far outside, and test values beyond the training ones."""
    if not train.labelled or not train.has_ids:
        return
    names = names_or_numbers(train.target_names, train.num_outputs)
    targets, tested = (one.labels.reshape(len(one), -1).astype(np.float64) for one in (train, test))
    ranges = ", ".join(
        f"{name} {low:.4g} to {high:.4g}" for name, low, high in zip(names, targets.min(0), targets.max(0), strict=True)
    )
    yield Finding(area="data", subject="targets", level="ok", text=ranges)
    for where, values in (("training", targets), ("test", tested)):
        alike = [name for name, low, high in zip(names, values.min(0), values.max(0), strict=True) if low == high]
        if alike:
            yield Finding(
                area="data", subject="targets", level="warn",
                text=f"all {where} {train.noun} have the same {' and '.join(alike)}",
                remedy="leave the number out, or bring others: R² says nothing of one that does not vary",
            )  # fmt: skip
    spread = np.where(targets.std(axis=0) > 0, targets.std(axis=0), 1)
    far = np.abs(targets - targets.mean(axis=0)) / spread
    if far.max() > _FAR:
        row, column = np.unravel_index(int(far.argmax()), far.shape)
        yield Finding(
            area="data", subject="outliers", level="warn",
            text=f"{names[column]} of training sample {row} is {targets[row, column]:.4g}, {far[row, column]:.0f} "
            "deviations from the mean",
            remedy="look at it; a slip of the decimal point dominates a squared loss: correct it, or take a Huber loss",
        )  # fmt: skip
    beyond = ((tested < targets.min(axis=0)) | (tested > targets.max(axis=0))).any(axis=1)
    by_chance = 2 * train.num_outputs / (len(train) + 1)
    if beyond.mean() > max(_BEYOND, 3 * by_chance):
        yield Finding(
            area="data", subject="range", level="warn",
            text=f"{int(beyond.sum()):,} of {len(test):,} test {test.noun} have numbers beyond those of training",
            remedy="train on the whole range: networks do not extrapolate",
        )  # fmt: skip


def find_fault(
    model: Network, answer: Callable[[Dataset], npt.NDArray[np.float32]], dataset: Dataset, advice: str
) -> str | None:
    """What is wrong with the answers that ``answer`` gives to up to 1,024 training samples, and the remedy.

    A ``model`` that says what scale it has, which `check_scale` compares, does not answer in other units.
    """
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(dataset))[:_SAMPLE]
    sample = dataset.subset(order)
    answers = answer(sample).astype(np.float64)
    targets = sample.labels.reshape(len(sample), -1).astype(np.float64)
    values = in_units(answers, dataset.target_mean, dataset.target_std)
    names = names_or_numbers(dataset.target_names, targets.shape[1])
    found, on = r_squared(values, targets).mean(), f"on {len(sample):,} training {dataset.noun}"
    moved = _best_order(answers, targets)
    if (moved != np.arange(len(moved))).any() and _explained(answers[:, moved], targets) > _explained(
        answers, targets
    ) + _GAIN:
        listed = ", ".join(names[number] for number in np.argsort(moved))
        return (
            f"has its numbers in another order than {dataset.name}: they look like {listed}; bring the targets into it"
        )
    best = _explained(answers, targets)
    if best < _KNOWS:
        return f"has an R² of {found:.1%} {on}, and of {best:.1%} with the best scale for its answers; {advice}"
    if best < found + _GAIN:
        return None
    if model.facts.get("target_mean"):
        slope, offset = _line(values[:, 0].astype(np.float64), targets[:, 0])
        return (
            f"has an R² of {found:.1%} {on}, and of {best:.1%} were {names[0]} {slope:.3g} · answer {offset:+.3g}: "
            f"train it longer; {advice}"
        )
    as_they_are = r_squared(answers, targets).mean()
    if as_they_are > best - _GAIN:
        count = targets.shape[1]
        scale = settings(target_mean=",".join(["0"] * count), target_std=",".join(["1"] * count))
        return (
            f"answers in the targets' units: so read, its R² is {as_they_are:.1%} {on}, else {found:.1%}; give {scale}"
        )
    slope, offset = _line(answers[:, 0], targets[:, 0])
    return (
        f"answers in other units: {names[0]} is about {slope:.4g} · answer {offset:+.4g}, and so read its R² is "
        f"{best:.1%} {on}, else {found:.1%}; bring targets or answers into the same units"
    )


def _line(answers: Floats, targets: Floats) -> tuple[float, float]:
    """(slope, offset) of the least squares line from answers (N,) to targets (N,)."""
    spread = float(answers.var())
    slope = float(np.mean((answers - answers.mean()) * (targets - targets.mean()))) / spread if spread > 0 else 0.0
    return slope, float(targets.mean() - slope * answers.mean())


def _explained(answers: Floats, targets: Floats) -> float:
    """Mean R² of the least squares lines from each column of ``answers`` (N, D) to the one of ``targets`` (N, D)."""
    lines = [_line(answers[:, number], targets[:, number]) for number in range(targets.shape[1])]
    fitted = np.stack([slope * answers[:, n] + offset for n, (slope, offset) in enumerate(lines)], axis=1)
    return float(r_squared(fitted, targets).mean())


def _best_order(answers: Floats, targets: Floats) -> npt.NDArray[np.int64]:
    """(D,) which column of ``answers`` goes with each of ``targets``, by the squares of their correlations."""
    count = targets.shape[1]
    worth = np.array([[_explained(answers[:, [a]], targets[:, [t]]) for a in range(count)] for t in range(count)])
    order: npt.NDArray[np.int64] = linear_sum_assignment(worth + 1e-3 * np.eye(count), maximize=True)[1].astype(
        np.int64
    )
    return order


def examine_teacher(model: Network, sample: Dataset | None, device: torch.device) -> Iterator[Finding]:
    """Findings from what the teacher answers to a ``sample``; None: there is none to be had."""
    if sample is None:
        return

    def answer(part: Dataset) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = predict(model, part, device, torch.float32).numpy()
        return found

    other = other_numbers(model, sample)
    if other:
        remedy = "look whether they are; give targets in its units"
        yield Finding(area="teacher", subject="names", level="warn", text=other[0], remedy=remedy)
    fault = find_fault(model, answer, sample, "look at its normalisation and what it was trained on")
    values = in_units(answer(sample), sample.target_mean, sample.target_std)
    good = f"R² {r_squared(values, sample.labels).mean():.1%} on {len(sample):,} test {sample.noun}"
    text, _, remedy = (fault or good).partition("; ")
    yield Finding(area="teacher", subject="R²", level="fail" if fault else "ok", text=text, remedy=remedy)
