"""Tables of text: cells, lines, encodings, delimiters, and what is wrong with a row."""

import csv

import pytest

from model_compression.core.errors import DataError, NotThereError, UsageError
from model_compression.data.table import first_twice, read_table


def write(tmp_path, text, name="t.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def test_table_has_the_cells_of_the_csv_module_and_their_lines(tmp_path):
    """The csv module writes what is read here: quotes, delimiters and line breaks within cells."""
    rows = [["path", "text"], ["a.png", 'he said "no", twice'], ["b.png", "two\nlines"], ["c.png", " blanks "]]
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    table = read_table(path)
    assert [list(row) for row in table.rows] == [[cell.strip() for cell in row] for row in rows[1:]]
    assert table.lines == (2, 3, 5)
    assert table.column("text")[1] == "two\nlines"
    assert table.where(2) == f"{path}, line 5"
    assert table.subset([2, 0]).lines == (5, 2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encoding_is_told_by_its_mark(tmp_path, encoding):
    assert read_table(write(tmp_path, "path,né\na,ü\n", encoding=encoding)).header == ("path", "né")


def test_encoding_that_is_named_is_used(tmp_path):
    path = write(tmp_path, "path,label\na,Zürich\n", encoding="cp1252")
    assert read_table(path, "cp1252").rows == (("a", "Zürich"),)
    with pytest.raises(DataError, match=r"line 2: the byte 0xfc is no text in utf-8; name its encoding, as encoding="):
        read_table(path)
    with pytest.raises(UsageError, match="encoding 'cp9' is no encoding"):
        read_table(path, "cp9")
    with pytest.raises(UsageError, match="encoding 'base64' is no encoding"):
        read_table(path, "base64")


@pytest.mark.parametrize(
    ("name", "sign"), [("t.csv", ","), ("t.csv", ";"), ("t.csv", "\t"), ("t.csv", "|"), ("t.tsv", "\t")]
)
def test_delimiter_is_found_in_the_header(tmp_path, name, sign):
    path = write(tmp_path, f'"path, of a file"{sign}label\na{sign}b\n', name)
    assert read_table(path).header == ("path, of a file", "label")


def test_delimiter_that_is_given_is_used(tmp_path):
    assert read_table(write(tmp_path, "a;b,c\n1;2,3\n"), delimiter=";").rows == (("1", "2,3"),)
    with pytest.raises(UsageError, match="delimiter must be one character"):
        read_table(write(tmp_path, "a,b\n1,2\n"), delimiter=", ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n\n3\n", "line 4: the row has 1 cells, the header 2"),
        ("a,b\n1,2,3\n", "line 2: the row has 3 cells, the header 2"),
        ('a,b\n1,2\n3,"4\n5,6\n', "line 3: unexpected end of data"),
        ('a,b\n1,"2"x\n', "line 2: ',' expected after '\"'"),
        ("a,b\n1,\0\n", "line 2: a NUL character"),
        ("a,a\n1,2\n", "two columns are called 'a'"),
        ("a,b\n", "has a header and no rows"),
        (" \n", "is empty"),
    ],
)
def test_damaged_table_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path, text))


def test_missing_table_and_column_are_named(tmp_path):
    with pytest.raises(NotThereError, match=r"is not there; expected a \.csv"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(UsageError, match=r"unknown column of t.csv: 'lable'; did you mean 'label'"):
        read_table(write(tmp_path, "path,label\na,b\n")).column("lable")


def test_cell_longer_than_the_limit_of_the_csv_module_is_read(tmp_path):
    before = csv.field_size_limit()
    assert len(read_table(write(tmp_path, f"a,b\n1,{'x' * 200_000}\n")).rows[0][1]) == 200_000
    assert csv.field_size_limit() == before


def test_first_twice_names_both_rows():
    assert first_twice(["a", "b", "c", "b", "a"]) == (1, 3)
    assert first_twice(["a", "b"]) is None
