"""Which of a teacher's classes are those of the data: by their names, or as a file says."""

from typing import Any

from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.core.registry import unknown_name
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.tasks.class_files import read_class_file

BY_NAME = "names"


def numbers_of_classes(wanted: str, model: Network, dataset: Dataset) -> list[int]:
    """(K,) the numbers in the answers of ``model`` of the K classes of ``dataset``.

    ``wanted`` is "names", which compares names without case and with spaces for _ and -, or a JSON file: an object
    of the data's classes with the teacher's numbers or names, or a list of these in the order of the data's classes.
    Raises UsageError where a class has no number, or two have the same.
    """
    own = [str(name) for name in model.facts.get("class_names", ())]
    if not dataset.class_names:
        raise UsageError(f"{setting('teacher_classes')} needs data with classes, and {dataset.name} has none")
    found: dict[str, Any]
    found = dict(zip(dataset.class_names, dataset.class_names, strict=True)) if wanted == BY_NAME else {}
    if wanted == BY_NAME and not own:
        raise UsageError(
            f"the teacher {model.name} does not name its classes: give {setting('teacher_classes')} a JSON file, as "
            '{"cat": 281, "dog": 207}'
        )
    if wanted != BY_NAME:
        found = _read(wanted, dataset)
    by_name: dict[str, list[int]] = {}
    for number, name in enumerate(own):
        by_name.setdefault(_plain(name), []).append(number)
    numbers: list[int] = []
    for name in dataset.class_names:
        if name not in found:
            raise UsageError(f"{wanted} has no class of the teacher for {name!r}")
        value = found[name]
        number = _number_of(value, name, by_name, own) if isinstance(value, str) else value
        if type(number) is not int or number < 0 or (own and number >= len(own)):
            bound = f"from 0 to {len(own) - 1}" if own else "of at least 0"
            raise UsageError(f"{wanted}: the teacher's class for {name!r} must be a number {bound}, got {number!r}")
        if number in numbers:
            other = dataset.class_names[numbers.index(number)]
            raise UsageError(f"{wanted}: {other!r} and {name!r} have the same class of the teacher, {number}")
        numbers.append(number)
    return numbers


def _number_of(value: str, name: str, by_name: dict[str, list[int]], own: list[str]) -> int:
    """The number of the teacher's class that is called ``value``. Raises UsageError unless it is the only one."""
    numbers = by_name.get(_plain(value), [])
    if not numbers:
        raise UsageError(f"{setting('teacher_classes')}: {unknown_name('class of the teacher', value, own)}")
    if len(numbers) > 1:
        raise UsageError(
            f"{setting('teacher_classes')}: the teacher has {len(numbers)} classes called {value!r}, with the numbers "
            f'{", ".join(map(str, numbers))}; name one in a JSON file, as {{"{name}": {numbers[0]}}}'
        )
    return numbers[0]


def _read(path: str, dataset: Dataset) -> dict[str, Any]:
    form = 'expected JSON as {"cat": 281, "dog": 207}'
    found: dict[str, Any] | list[Any] = read_class_file(path, "teacher_classes", BY_NAME, form)
    if isinstance(found, list):
        if len(found) != dataset.num_classes:
            raise UsageError(f"{path} lists {len(found)} classes; {dataset.name} has {dataset.num_classes}")
        return dict(zip(dataset.class_names, found, strict=True))
    for name in found:
        if name not in dataset.class_names:
            raise UsageError(f"{path}: {unknown_name('class', name, list(dataset.class_names))}")
    return found


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())
