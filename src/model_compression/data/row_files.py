"""Rows of samples in files of several forms, as tables: .csv and .tsv, .jsonl, and words with tags in two columns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model_compression.core.errors import DataError
from model_compression.core.files import user_path
from model_compression.core.json_objects import each_key_once
from model_compression.core.table_config import TableConfig
from model_compression.data.table import Table, read_table
from model_compression.data.text_files import read_text

CSV, JSONL, CONLL = "csv:", "jsonl:", "conll:"
FORMS = (CSV, JSONL, CONLL)
WORDS, TAGS = "tokens", "tags"
"""The columns of a table of texts whose words have tags; each cell is a list in JSON."""
_START = "-DOCSTART-"


def read_rows(path: str, form: str, config: TableConfig) -> Table:
    """The rows of a file, of the ``form`` that a prefix of `FORMS` says, as a table.

    Raises what `read_table` raises, and DataError with file and line for what is no such row.
    """
    if form == CSV:
        return read_table(path, config.encoding, config.delimiter)
    file = user_path(path)
    text = read_text(file, config.encoding, "a file of rows")
    return _read_jsonl(file, text) if form == JSONL else _read_conll(file, text)


def _read_jsonl(file: Path, text: str) -> Table:
    """A JSON object a line, all with the same keys. Texts stay as they are, other values are JSON."""
    header: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = []
    lines = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content, parse_constant=_no_number, object_pairs_hook=each_key_once)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {line}: this is no JSON: {error}; expected an object a line") from None
        if not isinstance(row, dict) or not row:
            raise DataError(f"{file}, line {line}: expected an object with keys, got {content.strip()[:60]}")
        header = header or tuple(row)
        if set(row) != set(header):
            other = sorted(set(row) ^ set(header))[0]
            has = "has no key" if other in header else "has the key"
            raise DataError(f"{file}, line {line}: the row {has} {other!r}; expected those of the first row in each")
        rows.append(tuple(_cell(row[key]) for key in header))
        lines.append(line)
    if not rows:
        raise DataError(f"{file} is empty; expected a JSON object a line")
    return Table(file, header, tuple(rows), tuple(lines))


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _read_conll(file: Path, text: str) -> Table:
    """A word and its tag a line, in the first and the last column; an empty line ends a text.

    Columns are divided by tabs where a line has one, else by blanks, and all lines have as many. A line that begins
    with # and is divided otherwise is a comment.
    """
    content = [(number, line, _columns(line)) for number, line in enumerate(text.split("\n"), start=1)]
    words = ((one, cells) for _, one, cells in content if cells and not one.startswith("#"))
    tabs, count = next((("\t" in one, len(cells)) for one, cells in words), (False, 0))
    texts: list[list[tuple[int, list[str]]]] = [[]]
    for line, whole, cells in content:
        if not cells or cells[0] == _START:
            texts.append([])
            continue
        if cells[0].startswith("#") and ("\t" in whole, len(cells)) != (tabs, count):
            continue
        if len(cells) < 2:
            raise DataError(f"{file}, line {line}: the word {cells[0][:60]!r} has no tag; expected WORD TAG")
        if len(cells) != count:
            raise DataError(
                f"{file}, line {line}: {len(cells)} columns, and the lines before have {count}; expected as many: put "
                "tabs between columns where words have blanks"
            )
        texts[-1].append((line, cells))
    texts = [rows for rows in texts if rows]
    if not texts:
        raise DataError(f"{file} is empty; expected a word and its tag a line")
    if all(cells[0] == str(number) for rows in texts for number, (_, cells) in enumerate(rows, start=1)):
        raise DataError(
            f"{file}, line {texts[0][0][0]}: the first column numbers the words; expected the word first and its tag "
            "last: cut the other columns off"
        )
    columns = (0, -1)
    rows = (tuple(json.dumps([cells[n] for _, cells in rows], ensure_ascii=False) for n in columns) for rows in texts)
    return Table(file, (WORDS, TAGS), tuple(rows), tuple(rows[0][0] for rows in texts))


def _columns(line: str) -> list[str]:
    """The cells of a line, none of an empty one. A blank that does not break, as in 10\u00a0000, divides nothing."""
    if not line.strip():
        return []
    cells = line.split("\t") if "\t" in line else filter(None, line.strip().split(" "))
    return [cell.strip() for cell in cells]


def lists_in(table: Table, column: str, known: Callable[[Any], bool], kind: str) -> list[list[Any]]:
    """The lists that the cells of a column are. Raises DataError, with the line, for another value or an empty list."""
    found = []
    for row, cell in enumerate(table.column(column)):
        try:
            value = json.loads(cell)
        except ValueError:
            value = None
        if not isinstance(value, list) or not value or not all(map(known, value)):
            raise DataError(f"{table.where(row)}: {column!r} is {cell[:60]!r}; expected a list of {kind}, not empty")
        found.append(value)
    return found
