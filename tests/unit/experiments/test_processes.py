"""A run in a process of its own: what it says reaches the parent, and however it ends, the parent knows why."""

import signal
import subprocess
import sys

import pytest

from model_compression.core.errors import Interrupted, UsageError
from model_compression.experiments import processes as isolated_runs
from model_compression.experiments.processes import MachineError, RunError, run_isolated

SAY = "import json, sys\nsay = lambda **values: print(json.dumps(values), flush=True)\ntask = json.load(sys.stdin)\n"


@pytest.fixture
def worker(monkeypatch):
    """Function of a script that runs in the worker's place; returns run_isolated's result and what was watched."""
    started = subprocess.Popen

    def run(script, stopped=(), task=None, watch=None):
        watched = []
        monkeypatch.setattr(
            isolated_runs.subprocess, "Popen", lambda command, **kw: started([sys.executable, "-c", SAY + script], **kw)
        )
        result = run_isolated(task or {}, lambda message: (watched.append(message), watch and watch(message)), stopped)
        return result, [message for message in watched if message]

    return run


def test_result_and_progress_come_through(worker):
    result, watched = worker("say(done=1, total=2)\nsay(result={'twice': 2 * task['number']})", task={"number": 21})
    assert (result, watched) == ({"twice": 42}, [{"done": 1, "total": 2}])


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("say(error='kdd?', usage=True)", UsageError, "^kdd[?]$"),
        ("say(error='diverged', usage=False); sys.exit(1)", RunError, "^diverged$"),
        ("say(error='disk full', usage=False, is_of_machine=True); sys.exit(1)", MachineError, "^disk full$"),
        ("say(error='no such file', usage=True, is_of_machine=True)", UsageError, "^no such file$"),
        ("print('something', file=sys.stderr); sys.exit('last line')", RunError, "exit code 1: last line"),
        ("sys.exit(3)", RunError, "exit code 3: it said nothing"),
        ("import os; os.kill(os.getpid(), 9)", RunError, "was killed .signal 9., as a system does that is out of mem"),
        ("import os; os.kill(os.getpid(), 11)", RunError, "died of signal 11 .Segmentation fault."),
    ],
)
def test_end_without_a_result_has_its_reason(worker, script, kind, message):
    with pytest.raises(kind, match=message):
        worker(script)


def test_signal_asks_the_process_to_save_and_is_said(worker):
    script = (
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: (say(message='saved'), sys.exit(143)))\n"
        "say(done=1, total=9)\nsignal.pause()"
    )
    stopped, seen = [], []

    def watch(message):
        seen.append(message)
        if message.get("done"):
            stopped.append(signal.SIGINT)

    with pytest.raises(Interrupted) as interrupted:
        worker(script, stopped, watch=watch)
    assert interrupted.value.exit_code == 130
    assert {"message": "saved"} in seen


def test_result_that_comes_in_spite_of_a_signal_is_taken(worker):
    stopped = []
    script = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay(done=1)\nsay(result={'good': 1})"
    assert worker(script, stopped, watch=lambda message: message and stopped.append(15))[0] == {"good": 1}


def test_the_process_does_not_outlive_a_second_interrupt(worker):
    started = []

    def watch(message):
        if message.get("pid"):
            started.append(message["pid"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker("import os, time\nsay(pid=os.getpid())\ntime.sleep(60)", watch=watch)
    with pytest.raises(ProcessLookupError):
        isolated_runs.os.kill(started[0], 0)
