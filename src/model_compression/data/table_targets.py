"""Labels of tables: one class a row, several classes as lists or as columns of 0 and 1, or numbers."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import DataError, UsageError
from model_compression.core.options import setting
from model_compression.data.class_numbers import class_numbers
from model_compression.data.table import Table, column_list

MULTI_LABEL, REGRESSION = "multi-label", "regression"
SEPARATORS = ";|,"
_LARGEST = float(np.finfo(np.float32).max)
_DECIMAL_COMMA = r"[+-]?\d+(,\d+)?"
_LIST = r"(?s)\[\s*(['\"\d].*)?\]"  # of texts or numbers, in JSON or as Python prints it
_YES_NO = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


@dataclass(frozen=True, eq=False)
class Targets:
    """The labels of the tables that they were read from, in their order.

    ``kind`` is "multi-label", "regression" or "", one class each. ``values``: (N, K) uint8, (N, D) float32 or (N,)
    int64. ``names``: of the classes, or of the numbers as the header has them, as "weight [g]".
    """

    kind: str
    values: list[npt.NDArray[Any]]
    names: tuple[str, ...]


def read_targets(tables: Sequence[Table], columns: Sequence[str], task: str = "", separator: str = "") -> Targets:
    """The labels in ``columns`` of ``tables``, the training table first.

    ``task`` is "multi-label", "regression", another one, which has one class a row, or "": then columns of 0 and 1,
    lists in JSON, and a given ``separator``, are several classes, other numbers with a fraction or in several columns
    are a regression, and anything else one class each. Class numbers stay what they are; names are put in order.

    Raises DataError with file and line for a label that the training table has not, an empty one, and what is no
    number; UsageError where columns cannot be labels of the task.
    """
    cells = [[table.column(name) for name in columns] for table in tables]
    kind = task if task in (MULTI_LABEL, REGRESSION) else "" if task else kind_of(cells, separator)
    if separator and (kind != MULTI_LABEL or len(columns) > 1):
        raise UsageError(f"{setting('label_separator')} is for lists of labels in one column; leave it out")
    if kind == REGRESSION:
        return Targets(
            kind, [_numbers(table, columns, own) for table, own in zip(tables, cells, strict=True)], tuple(columns)
        )
    if kind == MULTI_LABEL and len(columns) > 1:
        return Targets(
            kind, [_ones(table, columns, own) for table, own in zip(tables, cells, strict=True)], tuple(columns)
        )
    if len(columns) > 1:
        raise UsageError(
            f"{tables[0].path} has the label columns {column_list(columns)}; expected one for one class a row: name it "
            f"with {setting('label_columns')}, or give {setting('task', MULTI_LABEL)} or {setting('task', REGRESSION)}"
        )
    single = [own[0] for own in cells]
    if kind == MULTI_LABEL:
        return _lists(tables, columns[0], single, separator)
    return _classes(tables, columns[0], single)


def kind_of(cells: Sequence[Sequence[Sequence[str]]], separator: str) -> str:
    """What labels are by themselves, from the cells of each column of each table: see `read_targets`."""
    several = len(cells[0]) > 1
    values = [cell for own in cells for column in own for cell in column]
    if separator or (several and all(cell.lower() in _YES_NO for cell in values)):
        return MULTI_LABEL
    if not several and any(values) and all(re.fullmatch(_LIST, cell) for cell in values if cell):
        return MULTI_LABEL
    if several or not all(re.fullmatch(r"[+-]?\d+", cell) for cell in values):
        return REGRESSION if all(map(_is_number, values)) else ""
    return ""


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(table: Table, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> npt.NDArray[np.float32]:
    found = np.empty((len(table), len(columns)), dtype=np.float32)
    for number, (name, column) in enumerate(zip(columns, cells, strict=True)):
        for row, cell in enumerate(column):
            if not _is_number(cell) or not math.isfinite(float(cell)) or abs(float(cell)) > _LARGEST:
                raise DataError(
                    f"{table.where(row)}: {name!r} is {cell[:60]!r}; expected a finite number, with a point before "
                    "decimals"
                )
            found[row, number] = float(cell)
    return found


def _ones(table: Table, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> npt.NDArray[np.uint8]:
    found = np.empty((len(table), len(columns)), dtype=np.uint8)
    for number, (name, column) in enumerate(zip(columns, cells, strict=True)):
        for row, cell in enumerate(column):
            if cell.lower() not in _YES_NO:
                raise DataError(f"{table.where(row)}: {name!r} is {cell[:60]!r}; expected 0 or 1")
            found[row, number] = _YES_NO[cell.lower()]
    return found


def _lists(tables: Sequence[Table], column: str, cells: Sequence[Sequence[str]], separator: str) -> Targets:
    """The classes in each cell: a list in JSON where a cell is one, else names with a sign between them."""
    if any(re.fullmatch(_LIST, cell) for own in cells for cell in own):
        sign = ";"
        lists = [
            [_listed(table, row, column, cell) for row, cell in enumerate(own)]
            for table, own in zip(tables, cells, strict=True)
        ]
    else:
        signs = [sign for sign in SEPARATORS if any(sign in cell for own in cells for cell in own)]
        sign = separator or (signs[0] if signs else ";")
        lists = [[[part.strip() for part in cell.split(sign) if part.strip()] for cell in own] for own in cells]
    names = tuple(sorted({name for parts in lists[0] for name in parts}))
    if len(names) < 2:
        raise DataError(
            f"{tables[0].path}: {column!r} has the labels {', '.join(names) or 'none'}; expected at least two, as "
            f"a{sign}b in a cell: {setting('label_separator')} names the sign between them"
        )
    widths = {len(parts) for parts in lists[0]}
    if len(widths) == 1 and min(widths) > 1 and {*names} <= {"0", "1"}:
        raise DataError(
            f"{tables[0].path}: each {column!r} is a row of 0 and 1; expected the names or numbers of the classes that "
            "a sample has, or a column of 0 and 1 for each class"
        )
    found, places = [], _places(names)
    for table, own in zip(tables, lists, strict=True):
        values = np.zeros((len(own), len(names)), dtype=np.uint8)
        for row, parts in enumerate(own):
            values[row, [_place(table, row, name, places) for name in parts]] = 1
        found.append(values)
    return Targets(MULTI_LABEL, found, names)


def _listed(table: Table, row: int, column: str, cell: str) -> list[str]:
    """The names in a list in JSON, or numbers as names; none in an empty cell."""
    try:
        found = json.loads(cell or "[]")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(type(one) in (str, int) for one in found):
        raise DataError(
            f"{table.where(row)}: {column!r} is {cell[:60]!r}; expected a list of classes in JSON, as "
            '["cat", "dog"], or names with ; between them'
        )
    return [str(one).strip() for one in found if str(one).strip()]


def _classes(tables: Sequence[Table], column: str, cells: Sequence[Sequence[str]]) -> Targets:
    for table, own in zip(tables, cells, strict=True):
        if "" in own:
            raise DataError(
                f"{table.where(own.index(''))}: {column!r} is empty; expected a label in every row, or several or none "
                f"with {setting('task', MULTI_LABEL)}"
            )
        for row, cell in enumerate(own):
            if re.fullmatch(_LIST, cell):
                raise DataError(
                    f"{table.where(row)}: {column!r} is the list {cell[:60]!r}; expected one class, or several with "
                    f"{setting('task', MULTI_LABEL)}"
                )
    integers = all(re.fullmatch(r"-?\d{1,18}", cell) for own in cells for cell in own)
    if integers and min(int(cell) for own in cells for cell in own) > 0:  # names, as of ratings from 1 to 5
        cells = [[str(int(cell)) for cell in own] for own in cells]
    elif integers:
        numbers, classes = class_numbers(
            [np.array(own, dtype=np.int64) for own in cells], f"{tables[0].path}: {column!r}"
        )
        return Targets("", [*numbers], classes)
    elif all(re.fullmatch(_DECIMAL_COMMA, cell) for own in cells for cell in own):
        where, cell = next(
            (table.where(row), cell)
            for table, own in zip(tables, cells, strict=True)
            for row, cell in enumerate(own)
            if "," in cell
        )
        raise DataError(f"{where}: {column!r} is {cell!r}; expected a point before decimals, or names of classes")
    names = tuple(sorted(set(cells[0]), key=int if integers else None))
    places = _places(names)
    found = [
        np.array([_place(table, row, name, places) for row, name in enumerate(own)], dtype=np.int64)
        for table, own in zip(tables, cells, strict=True)
    ]
    return Targets("", [*found], names)


def _places(names: tuple[str, ...]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _place(table: Table, row: int, name: str, places: dict[str, int]) -> int:
    if name not in places:
        near = get_close_matches(name, places, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(
            f"{table.where(row)}: the label {name[:60]!r} is not in the training rows; {hint}known: "
            f"{column_list([*places])}"
        )
    return places[name]
