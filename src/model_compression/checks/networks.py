"""What can be known of student and teacher before training, from the networks and a few hundred training images."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import beta, binom

from model_compression.core.config import TrainConfig
from model_compression.core.errors import ModelCompressionError, NumericalError, UsageError
from model_compression.data.dataset import Dataset
from model_compression.data.opaque import OpaqueImages
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.models.base import Network, seeded
from model_compression.models.copies import copy_of
from model_compression.models.external import is_external, library_of
from model_compression.models.prediction import evaluating, predict

_FEW, _MANY = 256, 1024  # images for every teacher, and for one that is not plainly good on those
ENOUGH = 50  # images, below which nothing is concluded
_GOOD = 0.8  # Cohen's kappa of a teacher that is plainly good
_WEAK = 0.1  # and of one whose answers are next to unrelated to the labels
_OTHERS = 0.1  # of images that are of another class than the one which is answered to all
_LOSS = 0.1  # of accuracy below the stated one that is too much
_GAIN = 0.1  # of accuracy by another order of classes that tells it, if so read
_ORDERED = 0.5  # is at least its kappa: a teacher of other classes gains by an order too, which mends nothing
_RISK = 0.01  # that a teacher at one of these bounds is refused by bad luck
_NAMED = 4  # classes that an error names

Classes = npt.NDArray[np.int64]


def check_classes(role: str, model: Network, dataset: Dataset, *, has_size_option: bool = True) -> None:
    """Raises UsageError unless the network takes the data set's images and answers with its number of classes.

    ``has_size_option``: images can be scaled for the ``role``; the error names the option then.
    """
    images = torch.from_numpy(dataset.images[:2])
    try:
        answer = _answer_to(model, images)
        if role not in ("teacher", "model"):
            _check_it_can_learn(role, model, answer)
    except ModelCompressionError:
        raise
    except Exception as error:  # a network of others says in its own way what it cannot take
        kinds = {one.dtype for one in model.parameters() if one.is_floating_point()} - {torch.float32}
        if kinds and role == "teacher":
            model.float()
            return check_classes(role, model, dataset, has_size_option=has_size_option)
        option = "--size" if role == "model" else f"--{role}-size"
        remedy = f"{option} scales them for it" if has_size_option else "give data like those that it has learnt from"
        found, taken = dataset.image_shape[0], model.image_shape[0]
        if kinds:
            remedy = f"its weights are {kinds.pop()}: call its float(), networks are trained in float32"
        elif found != taken:
            as_rgb = "they are grey: give them as RGB, or " if found == 1 else "give "
            remedy = f"{as_rgb}a network that takes {found} channels: this one takes {taken}"
        raise UsageError(
            f"the {role} cannot take images of {dataset.image_shape}, as {dataset.name} has: {error}; {remedy}"
        ) from error
    if answer.ndim != 2 or len(answer) != len(dataset.images[:2]):
        raise UsageError(f"the {role} answers two images with {tuple(answer.shape)}; expected logits (2, classes)")
    if not bool(answer.isfinite().all()):
        raise NumericalError(f"the {role} answers with NaN or infinity; give another, or train it anew")
    classes = answer.shape[1]
    who, option = (f"teacher {model.name}", " (--teacher)") if role == "teacher" else (role, "")
    if classes != dataset.num_classes:
        raise UsageError(
            f"the {who} answers with {classes} classes, but the data ({dataset.name}) have {dataset.num_classes}; "
            f"choose another {role}{option} or another data set"
        )
    own, names = model.facts.get("class_names"), list(dataset.class_names)
    if role != "student" and isinstance(own, list) and own != names and set(own) == set(names):
        first = next(number for number, name in enumerate(names) if own[number] != name)
        raise UsageError(
            f"the {who} has its classes in another order than {dataset.name}: its class {first} is {own[first]!r}, the "
            f"data's {names[first]!r}; bring the data's into the order {', '.join(own)}: class folders go by the "
            "alphabet"
        )


def other_classes(model: Network, dataset: Dataset) -> list[str]:
    """A line where a trained network and the data set name their classes differently; numbers are no names."""
    own, names = model.facts.get("class_names"), list(dataset.class_names)
    if (
        not isinstance(own, list)
        or own == names
        or any(all(str(one).isdecimal() for one in part) for part in (own, names))
    ):
        return []
    first = next(number for number, name in enumerate(names) if own[number] != name)
    return [
        f"the network learned other classes than {dataset.name} has: its class {first} is {own[first]!r}, the data's "
        f"{names[first]!r}; they are taken for the same"
    ]


def _check_it_can_learn(role: str, model: Network, answer: torch.Tensor) -> None:
    """Raises UsageError for a network without gradients, or with a state that is no plain tensors."""
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor) or value.is_quantized:
            raise UsageError(
                f"the {role} is quantised already ({name} is no plain tensor): train the network that it was made of, "
                "and quantise what comes out"
            )
    if not answer.requires_grad and any(one.requires_grad for one in model.parameters()):
        raise UsageError(
            f"the {role}'s answers have no gradient, so it cannot learn: its forward() must compute them without "
            "no_grad, inference_mode, detach and NumPy"
        )


def _answer_to(model: Network, images: torch.Tensor) -> torch.Tensor:
    """What ``model`` answers in eval mode, with gradient where it has one; its mode stays as it was."""
    with evaluating(model), torch.enable_grad():
        answer: torch.Tensor = model(model.preprocessing(images))
    return answer


def check_training_mode(role: str, model: Network, dataset: Dataset, batch_size: int) -> None:
    """Raises UsageError for a network that answers in eval mode and fails in training, as BatchNorm on one value does.

    It is tried on a copy, with as few images as a batch of ``batch_size`` has at least.
    """
    count = min(2, batch_size, len(dataset))
    with torch.no_grad(), seeded(0):  # dropout draws
        try:
            trained = copy_of(model).train()
            trained(trained.preprocessing(torch.from_numpy(dataset.images[:count])))
        except ModelCompressionError:
            raise
        except Exception as error:  # a network of others says in its own way what it cannot take
            remedy = "; give batches of two images at least (--batch-size)" if count == 1 else ""
            images = "one image" if count == 1 else f"{count} images"
            raise UsageError(
                f"the {role} answers in eval mode and fails in training on a batch of {images}: {_first_line(error)}"
                f"{remedy}"
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


_NEVERTHELESS = "--allow-weak-teacher (in Python: allow_weak_teacher=True)"


def check_teachers_answers(
    config: TrainConfig, live: LiveTeacher, dataset: Dataset, report: Callable[[str], None]
) -> None:
    """Compares what each teacher answers to a sample of ``dataset`` with the labels, see `weakness` and `better_order`.

    Raises UsageError with what is wrong, or only says so where ``config`` allows a weak teacher. Without labels, or
    with those of a DataLoader, which come with its batches, nothing is compared.
    """
    if not dataset.labelled or isinstance(dataset.images, OpaqueImages):
        return
    if len(dataset) < ENOUGH:
        return
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(dataset))
    for number, model in enumerate(live.models):
        fault = _fault(number, live, dataset, order, config)
        if fault is None:
            continue
        if not config.allow_weak_teacher:
            raise UsageError(f"the teacher {model.name} {fault}; {_NEVERTHELESS} goes on nevertheless")
        report(f"the teacher {model.name} {fault}; going on, because a weak teacher is allowed")


def _fault(number: int, live: LiveTeacher, dataset: Dataset, order: Classes, config: TrainConfig) -> str | None:
    """What is wrong with one teacher; a second, larger sample settles what a first one leaves open."""
    data = config.data.name
    model, precision = live.models[number], live.precisions[number]
    stated = model.facts.get("test_accuracy")
    stated = stated if isinstance(stated, float) else None
    answers = labels = order[:0]
    for count in (_FEW, _MANY):
        sample = dataset.subset(order[:count])
        answers, labels = predict(model, sample, live.device, precision).argmax(dim=1).numpy(), sample.labels
        if _is_plainly_good(answers, labels, stated):
            return None
    found = better_order(answers, labels, dataset.num_classes)
    if found is not None:
        return _order_fault(found, answers, labels, dataset)
    fault = weakness(answers, labels, stated)
    if fault is None:
        return None
    own = model.preprocessing
    height, width = own.size or dataset.image_shape[1:]
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (own.mean, own.std))
    trained_on = _trained_on(model)
    elsewhere = (
        f"it was trained on {trained_on}: unless {data} has the same classes, train a teacher on {data} first, with "
        "`model-compression train`; else "
    )
    if _is_without_weights(model, config):
        elsewhere = f"no weights were given: give them with --teacher-weights; if {model.name} loads them itself, "
        trained_on = model.name
    return (
        f"{fault}; {elsewhere if trained_on not in (None, data) else ''}look at its normalisation (mean {mean}; std "
        f"{std}), its image size ({height} × {width}), the order of its classes, and what it was trained on"
    )


def _is_without_weights(model: Network, config: TrainConfig) -> bool:
    """Whether a builder of the user's was named and no weights, so that only the builder knows if it is trained."""
    if config.teacher is None or config.teacher.weights or not is_external(model.name) or library_of(model.name):
        return False
    return model.name in [name.strip() for name in config.teacher.name.split(",")]


