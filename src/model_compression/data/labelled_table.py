"""What csv:FILE says: which rows are trained on and tested, the cell that names each sample, and its labels."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_compression.core.errors import DataError, UsageError
from model_compression.core.options import setting
from model_compression.core.table_config import TableConfig
from model_compression.data.row_files import read_rows
from model_compression.data.table import Table, column_list, first_twice
from model_compression.data.table_targets import MULTI_LABEL, Targets, read_targets

PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
TEXTS = ("text", "sentence", "document", "content", "body", "message")
WORDS = ("tokens", "words")
_LABELS = ("label", "labels", "class", "target", "targets", "category", "tags", "ner_tags", "pos_tags")
_SPLITS = ("split", "subset", "set")
_TRAIN = ("train", "training")
_TEST = ("test", "testing", "val", "valid", "validation", "dev", "development", "eval")


@dataclass(frozen=True, eq=False)
class DividedTable:
    """Training rows and, where the table or a second file has them, test rows.

    ``input_column`` is the column of paths or texts, ``columns`` are those of labels; ``split`` that which divides the
    rows, if one does.
    """

    train: Table
    test: Table | None
    input_column: str
    columns: tuple[str, ...]
    split: str

    @property
    def tables(self) -> list[Table]:
        """The training table, and the test table if there is one."""
        return [self.train] if self.test is None else [self.train, self.test]

    def inputs(self, table: Table) -> list[str]:
        """See `inputs_of`."""
        return inputs_of(table, self.input_column)

    def say(self, kind: str, report: Callable[[str], None]) -> None:
        """Reports what was chosen; ``kind`` is what the labels are."""
        report(
            f"{self.train.path}: samples in {self.input_column!r}, labels in {column_list(self.columns)} ({kind})"
            + (f", training and test rows by {self.split!r}" if self.split else "")
        )

    def check_differ(self) -> None:
        """Raises DataError where two rows name the same sample, with both lines."""
        rows = [(table, row) for table in self.tables for row in range(len(table))]
        twice = first_twice([cell for table in self.tables for cell in self.inputs(table)])
        if twice is not None:
            (one, first), (other, second) = (rows[number] for number in twice)
            raise DataError(
                f"{one.where(first)} and {other.where(second)} are both of {self.inputs(one)[first]}; expected one row "
                f"a sample: put several labels into one cell, with {setting('label_separator', ';')}"
            )


@dataclass(frozen=True, eq=False)
class LabelledTable(DividedTable):
    """A divided table with the labels of training and test rows."""

    targets: Targets


def divide(path: str, form: str, config: TableConfig, report: Callable[[str], None]) -> DividedTable:
    """The rows of ``path``, a file of the ``form`` that a prefix says, as ``config`` divides them.

    Raises what `read_rows` raises, and UsageError for columns that are not known.
    """
    whole = read_rows(path, form, config)
    source = input_column(whole, config)
    split = _split_column(whole, config, report)
    columns = _label_columns(whole, config, source, split)
    train, test = whole, read_rows(config.test_table, form, config) if config.test_table else None
    if split:
        train, test = _parts(whole, split, report)
    return DividedTable(train, test, source, columns, split)


def labelled(found: DividedTable, config: TableConfig, task: str, report: Callable[[str], None]) -> LabelledTable:
    """``found`` with its labels, as ``config`` and ``task`` say; says what it chose. See `read_targets`."""
    targets = read_targets(found.tables, found.columns, task, config.label_separator)
    found.say(targets.kind or "one class a row", report)
    if not targets.kind and not task and (several := _several_in(targets.names)):
        report(f"{found.train.path}: {several!r} is one class; {setting('task', MULTI_LABEL)} makes several of it")
    return LabelledTable(**vars(found), targets=targets)


def _several_in(names: Sequence[str]) -> str:
    """The first name that is put together of others, as "cat;dog" beside "cat" or "dog;cow"; "" where none is."""
    parts = {name: [part.strip() for part in re.split("[;|]", name)] for name in names}
    counts = Counter(part for found in parts.values() for part in {*found})
    return next((name for name, found in parts.items() if len(found) > 1 and all(counts[p] > 1 for p in found)), "")


def inputs_of(table: Table, column: str) -> list[str]:
    """The cell of each row that is, or names, its sample. Raises DataError for an empty one."""
    cells = table.column(column)
    if "" in cells:
        raise DataError(f"{table.where(cells.index(''))}: {column!r} is empty; expected a sample")
    return cells


def input_column(table: Table, config: TableConfig) -> str:
    """The column of paths or texts. Raises UsageError where it is not known."""
    if config.input_column:
        table.column(config.input_column)
        return config.input_column
    found = [name for name in table.header if name.lower() in PATHS + TEXTS + WORDS]
    if len(found) == 1:
        return found[0]
    raise UsageError(
        f"{table.path}: {f'the columns {column_list(found)}' if found else 'no column'} could hold the samples; "
        f"name the one of paths or texts with {setting('input_column')}: {column_list(table.header)}"
    )


def _split_column(table: Table, config: TableConfig, report: Callable[[str], None]) -> str:
    if config.split_column:
        table.column(config.split_column)
        return config.split_column
    if config.test_table:
        return ""
    found = [name for name in table.header if name.lower() in _SPLITS]
    for name in found:
        known = {cell.lower() for cell in table.column(name)}
        if known & {*_TRAIN} or known <= {*_TEST}:
            return name
    for name in found:
        values = column_list(sorted({*table.column(name)}))
        report(
            f"{table.path}: {name!r} divides nothing, as it has the values {values}; {setting('split_column')} takes a "
            "column of train and test"
        )
    return ""


def _label_columns(table: Table, config: TableConfig, source: str, split: str) -> tuple[str, ...]:
    if config.label_columns:
        names = tuple(name.strip() for name in config.label_columns.split(","))
        for name in names:
            table.column(name)
        wrong = next((name for name in (source, split) if name in names), None) or (
            names[twice[0]] if (twice := first_twice(names)) else None
        )
        if wrong is not None:
            raise UsageError(
                f"{setting('label_columns')} names {wrong!r}, which is another column already; leave it out"
            )
        return names
    others = tuple(name for name in table.header if name and name not in (source, split))
    if not others:
        raise UsageError(f"{table.path} has no column but {column_list((source, split))}; expected one of labels")
    named = tuple(name for name in others if name.lower() in _LABELS)
    return named if len(named) == 1 else others


def _parts(table: Table, column: str, report: Callable[[str], None]) -> tuple[Table, Table | None]:
    """The training and the test rows by the values in ``column``."""
    cells = [cell.lower() for cell in table.column(column)]
    present = list(dict.fromkeys(cells))
    train = [name for name in present if name in _TRAIN]
    test = next((name for name in _TEST if name in present), None)
    if not train:
        raise DataError(
            f"{table.path}: {column!r} has the values {column_list(present)}; expected train, and test, val or dev"
        )
    unused = [name for name in present if name not in train and name != test]
    if unused:
        left_out = column_list([name or "empty" for name in unused])
        report(f"{table.path}: not used are the rows whose {column!r} is {left_out}")
    rows = [[row for row, cell in enumerate(cells) if cell in names] for names in (train, [test])]
    return table.subset(rows[0]), table.subset(rows[1]) if test else None
