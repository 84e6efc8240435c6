"""Who watches a run: a person at a terminal, a log, or no one."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from model_compression.engine.contracts import Progress
from model_compression.engine.trainer import Trainer


class Observer(Protocol):
    """Who watches a run."""

    def started(self, trainer: Trainer, eval_set: str) -> None:
        """Training begins, or goes on."""

    def stepped(self, progress: Progress) -> None:
        """A step is done; called often."""

    def epoch_done(self, event: dict[str, Any]) -> None:
        """An epoch is done, and its weights are kept if they are to be."""

    def teacher_answered(self, done: int, total: int) -> None:
        """The teacher's answers are being stored."""

    def message(self, text: str) -> None:
        """A line for the user."""


class Silent:
    """Watches a run and says nothing."""

    def started(self, trainer: Trainer, eval_set: str) -> None:
        """Nothing."""

    def stepped(self, progress: Progress) -> None:
        """Nothing."""

    def epoch_done(self, event: dict[str, Any]) -> None:
        """Nothing."""

    def teacher_answered(self, done: int, total: int) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""


class Logged(Silent):
    """Watches a run and logs its lines, which Python shows on stderr unless logging is set up otherwise."""

    def message(self, text: str) -> None:
        """A warning of the logger "model_compression"."""
        logging.getLogger("model_compression").warning(text)


def counter(observer: Observer, name: str, total: int, unit: str) -> Callable[[int], None]:
    """A bar for what is no training, where ``observer`` shows bars; it is told how many of ``total`` are done."""
    show = getattr(observer, "counter", None)
    return show(name, total, unit) if show is not None else lambda done: None


@contextmanager
def left_out(what: str, report: Callable[[str], None]) -> Iterator[None]:
    """Says why ``what``, which no result depends on, could not be made: no reason to end a run."""
    try:
        yield
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        report(f"{what} is left out: {lines[0][:200]}")
