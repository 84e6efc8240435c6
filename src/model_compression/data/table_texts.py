"""Texts that a table holds, with labels, or with a tag for each word."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from model_compression.core.errors import UsageError
from model_compression.core.options import setting
from model_compression.core.table_config import TableConfig
from model_compression.data.dataset import Dataset
from model_compression.data.hold_out import hold_out_test
from model_compression.data.image_files import is_image
from model_compression.data.labelled_table import PATHS, WORDS, DividedTable, labelled
from model_compression.data.row_files import lists_in
from model_compression.data.table import Table
from model_compression.data.target_scale import scaled
from model_compression.data.text_datasets import CLASSES, TAGS, Part, tagged_datasets, text_dataset
from model_compression.data.tokenizers import TokenizerChoice

Report = Callable[[str], None]


def holds_texts(found: DividedTable, task: str) -> bool:
    """Whether the rows hold texts, and no paths of images, by ``task``, the column's name or the first cell."""
    if task in (CLASSES, TAGS):
        return True
    name = found.input_column.lower()
    return name not in PATHS and not is_image(found.inputs(found.train)[0])


def holds_tags(found: DividedTable, task: str) -> bool:
    """Whether the rows hold words with a tag each, by ``task`` or the column's name."""
    return task == TAGS or (not task and found.input_column.lower() in WORDS)


def load_table_texts(
    found: DividedTable, choice: TokenizerChoice, config: TableConfig, task: str, report: Report
) -> tuple[Dataset, Dataset]:
    """(training set, test set) of the texts in the rows ``found``, cut by the tokenizer of ``choice``.

    Without test rows a fifth is held out. Raises UsageError without a tokenizer, and DataError with file and line for
    an empty text and labels that cannot be.
    """
    path = str(found.train.path)
    tokenizer = choice.load(path)
    parts = [_part(found, table) for table in found.tables]
    if holds_tags(found, task):
        found.say("a tag a word", report)
        words = [lists_in(table, found.input_column, _is_text, "words") for table in found.tables]
        parts = [replace(part, texts=texts) for part, texts in zip(parts, words, strict=True)]
        made = tagged_datasets(parts, tokenizer, [_tags(found, table) for table in found.tables])
    else:
        targets = labelled(found, config, task, report).targets
        kind = targets.kind or CLASSES
        if task and kind != task:
            raise UsageError(f"{path}: the labels are of {kind}; got {setting('task', task)}")
        made = [
            text_dataset(part, tokenizer, values, targets.names, kind)
            for part, values in zip(parts, targets.values, strict=True)
        ]
    train, test = made if len(made) == 2 else hold_out_test(made[0], f"{path} has no test rows", report)
    return scaled(train, test, config)


def _part(found: DividedTable, table: Table) -> Part:
    is_test = table is not found.train
    return Part(
        name=found.train.path.stem + "-test" * is_test,
        texts=found.inputs(table),
        where=table.where,
        path=table.path,
        source="table",
    )


def _tags(found: DividedTable, table: Table) -> list[list[str]]:
    """The tags of each row's words; numbers are names of their own."""
    if len(found.columns) != 1:
        raise UsageError(
            f"{table.path} has the label columns {', '.join(found.columns)}; expected one with a list of tags: name it "
            f"with {setting('label_columns')}"
        )
    lists = lists_in(table, found.columns[0], lambda tag: _is_text(tag) or type(tag) is int, "tags")
    return [[str(tag) for tag in tags] for tags in lists]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
