"""Logs of one JSON object a line, which a resumed run cuts back to where its state was saved."""

import json
import os
from pathlib import Path
from typing import Any

from model_compression.errors import FileFormatError
from model_compression.files import write_atomically, writing_failed


class EventLog:
    """Lines in ``path``; ``count`` of them are written."""

    def __init__(self, path: Path, count: int = 0):
        self.path = path
        self.count = count
        if path.exists() or count:
            kept = read_events(path)[:count]
            if len(kept) < count:
                raise FileFormatError(f"{path} holds {len(kept)} of the {count} lines that the saved state counts")
            write_atomically(path, "".join(_line(event) for event in kept).encode())

    def append(self, event: dict[str, Any]) -> None:
        """Adds one line."""
        try:
            with self.path.open("a") as file:
                file.write(_line(event))
                file.flush()
                os.fsync(file.fileno())  # before the state that counts this line
        except OSError as error:
            raise writing_failed(self.path, error) from error
        self.count += 1


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line that was cut by a crash is left out. Raises FileFormatError for a damaged one."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    except ValueError as error:  # of JSON or UTF-8
        raise FileFormatError(f"{path} is damaged: {error}") from None


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event) + "\n"
