"""Numbers, names and tables as text for people, in a terminal, in Markdown and on a page."""

import math
import re
import shlex
from collections.abc import Sequence

from model_compression.core.console import harmless

NO_BREAK = "\u00a0"
"""Stands between a number and its unit on a page, where no line breaks."""
_MARKUP = re.compile(r"([\\`*\[\]<>|#&~@]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.)")  # of links without brackets too


def count(number: int, what: str) -> str:
    """As "1 epoch" or "1,000 epochs"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def short_count(number: int) -> str:
    """Four digits and a unit: 27530240 as "27.53 M"."""
    for unit, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= factor:
            value = number / factor
            return f"{value:.{max(0, 3 - int(math.log10(value)))}f} {unit}"
    return str(number)


def duration(seconds: float) -> str:
    """As "7 min 49 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def size(number: float) -> str:
    """Bytes as "13.8 MB", in powers of ten."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.0f} bytes"


def percent(share: float, digits: int = 2) -> str:
    """A share of 0 to 1 as "75.87 %", with a space that does not break."""
    return f"{100 * share:.{digits}f}{NO_BREAK}%"


def percent_interval(interval: tuple[float, float]) -> str:
    """Two shares as "75.0 to 76.7 %"."""
    return f"{100 * interval[0]:.1f} to {percent(interval[1], 1)}"


def shell_word(text: str) -> str:
    """``text`` as one word of a shell's command line, and on one line whatever is in it."""
    return shlex.quote(text) if text.isprintable() else "$" + repr(text + '"')[:-2] + "'"


def escape_markdown(text: str) -> str:
    """``text`` on one line, with nothing in it that Markdown, HTML or a terminal obeys."""
    return _MARKUP.sub(r"\\\1", harmless(" ".join(text.split())))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table in Markdown without a line break at its end; cells stand as they are.

    Args:
        head: the titles of the columns.
        rows: cells; missing ones at the end of a row stay empty.
        left: how many columns are justified to the left; the others, of numbers, to the right.
    """
    rule = "".join("---|" if column < left else "---:|" for column in range(len(head)))
    padded = [[*row, *[""] * (len(head) - len(row))] for row in rows]
    first, *others = (f"| {' | '.join(cells)} |" for cells in [head, *padded])
    return "\n".join([first, f"|{rule}", *others])
