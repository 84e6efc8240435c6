"""What can be known of student and teacher before training, from the networks and a few hundred training images."""

import functools
from collections.abc import Callable

import torch

from model_compression.core.config import TeacherAnswers, TrainConfig
from model_compression.core.errors import ModelCompressionError, NumericalError, UsageError, reason_of
from model_compression.core.inputs import Inputs
from model_compression.core.options import setting
from model_compression.data.batches import to_tensors
from model_compression.data.dataset import Dataset
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.models.base import Network, seeded
from model_compression.models.copies import copy_of
from model_compression.models.eval_mode import evaluating
from model_compression.models.external import is_external, library_of
from model_compression.models.prediction import predict
from model_compression.tasks import task_of

ENOUGH = 50  # samples, below which nothing is concluded


def check_classes(role: str, model: Network, dataset: Dataset, *, has_size_option: bool = True) -> None:
    """Raises UsageError unless the network takes the dataset's images and gives the answers of its task.

    ``has_size_option``: images can be scaled for the ``role``; the error names the option then.
    """
    inputs = to_tensors(dataset.first(2))
    try:
        answer = _answer_to(model, inputs)
        if role not in ("teacher", "model"):
            _check_it_can_learn(role, model, answer)
    except ModelCompressionError:
        raise
    except Exception as error:  # a network of others says in its own way what it cannot take
        kinds = {one.dtype for one in model.parameters() if one.is_floating_point()} - {torch.float32}
        if kinds and role == "teacher":
            model.float()
            return check_classes(role, model, dataset, has_size_option=has_size_option)
        if not dataset.holds_images:
            raise UsageError(f"the {role} cannot take {dataset.noun} as {dataset.name} has: {error}") from error
        option = setting("size" if role == "model" else f"{role}_size")
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
    if len(answer) != min(2, len(dataset)):
        raise UsageError(f"the {role} answers two images with {tuple(answer.shape)}; expected two answers")
    if not bool(answer.isfinite().all()):
        raise NumericalError(f"the {role} answers with NaN or infinity; give another, or train it anew")
    task_of(dataset).check_answer(role, model, dataset, answer)


def check_answer_kind(role: str, model: Network, dataset: Dataset, expected: TeacherAnswers = "logits") -> None:
    """Raises UsageError for a network that answers with something else than ``expected``, as its task sees it."""
    fault = task_of(dataset).answer_fault(role, model, to_tensors(dataset.first(8)), expected)
    if fault is not None:
        raise UsageError(fault)


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


def _answer_to(model: Network, inputs: Inputs) -> torch.Tensor:
    """What ``model`` answers in eval mode, with gradient where it has one; its mode stays as it was."""
    with evaluating(model), torch.enable_grad():
        answer: torch.Tensor = model(model.preprocessing(inputs))
    return answer


def check_training_mode(role: str, model: Network, dataset: Dataset, batch_size: int) -> None:
    """Raises UsageError for a network that answers in eval mode and fails in training, as BatchNorm on one value does.

    It is tried on a copy, with as few images as a batch of ``batch_size`` has at least.
    """
    count = min(2, batch_size, len(dataset))
    with torch.no_grad(), seeded(0):  # dropout draws
        try:
            trained = copy_of(model).train()
            trained(trained.preprocessing(to_tensors(dataset.first(count))))
        except ModelCompressionError:
            raise
        except Exception as error:  # a network of others says in its own way what it cannot take
            remedy = f"; give batches of two samples at least ({setting('batch_size')})" if count == 1 else ""
            samples = "one sample" if count == 1 else f"{count} samples"
            raise UsageError(
                f"the {role} answers in eval mode and fails in training on a batch of {samples}: {reason_of(error)}"
                f"{remedy}"
            ) from error


def check_teachers_answers(
    config: TrainConfig, live: LiveTeacher, dataset: Dataset, report: Callable[[str], None]
) -> None:
    """Compares what each teacher answers to a sample of ``dataset`` with the labels, as the dataset's task does.

    Raises UsageError with what is wrong, or only says so where ``config`` allows a weak teacher. Without labels, or
    with those of a DataLoader, which come with its batches, nothing is compared.
    """
    task = task_of(dataset)
    if (task.has_label_loss and not dataset.labelled) or not dataset.has_ids or len(dataset) < ENOUGH:
        return
    for model, precision in zip(live.models, live.precisions, strict=True):
        answers = functools.partial(predict, model, device=live.device, precision=precision, keep=task.kept)
        fault = task.teacher_fault(model, dataset, answers, _advice(model, dataset, config))
        if fault is None:
            continue
        if not config.allow_weak_teacher:
            raise UsageError(
                f"the teacher {model.name} {fault}; {setting('allow_weak_teacher', True)} goes on nevertheless"
            )
        report(f"the teacher {model.name} {fault}; going on, because a weak teacher is allowed")


def _advice(model: Network, dataset: Dataset, config: TrainConfig) -> str:
    """What to look at when a teacher answers badly."""
    data = config.data.name
    trained_on = _trained_on(model)
    elsewhere = (
        f"it was trained on {trained_on}: unless {data} has the same classes, train a teacher on {data} first, with "
        "`model-compression train`; else "
    )
    if _is_without_weights(model, config):
        elsewhere = (
            f"no weights were given: give them with {setting('teacher_weights')}; if {model.name} loads them itself, "
        )
        trained_on = model.name
    return (
        f"{elsewhere if trained_on not in (None, data) else ''}look at {_of_images(model, dataset)}"
        "the order of its classes, and what it was trained on"
    )


def _of_images(model: Network, dataset: Dataset) -> str:
    """What is peculiar to images in that; empty for other samples."""
    if not dataset.holds_images:
        return ""
    own = model.preprocessing
    height, width = own.size or dataset.image_shape[1:]
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (own.mean, own.std))
    return f"its normalisation (mean {mean}; std {std}), its image size ({height} × {width}), "


def _is_without_weights(model: Network, config: TrainConfig) -> bool:
    """Whether a builder of the user's was named and no weights, so that only the builder knows if it is trained."""
    if config.teacher is None or config.teacher.weights or not is_external(model.name) or library_of(model.name):
        return False
    return model.name in [name.strip() for name in config.teacher.name.split(",")]


def _trained_on(model: Network) -> str | None:
    """The dataset that a network's file names; None where it names none."""
    data = config.get("data") if isinstance(config := model.facts.get("config"), dict) else None
    name = data.get("name") if isinstance(data, dict) else None
    return name if isinstance(name, str) else None
