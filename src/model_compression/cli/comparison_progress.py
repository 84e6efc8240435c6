"""Shows a comparison of methods on stderr: a line for each finished run, and a live one for the current run."""

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
        self._task: TaskID | None = None
        self._begun = self._first_time = 0.0
        self._first_share: float | None = None

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
        self.end()
        self._task = self._progress.add_task(name, total=None, note="starting")
        self._begun, self._first_share = time.monotonic(), None

    def watch(self, message: dict[str, Any]) -> None:
        """Shows the progress that the process of a run reports."""
        if self._task is None or not message.get("total"):
            return
        now, share = time.monotonic(), message["done"] / message["total"]
        if self._first_share is None or share < self._first_share:  # a resumed run does not begin at zero
            self._first_time, self._first_share = now, share
        left = None
        if share > self._first_share:
            left = (now - self._first_time) / (share - self._first_share) * (1 - share)
        parts = [message["note"], "" if left is None else f"{_clock(left)} left", self._left(left)]
        note = ", ".join(part for part in parts if part)
        self._progress.update(self._task, completed=message["done"], total=message["total"], note=note)

    def end(self) -> None:
        """Removes the live line."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def finish(self, text: str) -> None:
        """Prints ``text`` on a run that finished or failed."""
        if self._task is not None:
            self._seconds.append(time.monotonic() - self._begun)
        self.end()
        self._done += 1
        width = len(str(self._total))
        self.message(f"[{self._done:>{width}}/{self._total}] {text}")

    def _left(self, of_this_run: float | None) -> str:
        """The time for all runs, as "1:02:10 in all": the rest of this one, and for each other the mean so far."""
        if not self._seconds or of_this_run is None:
            return ""
        others = self._total - self._done - 1
        return f"{_clock(of_this_run + others * sum(self._seconds) / len(self._seconds))} in all"


def _clock(seconds: float) -> str:
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:")
