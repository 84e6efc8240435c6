"""Independent runs given to an executor: neither the number made at a time nor a killed process changes a result."""

import os
import signal
import threading
import time

import pytest

from model_compression.core.errors import Interrupted, UsageError
from model_compression.experiments import executor
from model_compression.experiments.executor import Executor, Run, environment, execute
from model_compression.experiments.processes import KilledError, RunError


class Watcher:
    """Notes what it is told, and from which thread."""

    def __init__(self):
        self.begun, self.seen, self.lines, self.threads = [], [], [], set()

    def begin(self, name):
        self.begun.append(name)

    def watch(self, name, message):
        self.seen.append((name, message))
        self.threads.add(threading.current_thread())

    def message(self, text):
        self.lines.append(text)


@pytest.fixture
def made(monkeypatch):
    """Function of the work of a run: given (task, watch, stopped), it takes the place of a process."""

    def use(work):
        monkeypatch.setattr(executor, "run_isolated", lambda task, watch, stop, **options: work(task, watch, stop))

    return use


def runs(count):
    return [Run(name=f"run {number}", task={"number": number}) for number in range(count)]


@pytest.mark.parametrize("jobs", [1, 3, 8])
def test_results_are_the_same_whatever_the_number_of_jobs(made, jobs):
    active, most = [], []

    def square(task, watch, stop):
        active.append(task)
        most.append(len(active))
        watch({"done": 1, "total": 1})
        time.sleep(0.02)
        active.remove(task)
        return {"square": task["number"] ** 2}

    made(square)
    watcher = Watcher()
    found = {run.name: result["square"] for run, result in execute(runs(7), watcher, [], Executor(jobs=jobs))}
    assert found == {f"run {number}": number**2 for number in range(7)}
    assert max(most) <= jobs
    assert (max(most) > 1) == (jobs > 1)
    assert watcher.begun == [f"run {number}" for number in range(7)]
    assert sorted(watcher.seen, key=lambda seen: seen[0]) == [
        (f"run {number}", {"done": 1, "total": 1}) for number in range(7)
    ]
    assert watcher.threads == {threading.current_thread()}


@pytest.mark.parametrize(("kills", "fails"), [(1, False), (2, False), (3, True)])
def test_run_whose_process_is_killed_is_made_again_twice(made, kills, fails):
    tries = []

    def killed(task, watch, stop):
        tries.append(task)
        if len(tries) <= kills:
            raise KilledError("its process was killed")
        return {"value": 1}

    made(killed)
    watcher = Watcher()
    ((_, result),) = execute(runs(1), watcher, [], Executor(jobs=2))
    assert len(tries) == min(kills + 1, 3)
    assert len(watcher.lines) == min(kills, 2)
    assert watcher.lines[0] == (
        "run 0: its process was killed: it is made again from its saved state; fewer jobs need less memory"
    )
    assert (isinstance(result, RunError) and "made 3 times" in str(result)) == fails
    assert fails or result == {"value": 1}


def test_failure_of_a_run_is_its_own(made):
    def fails(task, watch, stop):
        if task["number"] == 1:
            raise RunError("diverged")
        return {}

    made(fails)
    found = {run.name: result for run, result in execute(runs(3), Watcher(), [], Executor(jobs=2))}
    assert str(found.pop("run 1")) == "diverged"
    assert found == {"run 0": {}, "run 2": {}}


def test_signal_stops_every_run_that_is_made_and_begins_no_other(made):
    stopped = []

    def until_stopped(task, watch, stop):
        while not stop:
            watch({})
            time.sleep(0.01)
            if len(watcher.begun) == 2 and task["number"] == 1 and not stopped:
                stopped.append(signal.SIGTERM)
        raise Interrupted(f"stopped by {stop[0]}")

    made(until_stopped)
    watcher = Watcher()
    found = [(run.name, str(result)) for run, result in execute(runs(5), watcher, stopped, Executor(jobs=2))]
    assert sorted(found) == [("run 0", "stopped by 15"), ("run 1", "stopped by 15")]


def test_processes_end_when_the_one_that_waits_for_them_is_broken_off(made):
    ended = threading.Event()

    def forever(task, watch, stop):
        try:
            while True:
                watch({})
                time.sleep(0.01)
        finally:
            ended.set()

    made(forever)

    class Broken(Watcher):
        def watch(self, name, message):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(execute(runs(1), Broken(), []))
    assert ended.wait(10)


def test_next_run_may_depend_on_results_of_those_before(made):
    made(lambda task, watch, stop: {"value": task["number"] + 1})
    results = [0]

    def chain():
        while len(results) < 4:
            yield Run(name=f"run {len(results)}", task={"number": results[-1]})

    for _, result in execute(chain(), Watcher(), []):
        results.append(result["value"])
    assert results == [0, 1, 2, 3]


def test_each_slot_has_a_gpu_of_its_own_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment(0, 1) == {}
    assert [environment(slot, 3) for slot in range(3)] == [
        {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": number} for number in "010"
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert environment(1, 2) == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "7"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, r"^jobs must be at least 1 and at most 1,024, got 0$"),
        ({"name": "rey"}, r"^executor must be local, ray or ray:ADDRESS, as ray:10.0.0.1:6379, got 'rey'$"),
        ({"name": "ray:"}, "^executor must be local, ray or ray:ADDRESS"),
    ],
)
def test_executor_is_checked(options, message):
    with pytest.raises(UsageError, match=message):
        Executor(**options)
