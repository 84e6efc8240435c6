"""All that is printed passes through here: no character stops it, and no text from a file gives a terminal orders.

`safe_streams` wraps stdout and stderr for a command; `console` is rich's, over them.
"""

import codecs
import contextlib
import errno
import io
import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TextIO, cast

from model_compression.core.options import setting

if TYPE_CHECKING:
    from rich.console import Console

# Control characters but tab and line feed, overrides of the direction of text, other line breaks, halves of characters
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CURSOR_UP = re.compile(r"(\x1b\[A)+")
_PLAIN = {"→": "->", "×": "x", "±": "+-", "…": "...", "–": "-", "—": "-", "−": "-", "·": "-", "≥": ">=", "≤": "<="}
_PLAIN["─"] = "-"  # of a table's rule

_KEEP = "\u200b"  # of no width: spaces before it are not stripped
_WIDTH, _GAP, _NARROW = 80, 2, 12  # of a table, between its columns, and of a column of text at least
_LONGEST_ERROR = 1500  # characters


def harmless(text: str) -> str:
    """``text`` with what a terminal would obey as escapes, as ``\\x1b``; lines and tabs stay."""
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: object) -> str:
    r"""The text of something as one `harmless` line: a line break in it is shown as ``\n``."""
    return harmless(str(text).replace("\n", "\\n").replace("\t", "\\t"))


def error_line(text: object) -> str:
    """The text of an error as one line; of a monstrous one beginning and end, which say what failed and what to do."""
    line = one_line(text)
    return line if len(line) <= _LONGEST_ERROR else f"{line[: _LONGEST_ERROR // 2]} … {line[-_LONGEST_ERROR // 3 :]}"


def unforeseen(error: Exception) -> str:
    """What is printed of an exception that no code expects: where it was raised, and how to see more."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"internal error: {type(error).__name__}: {error} ({place.filename}, line {place.lineno}); unless that file is "
        f"your own, this is a bug: please report it; {setting('debug')} shows the traceback"
    )


def json_text(values: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: NaN and infinities, for which it has no numbers, are null."""
    return json.dumps(_finite(values), indent=indent, allow_nan=False)


def _finite(values: Any) -> Any:
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {key: _finite(value) for key, value in values.items()}
    return [_finite(value) for value in values] if isinstance(values, list | tuple) else values


def _plainly(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    missing = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or one.encode("unicode_escape").decode() for one in missing), error.end


codecs.register_error("model_compression.plainly", _plainly)


class SafeStream:
    """Writes to ``stream`` what its encoding has, and `harmless`; other characters as the nearest plain ones.

    ``lasting``: from its first failure on (a pipe that ended, a terminal that is gone) to nowhere, as what a run says
    of its progress is never worth the run.
    """

    def __init__(self, stream: TextIO, lasting: bool = False, clean: Callable[[str], str] = harmless):
        self.stream, self.lasting, self._clean = stream, lasting, clean

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Writes ``text``; a lasting stream may lose it."""
        cleaned = text if text.isascii() and text.isprintable() else self._clean(text)
        if not cleaned.isascii():
            encoding = self.stream.encoding or "utf-8"
            cleaned = cleaned.encode(encoding, "model_compression.plainly").decode(encoding)
        self._try(lambda: self.stream.write(cleaned))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes, if there is still a reader."""
        self._try(self.stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError:
            if not self.lasting:
                raise
            with contextlib.suppress(OSError):
                to_nowhere(self.stream)


def to_nowhere(stream: TextIO) -> None:
    """What is in the stream's buffer goes to the null device when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _of_stderr(text: str) -> str:
    """`harmless`, but for what bars of other libraries (tqdm) are drawn with: a carriage return first, cursor up."""
    if _CURSOR_UP.fullmatch(text):
        return text
    return "\r" + harmless(text[1:]) if text.startswith("\r") else harmless(text)


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """sys.stdout and sys.stderr are `SafeStream` inside, the latter lasting; also where there was no stderr at all."""
    if sys.stderr is None:
        # Takes descriptor 2, which is free: a data file that got it would be written to by what complains there.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (stays open to the end, as stderr does)
    out = None if sys.stdout is None else cast(TextIO, SafeStream(sys.stdout))
    error = cast(TextIO, SafeStream(sys.stderr, lasting=True, clean=_of_stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            try:
                yield
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()  # here, where what goes wrong can be answered; not when the interpreter ends
        except BrokenPipeError:  # whoever reads, as `head`, has seen enough
            to_nowhere(sys.stdout)
            raise SystemExit(1) from None
        except OSError as failed:
            if failed.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise
            print(f"error: cannot write to stdout: {failed.strerror}", file=sys.stderr)
            to_nowhere(sys.stdout)
            raise SystemExit(1) from None
        except Exception:
            sys.excepthook = _print_safely
            raise


def _print_safely(*exception: Any) -> None:
    """Prints a traceback, which may hold text from a file, when the streams are no longer safe ones."""
    with safe_streams():
        traceback.print_exception(*exception)


def console(stderr: bool = False) -> "Console":
    """Rich's console on stdout or stderr, in which text is taken as it is: no markup, no emoji, nothing coloured in.

    What is printed is made `harmless` piece by piece, so that Rich's own colours and movements stay.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=harmless(segment.text))

    stream = sys.stderr if stderr else sys.stdout
    inner = stream.stream if isinstance(stream, SafeStream) else stream
    file = None if inner is None else cast(TextIO, SafeStream(inner, lasting=stderr, clean=str))
    return SafeConsole(file=file, stderr=stderr, force_jupyter=False, highlight=False, markup=False, emoji=False)


def _cell_width(cell: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, cell.split("\n")))


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = (), left: int = 1) -> str:
    """A table as text, the same in a terminal, a pipe and a file: 80 columns wide at most, unless numbers need more.

    Args:
        rows: cells, of one line or several, taken as they are: no markup, no colours. Spaces behind a number align it.
        head: the titles of the columns, with a rule below them; without titles there is no rule.
        left: how many columns hold text, which is justified to the left and wrapped where space is short. The others
            hold numbers, which are justified to the right and neither wrapped nor cut.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    cells = [[f"{harmless(cell)}{_KEEP}" for cell in row] for row in ([head, *rows] if head else rows)]
    longest = [max(map(_cell_width, column)) for column in zip_longest(*cells, fillvalue="")]
    least = [min(width, _NARROW) if column < left else width for column, width in enumerate(longest)]
    box, gap = (SIMPLE_HEAD, _GAP - 1) if head else (None, _GAP)  # a box has a space of its own between columns
    grid = Table(box=box, show_header=bool(head), show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
    for column in range(len(least)):
        title, is_text = cells[0][column] if head else "", column < left
        grid.add_column(title, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for row in cells[bool(head) :]:
        grid.add_row(*row)
    width = max(_WIDTH, sum(least) + _GAP * (len(least) - 1))
    page = Console(file=io.StringIO(), width=width, color_system=None, markup=False, emoji=False, highlight=False)
    with page.capture() as capture:
        page.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().replace(_KEEP, "").rstrip("\n").split("\n"))
