"""Ctrl-C where Python ignores what is raised."""

import os
import signal
import time
import weakref

import pytest

from model_compression.engine import stop_requests
from model_compression.engine.stop_requests import ended_by_interrupt


class Thing:
    """Something that can be referred to weakly."""


def compute():
    """Something long; the signal arrives in a callback, where what is raised is ignored."""
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del thing
    assert reference() is None
    end = time.monotonic() + 30
    while time.monotonic() < end:
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_that_a_callback_swallows_arrives_nevertheless(monkeypatch):
    monkeypatch.setattr(stop_requests, "_AGAIN_S", 0.01)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), ended_by_interrupt():
        compute()
    assert signal.getsignal(signal.SIGINT) is before
