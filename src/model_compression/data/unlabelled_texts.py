"""Texts of any source as a training set without labels, cut by the tokenizer of the one whose place they take."""

import json
from collections.abc import Sequence

from model_compression.core.errors import NotThereError, UsageError
from model_compression.core.files import user_path
from model_compression.core.options import setting
from model_compression.core.table_config import TableConfig
from model_compression.data.dataset import Dataset
from model_compression.data.labelled_table import input_column, inputs_of
from model_compression.data.row_files import FORMS, lists_in, read_rows
from model_compression.data.text_datasets import Part, unlabelled_texts
from model_compression.data.text_folder import read_texts

_KINDS = ("folder:PATH", "csv:FILE", "jsonl:FILE", "conll:FILE", "hf:NAME")


def load_unlabelled_texts(text: str, like: Dataset, table: TableConfig) -> tuple[Dataset, bool]:
    """(texts of ``text`` without labels, whether it has more than them), for the task and tokenizer of ``like``.

    Of a folder these are all .txt files below it, of a table its rows, of hf: those of the split "train", or which
    ``train=`` names. Where words have tags, a text is a list of words, or is divided at its blanks.

    Raises UsageError for another form; DataError, with file and line, for a text that is empty or cannot be decoded.
    """
    prefix, colon, rest = text.partition(":")
    if not rest.strip() or not text.startswith(("folder:", "hf:", *FORMS)):
        raise UsageError(f"{setting('unlabelled')} must be {', '.join(_KINDS)} for texts, got {text!r}")
    if prefix == "folder":
        part, has_labels = _folder(rest, table.encoding), False
    elif prefix == "hf":
        part, has_labels = _hub(rest)
    else:
        part, has_labels = _rows(rest, prefix + colon, table)
    return unlabelled_texts(part, like), has_labels


def _folder(path: str, encoding: str) -> Part:
    root = user_path(path)
    if not root.is_dir():
        raise NotThereError(f"{root} is no folder; expected one that holds files .txt")
    return read_texts(root, encoding)[1]


def _rows(path: str, form: str, config: TableConfig) -> tuple[Part, bool]:
    table = read_rows(path, form, config)
    column = input_column(table, config)
    cells = inputs_of(table, column)
    texts: Sequence[str] | Sequence[Sequence[str]] = cells
    if _is_list(cells[0]):
        texts = lists_in(table, column, lambda word: isinstance(word, str), "words")
    part = Part(name=table.path.stem, texts=texts, where=table.where, path=table.path, source="table")
    return part, len(table.header) > 1


def _is_list(cell: str) -> bool:
    try:
        return isinstance(json.loads(cell), list)
    except (ValueError, RecursionError):
        return False


def _hub(text: str) -> tuple[Part, bool]:
    from model_compression.data.hub_splits import training_split
    from model_compression.data.hub_texts import unlabelled_part

    return unlabelled_part(*training_split(text))
