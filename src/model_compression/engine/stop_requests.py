"""Signals that ask a command to stop: noted for the end of a step in a training, an exception anywhere else."""

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from model_compression.core.processes import world_size

_AGAIN_S = 0.5
_ALWAYS = (signal.SIGINT, signal.SIGTERM)
_ASKING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(KeyboardInterrupt):
    """A signal came outside of a training."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def words_and_code(stop: KeyboardInterrupt) -> tuple[str, int]:
    """How a message about ``stop`` begins, and the exit code."""
    number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
    words = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    return words, 128 + number


class _Collector:
    """A handler of signals that notes them."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # A terminal sends Ctrl-C to all processes, and their launcher once more.
        if number == signal.SIGINT and self.received and world_size() == 1:
            raise KeyboardInterrupt
        self.received.append(number)


class _Ender:
    """A handler that raises `Stopped`, again and again until it arrives.

    Python ignores what is raised in a destructor or in the callback of a weak reference, and torch has many of them.
    """

    def __init__(self) -> None:
        self.before: Mapping[int, Any] = {}
        self._timers: list[threading.Timer] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _is_being_imported("torch") and callable(self.before.get(number)):
            self.before[number](number, frame)  # an exception within torch's C++ would abort the process
        self._timers.append(threading.Timer(_AGAIN_S, _thread.interrupt_main, [number]))
        self._timers[-1].daemon = True
        self._timers[-1].start()
        raise Stopped(number)

    def end(self) -> None:
        for timer in self._timers:
            timer.cancel()


def _is_being_imported(name: str) -> bool:
    module = sys.modules.get(name)
    return module is not None and getattr(module.__spec__, "_initializing", False)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collects SIGINT, SIGTERM and SIGHUP instead of dying of them; a second SIGINT ends at once.

    What was collected inside of another such block is told to that one as well, at the end.
    """
    remember = _Collector()
    with _handled_by(remember) as before:
        yield remember.received
    for outer in {handler for handler in before.values() if isinstance(handler, _Collector)}:
        outer.received += remember.received


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP inside raise `Stopped` where they come, but in a training, which saves its state."""
    ender = _Ender()
    with _handled_by(ender) as ender.before:
        try:
            yield
        finally:
            ender.end()


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[Mapping[int, Any]]:
    """Inside, ``handler`` has the signals, but SIGHUP where nohup has it ignored; yields the handlers of before.

    A shell that starts a command in the background has SIGINT ignored: who sends it nevertheless means it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield {}  # only the main thread may set handlers
        return
    before = {number: signal.getsignal(number) for number in _ASKING}
    before = {number: old for number, old in before.items() if old != signal.SIG_IGN or number in _ALWAYS}
    for number in before:
        signal.signal(number, handler)
    try:
        yield before
    finally:
        for number, old in before.items():
            with suppress(TypeError):  # a handler that was not set from Python cannot be put back
                signal.signal(number, old)
