"""Ctrl-C where Python ignores what is raised."""

import os
import signal
import subprocess
import sys
import time
import weakref

import pytest

from model_compression.engine import stop_requests
from model_compression.engine.stop_requests import ended_by_signals


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
    with pytest.raises(KeyboardInterrupt), ended_by_signals():
        compute()
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_of_a_command_in_the_background_are_heard_and_a_hangup_under_nohup_is_not():
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from model_compression.engine.stop_requests import stop_requests\n"
        "with stop_requests() as received:\n"
        "    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):\n"
        "        os.kill(os.getpid(), number)\n"
        "print(*map(int, received))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(int(number)) for number in (signal.SIGINT, signal.SIGTERM)]
