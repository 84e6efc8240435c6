"""A stderr that outlives its reader: what a run says of its progress is never worth the run."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class LastingStream(io.TextIOBase):
    """Writes to ``stream``; from its first failure on (a pipe that ended, a terminal that is gone) to nowhere."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes ``text``, or loses it."""
        self._lasting(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flushes, if there is still a reader."""
        self._lasting(self._stream.flush)

    def isatty(self) -> bool:
        """As the stream."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """As the stream."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As the stream."""
        return self._stream.encoding

    def _lasting(self, action: Any) -> None:
        try:
            action()
        except OSError:
            with contextlib.suppress(OSError):  # what is in the stream's buffer goes there when the interpreter ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextlib.contextmanager
def lasting_stderr() -> Iterator[None]:
    """sys.stderr is one that never fails, inside; also where there was none at all, as after ``2>&-``."""
    if sys.stderr is None:
        # Takes descriptor 2, which is free: a data file that got it would be written to by what complains there.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (stays open to the end, as stderr does)
    with contextlib.redirect_stderr(LastingStream(sys.stderr)):
        yield
