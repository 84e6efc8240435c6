"""Text of files: their encoding is known by a mark, or is UTF-8, or is named."""

import codecs
from pathlib import Path

from model_compression.core.errors import DataError, NotThereError, UsageError
from model_compression.core.options import setting

_MARKS = (  # the longer first: that of UTF-16 begins that of UTF-32
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def read_text(path: Path, encoding: str = "", expected: str = "a text file") -> str:
    """The text of a file, without a byte order mark; every line ends with a line feed alone.

    ``encoding`` is one by Python's name, as "cp1252"; by default UTF-8, or what a byte order mark says. ``expected`` is
    what the file should be, for messages.

    Raises NotThereError; UsageError for an unknown encoding; and DataError with the line of what cannot be decoded.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotThereError(f"{path} is not there; expected {expected}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; expected {expected}") from None
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    try:
        codecs.lookup(encoding or "utf-8")
        text = content.decode(encoding or marked or "utf-8")
    except (LookupError, ValueError) as error:
        if not isinstance(error, UnicodeDecodeError):
            raise UsageError(
                f"{setting('encoding')} {encoding!r} is no encoding; expected one as utf-8 or cp1252"
            ) from None
        line = content.count(b"\n", 0, error.start) + 1
        remedy = f"name its encoding, as {setting('encoding', 'cp1252')}" if not encoding else "name another"
        wrong = content[error.start : error.start + 1].hex()
        raise DataError(
            f"{path}, line {line}: the byte 0x{wrong} is no text in {error.encoding}; {remedy}, or save the "
            "file in UTF-8"
        ) from None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            f"{path}, line {line}: a NUL character; expected text: name its encoding, as "
            f"{setting('encoding', 'utf-16')}"
        )
    return text


def check_characters(text: str, where: str) -> None:
    """Raises DataError, with the place, for a lone surrogate: no encoding can write one."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: the character {text[error.start]!a} is half of a pair, or a byte that was no text; expected "
            "whole characters: write it as one, or take it out"
        ) from None