def _trained_on(model: Network) -> str | None:
    """The data set that a network's file names; None where it names none."""
    data = config.get("data") if isinstance(config := model.facts.get("config"), dict) else None
    name = data.get("name") if isinstance(data, dict) else None
    return name if isinstance(name, str) else None


def weakness(answers: Classes, labels: Classes, stated: float | None = None) -> str | None:
    """What is wrong with a teacher that chose the classes ``answers`` (N,) for images of the classes ``labels`` (N,).

    An accuracy far below the ``stated`` one, one class for all images where a tenth are of others, or answers that are
    next to unrelated to the labels by Cohen's kappa (1960, doi 10.1177/001316446002000104), which a class that is most
    of the data does not deceive. The first and the last only where the number of images rules bad luck out (Clopper &
    Pearson 1934, one-sided). None: nothing.
    """
    count, right = len(labels), int((answers == labels).sum())
    highest = 1.0 if right == count else float(beta.ppf(1 - _RISK, right + 1, count - right))  # that can be believed
    found = f"is right on {right / count:.1%} of {count:,} training images"
    if stated is not None and highest < stated - _LOSS:
        return f"{found}, and its file states {stated:.1%} of the test images"
    if (answers == answers[0]).all() and (labels != answers[0]).mean() >= _OTHERS:
        return f"gives one and the same class to all of {count:,} training images"
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


def _order_fault(order: Classes, answers: Classes, labels: Classes, dataset: Dataset) -> str:
    moved = np.flatnonzero(order != np.arange(len(order)))
    named = [f"{dataset.class_names[n]!r} for {dataset.class_names[order[n]]!r}" for n in moved[:_NAMED]]
    more = f" and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
    rows = f" (rows {np.argsort(order).tolist()})" if len(order) <= 20 else ""
    return (
        f"has its classes in another order than {dataset.name}, or is not trained: it says {', '.join(named)}{more}; "
        f"so read, {(order[answers] == labels).mean():.1%} of {len(labels):,} training images are right, else "
        f"{(answers == labels).mean():.1%}; put the rows of its last layer{rows} or the classes of the data in order"
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
