"""Whether a network knows the classes of a dataset, in its order."""

from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network


def check_classes(role: str, model: Network, dataset: Dataset, answer: Tensor) -> None:
    """Raises UsageError unless ``answer`` (2, K) has a logit for each class, and the classes are in the same order."""
    if answer.ndim != 2:
        raise UsageError(
            f"the {role} answers two {dataset.noun} with {tuple(answer.shape)}; expected logits (2, classes)"
        )
    check_order(role, model, dataset, answer.shape[1])


def check_order(role: str, model: Network, dataset: Dataset, classes: int) -> None:
    """Raises UsageError unless a network with logits for so many ``classes`` has those of the data, in their order."""
    who, option = (f"teacher {model.name}", f" ({setting('teacher')})") if role == "teacher" else (role, "")
    if classes != dataset.num_classes:
        remedy = f"choose another {role}{option} or another dataset"
        if role == "teacher" and classes > dataset.num_classes:
            remedy += f", or say which classes are the data's: {setting('teacher_classes')}"
        raise UsageError(
            f"the {who} answers with {classes} classes, but the data ({dataset.name}) have {dataset.num_classes}; "
            f"{remedy}"
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
    """A line where a trained network and the dataset name or order their classes differently.

    Numbers are no names; the same numbers in another order are one.
    """
    return other_names(model.facts.get("class_names"), list(dataset.class_names), dataset.name, "class", "classes")


def other_names(own: object, names: list[str], data: str, one: str, several: str) -> list[str]:
    """The same for a network's ``own`` names and those of the ``data``, each of which names ``one``."""
    if not isinstance(own, list) or len(own) != len(names) or own == names:
        return []
    first = next(number for number, name in enumerate(names) if own[number] != name)
    where = f"its {one} {first} is {own[first]!r}, the data's {names[first]!r}"
    if set(map(str, own)) == set(names):
        return [f"the network has its {several} in another order than {data}: {where}"]
    if any(all(str(name).isdecimal() for name in part) for part in (own, names)):
        return []
    return [f"the network learned other {several} than {data} has: {where}; they are taken for the same"]
