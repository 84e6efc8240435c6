"""Columns of a Hugging Face dataset as tables of labels, for several classes a sample and for numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_compression.data.table import Table
from model_compression.data.table_targets import MULTI_LABEL, REGRESSION, Targets, read_targets

_SIGN = "\x1f"  # between the classes of a cell: no name has it


def hub_targets(parts: Mapping[str, Any], columns: str, task: str) -> Targets | None:
    """The targets in ``columns``, with "+" between several, of ``parts`` {title: split}, the training split first.

    None where they are one class each. A column of lists is several classes, or of lists of fractions numbers; so are
    several columns of 0 and 1, and of other numbers. Without names and with a ``task`` all columns that can be labels
    are. Raises what `read_targets` does, with the number of the row.
    """
    first = next(iter(parts.values()))
    names = [name.strip() for name in columns.split("+")] if columns else []
    if not names and task in (MULTI_LABEL, REGRESSION):
        names = [name for name, kind in first.features.items() if _could_be(kind, task)]
    known = [name for name in names if name in first.features]
    if not known or len(known) < len(names):
        return None
    lists = len(known) == 1 and _is_list(first.features[known[0]])
    fractions = any("float" in str(getattr(_inner(first.features[name]), "dtype", "")) for name in known)
    if task not in (MULTI_LABEL, REGRESSION) and not (lists or fractions or len(known) > 1):
        return None
    if lists and fractions:
        return read_targets(
            [_spread(title, split, known[0]) for title, split in parts.items()], _places(first, known[0]), REGRESSION
        )
    names_of = getattr(_inner(first.features[known[0]]), "names", None) if lists else None
    if names_of:
        named = [_one_hot(title, split, known[0], names_of) for title, split in parts.items()]
        return read_targets(named, names_of, MULTI_LABEL)
    tables = [_table(title, split, known) for title, split in parts.items()]
    return read_targets(tables, known, MULTI_LABEL if lists else task, _SIGN if lists else "")


def _could_be(kind: Any, task: str) -> bool:
    dtype = str(getattr(_inner(kind), "dtype", ""))
    is_number = any(word in dtype for word in ("int", "float", "bool"))
    return (_is_list(kind) and task == MULTI_LABEL) or (is_number and not hasattr(kind, "names"))


def _is_list(kind: Any) -> bool:
    return hasattr(kind, "feature") or isinstance(kind, list)


def _inner(kind: Any) -> Any:
    return kind.feature if hasattr(kind, "feature") else kind[0] if isinstance(kind, list) else kind


def _table(title: str, split: Any, columns: list[str]) -> Table:
    cells = [_cells(split, name) for name in columns]
    return Table(Path(title), tuple(columns), tuple(zip(*cells, strict=True)), tuple(range(len(split))), "row")


def _cells(split: Any, name: str) -> list[str]:
    """The cells of a column as text; of lists with a sign between their parts."""

    def text(value: Any) -> str:
        return "" if value is None else str(value)

    values = split.select_columns([name]).with_format(None)[name]
    return [_SIGN.join(map(text, one)) if isinstance(one, list) else text(one) for one in values]


def _one_hot(title: str, split: Any, name: str, names: list[str]) -> Table:
    """A column of lists of class numbers, a column of 0 and 1 for each class."""
    values = split.select_columns([name]).with_format(None)[name]
    rows = tuple(tuple(str(int(number in (one or ()))) for number in range(len(names))) for one in values)
    return Table(Path(title), tuple(names), rows, tuple(range(len(split))), "row")


def _spread(title: str, split: Any, name: str) -> Table:
    """A column of lists of numbers, each its own column."""
    values = split.select_columns([name]).with_format(None)[name]
    columns = _places(split, name)
    rows = tuple(tuple(map(str, one)) + ("",) * (len(columns) - len(one)) for one in values)
    return Table(Path(title), tuple(columns), rows, tuple(range(len(split))), "row")


def _places(split: Any, name: str) -> list[str]:
    count = max(len(one) for one in split.select_columns([name]).with_format(None)[name])
    return [f"{name} {number}" for number in range(1, count + 1)] if count > 1 else [name]
