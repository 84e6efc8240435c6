"""Signals that ask a run to stop, noted for the end of the step."""

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_AGAIN_S = 0.5


class _Collector:
    """A handler of signals that notes them."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received:
            raise KeyboardInterrupt
        self.received.append(number)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; a second SIGINT ends at once.

    What was collected inside of another such block is told to that one as well, at the end.
    """
    remember = _Collector()
    received = remember.received
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # a handler that was not set from Python cannot be put back
                signal.signal(number, handler)
        for outer in {handler for handler in before.values() if isinstance(handler, _Collector)}:
            outer.received += received


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Ctrl-C inside raises KeyboardInterrupt again and again until it arrives.

    Python ignores what is raised in a destructor or in the callback of a weak reference, and torch has many of them.
    """
    timers: list[threading.Timer] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        timers.append(threading.Timer(_AGAIN_S, _thread.interrupt_main))
        timers[-1].daemon = True
        timers[-1].start()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        with suppress(TypeError):  # a handler that was not set from Python cannot be put back
            signal.signal(signal.SIGINT, before)
        for timer in timers:
            timer.cancel()
