"""Logs of one JSON object an epoch, for people and reports; a run goes on from its state, whatever became of them."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from model_compression.core.files import write_atomically, writing_failed

Event = dict[str, Any]


class EventLog:
    """The log in ``path``, which is to hold the lines of the first ``count`` epochs.

    ``saved`` are these lines as the state has them, None for a state of before they were kept in it: then what is whole
    in the file stays, and ``report`` gets a line about the rest. Of several processes one is to ``write``.
    """

    def __init__(
        self,
        path: Path,
        count: int = 0,
        saved: Sequence[Event] | None = None,
        report: Callable[[str], None] = lambda message: None,
        *,
        write: bool = True,
    ):
        self.path, self._write = path, write
        self.count = count
        self.events = list(saved) if saved is not None else _first(read_events(path), count)
        if len(self.events) < count:
            report(f"{path} holds {len(self.events)} of {count} lines whole; the run goes on without the others")
        if write and (path.exists() or count):
            write_atomically(path, "".join(map(_line, self.events)).encode())

    def append(self, event: Event) -> None:
        """Adds the line of the next epoch."""
        try:
            if self._write:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(_line(event))
                    file.flush()
                    os.fsync(file.fileno())  # before the state that counts this line
        except OSError as error:
            raise writing_failed(self.path, error) from error
        self.events.append(event)
        self.count += 1


def read_events(path: Path) -> list[Event]:
    """All whole lines; those that a crash or a damage has cut or changed are left out, as is a file without any."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    events = []
    for line in lines:
        with suppress(ValueError, RecursionError):  # of JSON or UTF-8
            event = json.loads(line.decode())
            if isinstance(event, dict) and type(event.get("epoch")) is int:
                events.append(event)
    return events


def _first(events: Sequence[Event], count: int) -> list[Event]:
    """The lines of epochs 1 to ``count``, each once."""
    by_epoch = {event["epoch"]: event for event in reversed(events) if 1 <= event["epoch"] <= count}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _line(event: Event) -> str:
    return json.dumps(event) + "\n"
