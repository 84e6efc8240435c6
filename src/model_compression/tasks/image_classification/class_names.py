"""Whether a network knows the classes of a dataset, in its order."""

from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network


def check_classes(role: str, model: Network, dataset: Dataset, answer: Tensor) -> None:
    """Raises UsageError unless ``answer`` (2, K) has a logit for each class, and the classes are in the same order."""
    if answer.ndim != 2:
        raise UsageError(f"the {role} answers two images with {tuple(answer.shape)}; expected logits (2, classes)")
    classes = answer.shape[1]
    who, option = (f"teacher {model.name}", f" ({setting('teacher')})") if role == "teacher" else (role, "")
    if classes != dataset.num_classes:
        raise UsageError(
            f"the {who} answers with {classes} classes, but the data ({dataset.name}) have {dataset.num_classes}; "
            f"choose another {role}{option} or another dataset"
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
    """A line where a trained network and the dataset name their classes differently; numbers are no names."""
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
