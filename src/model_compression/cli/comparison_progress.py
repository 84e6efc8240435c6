"""Shows a comparison of methods on stderr: a line for each finished run, and a live one for each that is made."""

import time
from datetime import timedelta
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from model_compression.core.console import console


class ComparisonProgress:
    """Lines on stderr; on a terminal, the live one shows the time that is left for this run and for all runs."""

    def __init__(self) -> None:
        self.console = console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            refresh_per_second=4,
            transient=True,
        )
        self._total = self._done = 0
        self._seconds: list[float] = []  # of the runs of this call
        self._lines: dict[str, _Line] = {}

    def __enter__(self) -> "ComparisonProgress":
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:
            self._progress.stop()

    def expect(self, total: int, done: int) -> None:
        """The comparison has ``total`` runs, of which ``done`` are recorded already."""
        self._total, self._done = total, done

    def message(self, text: str) -> None:
        """A line of its own."""
        self.console.print(text, soft_wrap=True)

    def begin(self, name: str) -> None:
        """Starts the live line of a run."""
        self.end(name)
        self._lines[name] = _Line(self._progress.add_task(name, total=None, note="starting"))

    def watch(self, name: str, message: dict[str, Any]) -> None:
        """Shows the progress that the process of a run reports."""
        line = self._lines.get(name)
        if line is None or not message.get("total"):
            return
        left = line.left(message["done"] / message["total"])
        parts = [message["note"], "" if left is None else f"{_clock(left)} left", self._left(left)]
        note = ", ".join(part for part in parts if part)
        self._progress.update(line.task, completed=message["done"], total=message["total"], note=note)

    def end(self, name: str) -> None:
        """Removes the live line of a run."""
        if name in self._lines:
            self._progress.remove_task(self._lines.pop(name).task)

    def finish(self, name: str, text: str) -> None:
        """Prints ``text`` on a run that finished or failed."""
        if name in self._lines:
            self._seconds.append(time.monotonic() - self._lines[name].begun)
        self.end(name)
        self._done += 1
        width = len(str(self._total))
        self.message(f"[{self._done:>{width}}/{self._total}] {name}: {text}")

    def _left(self, of_this_run: float | None) -> str:
        """The time for all runs, as "1:02:10 in all": the rest of this one, and for each other the mean so far."""
        if not self._seconds or of_this_run is None:
            return ""
        at_once = len(self._lines)
        others = max(0, self._total - self._done - at_once)
        return f"{_clock(of_this_run + others / at_once * sum(self._seconds) / len(self._seconds))} in all"


class _Line:
    """The live line of a run, which knows how long the run will take."""

    def __init__(self, task: TaskID):
        self.task, self.begun = task, time.monotonic()
        self._first_time, self._first_share = self.begun, 2.0

    def left(self, share: float) -> float | None:
        """The seconds that are left, now that ``share`` of the run is done; None while nobody knows."""
        now = time.monotonic()
        if share < self._first_share:  # a resumed run does not begin at zero
            self._first_time, self._first_share = now, share
        if share == self._first_share:
            return None
        return (now - self._first_time) / (share - self._first_share) * (1 - share)


def _clock(seconds: float) -> str:
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:")
