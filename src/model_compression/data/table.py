"""Tables of text: .csv and .tsv files, read whole, each row with its line. Knows nothing of samples."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from model_compression.core.errors import DataError, UsageError
from model_compression.core.files import user_path
from model_compression.core.options import setting
from model_compression.core.registry import unknown_name
from model_compression.data.text_files import read_text

_DELIMITERS = ",;\t|"
_LARGEST_CELL = 2**27  # characters
_NAMED = 8  # columns that a message lists


@dataclass(frozen=True)
class Table:
    """The cells of a file as text, without blanks around them: ``rows`` of as many cells as ``header`` has names.

    ``lines`` are the numbers of the lines, from 1, on which the rows begin.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    noun: str = "line"
    """What a number of ``lines`` is of, for messages."""

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[str]:
        """The cells of a column. Raises UsageError, with near matches, for a name that the header has not."""
        if name not in self.header:
            raise unknown_name(f"column of {self.path.name}:", name, list(filter(None, self.header)))
        number = self.header.index(name)
        return [row[number] for row in self.rows]

    def where(self, row: int) -> str:
        """The place of a row, from 0, for messages, as "labels.csv, line 12"."""
        return f"{self.path}, {self.noun} {self.lines[row]}"

    def subset(self, rows: Sequence[int]) -> "Table":
        """The rows with these numbers, in that order."""
        return replace(self, rows=tuple(self.rows[row] for row in rows), lines=tuple(self.lines[row] for row in rows))


def read_table(path: str | Path, encoding: str = "", delimiter: str = "") -> Table:
    """The table in a file whose first row has the names of its columns. Empty lines are no rows.

    Args:
        path: a .csv or .tsv file; cells may be quoted, with line breaks inside.
        encoding: its encoding by Python's name, as "cp1252". By default UTF-8, or what a byte order mark says.
        delimiter: what stands between cells. By default a tab in .tsv, else the one of comma, semicolon, tab and bar
            that divides the header into most names.

    Raises NotThereError; UsageError for an unknown encoding; DataError, with file and line, for text that cannot be
    decoded, a row with another number of cells than the header, a damaged quotation, and a table without rows.
    """
    file = user_path(path)
    text = read_text(file, encoding, "a .csv or .tsv file")
    if not text.strip():
        raise DataError(f"{file} is empty; expected a header and a row for each sample")
    if len(delimiter) > 1 and delimiter != "\\t":
        raise UsageError(f"{setting('delimiter')} must be one character, as ';', got {delimiter!r}")
    rows = _rows(file, text, "\t" if delimiter == "\\t" else delimiter or _delimiter(file, text))
    _, header = next(rows, (0, ()))
    _check_header(file, header)
    found = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(
                f"{file}, line {line}: the row has {len(cells)} cells, the header {len(header)}; expected as many: "
                "quote cells that hold the delimiter"
            )
        if cells == header:
            raise DataError(
                f"{file}, line {line}: the header again; expected a sample: take the line out, as where files were "
                "joined"
            )
        found.append((line, cells))
    if not found:
        raise DataError(f"{file} has a header and no rows; expected at least one sample")
    return Table(file, header, tuple(cells for _, cells in found), tuple(line for line, _ in found))


def first_twice(values: Sequence[str]) -> tuple[int, int] | None:
    """The numbers of the first two rows of equal ``values``; None where all differ."""
    seen: dict[str, int] = {}
    for row, value in enumerate(values):
        if value in seen:
            return seen[value], row
        seen[value] = row
    return None


def column_list(names: Sequence[str]) -> str:
    """The names of columns, for messages; of many the first."""
    shown = ", ".join(filter(None, names[:_NAMED]))
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _delimiter(path: Path, text: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    first = next(line for line in io.StringIO(text) if line.strip())
    return max(_DELIMITERS, key=lambda one: len(next(csv.reader([first], delimiter=one), ())))  # of equals the first


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, cells) of each row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    with _large_cells():
        try:
            for cells in reader:
                if cells:
                    yield line, tuple(cell.strip() for cell in cells)
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}, line {line}: {error}; expected cells with {delimiter!r} between them, and a quotation mark "
                'within quotes written twice, as ""'
            ) from None


@contextmanager
def _large_cells() -> Iterator[None]:
    """The csv module's own limit of 131,072 characters is one for the process."""
    before = csv.field_size_limit(_LARGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_header(path: Path, header: tuple[str, ...]) -> None:
    twice = first_twice([name or f"\0{number}" for number, name in enumerate(header)])
    if twice is not None:
        raise DataError(f"{path}: two columns are called {header[twice[0]]!r}; expected names that differ")
