"""Independent runs, several at a time, each in a process of its own, which is made again if it is killed.

The processes are those of this machine or, by `ray_cluster`, of a Ray cluster.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from model_compression.core.errors import Interrupted, UsageError
from model_compression.core.options import Option, setting
from model_compression.experiments.processes import KilledError, RunError, run_isolated

_MOST_JOBS = 1024
_TRIES = 3  # of a run whose process is killed


@dataclass(eq=False, kw_only=True)
class Run:
    """A task of `worker` and the name that messages give it. A signal number in ``stop`` asks it to save and end."""

    name: str
    task: dict[str, Any]
    stop: list[int] = field(default_factory=list)


class Watcher(Protocol):
    """Who watches runs. All calls come from one thread."""

    def begin(self, name: str) -> None:
        """A run starts."""

    def watch(self, name: str, message: dict[str, Any]) -> None:
        """How far a run is, as its process says; an empty message now and then."""

    def message(self, text: str) -> None:
        """A line for the user."""


MakeRun = Callable[..., dict[str, Any]]
"""Makes a run: (task, watch, stopped, slot=…) as `processes.run_isolated` has them."""


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Where runs are made, ``jobs`` at a time: ``name`` is "local", "ray" or "ray:ADDRESS".

    ``debug`` shows the tracebacks of their processes. Raises UsageError for a number or a name that cannot be.
    """

    jobs: int = 1
    name: str = "local"
    debug: bool = False

    def __post_init__(self) -> None:
        Option(minimum=1, maximum=_MOST_JOBS).check("jobs", self.jobs)
        kind, _, _ = self.name.partition(":")
        if self.name != "local" and (kind != "ray" or self.name == "ray:"):
            raise UsageError(
                f"{setting('executor')} must be local, ray or ray:ADDRESS, as ray:10.0.0.1:6379, got {self.name!r}"
            )

    def opened(self) -> AbstractContextManager[MakeRun]:
        """What makes a run; inside the context, a cluster is connected."""
        if self.name == "local":
            return nullcontext(self._make_here)
        from model_compression.experiments.ray_cluster import connected

        return connected(self.name.partition(":")[2], self.jobs, self.debug)

    def _make_here(
        self,
        task: dict[str, Any],
        watch: Callable[[dict[str, Any]], None],
        stopped: Sequence[int],
        *,
        slot: int,
    ) -> dict[str, Any]:
        return run_isolated(task, watch, stopped, debug=self.debug, environment=environment(slot, self.jobs))


ONE_BY_ONE = Executor()


def execute(
    runs: Iterable[Run], watcher: Watcher, stopped: Sequence[int], executor: Executor = ONE_BY_ONE
) -> Iterator[tuple[Run, dict[str, Any] | Exception]]:
    """Makes ``runs`` by ``executor``, and yields each with its result or error as soon as it ends.

    The next run is taken from ``runs`` when a process is free, so ``runs`` may depend on what was yielded before. A
    run whose process is killed is made again, from its saved state, twice at most. After a signal in ``stopped``, no
    run starts and those that run save and end; each is yielded with `Interrupted`.
    """
    with executor.opened() as make:
        yield from _execute(runs, watcher, stopped, make, executor.jobs)


def _execute(
    runs: Iterable[Run], watcher: Watcher, stopped: Sequence[int], make: MakeRun, jobs: int
) -> Iterator[tuple[Run, dict[str, Any] | Exception]]:
    said: queue.SimpleQueue[tuple[Run, int, Any]] = queue.SimpleQueue()
    waiting, free, active, ended = iter(runs), list(range(jobs)), list[Run](), threading.Event()
    try:
        while True:
            while free and not stopped:
                run = next(waiting, None)
                if run is None:
                    break
                watcher.begin(run.name)
                active.append(run)
                arguments = (run, make, free.pop(0), jobs, said, ended)
                threading.Thread(target=_work, args=arguments, daemon=True).start()
            if not active:
                return
            run, slot, content = said.get()
            if stopped:
                for one in active:
                    one.stop[:] = one.stop or stopped[:1]
            if isinstance(content, _Outcome):
                active.remove(run)
                free.append(slot)
                if not isinstance(content.value, dict | Exception):
                    raise content.value
                yield run, content.value
            elif isinstance(content, str):
                watcher.message(content)
            else:
                watcher.watch(run.name, content)
    finally:
        ended.set()  # an exception here, as a second Ctrl-C: the processes are killed


@dataclass(frozen=True)
class _Outcome:
    value: dict[str, Any] | BaseException


def _work(
    run: Run,
    make: MakeRun,
    slot: int,
    jobs: int,
    said: "queue.SimpleQueue[tuple[Run, int, Any]]",
    ended: threading.Event,
) -> None:
    """Makes one run; puts what its process says into ``said``, and last its outcome."""

    def watch(message: dict[str, Any]) -> None:
        if ended.is_set():
            raise Interrupted("stopped")
        said.put((run, slot, message))

    result: dict[str, Any] | BaseException
    for attempt in range(1, _TRIES + 1):
        try:
            result = make({**run.task, "attempt": attempt}, watch, run.stop, slot=slot)
            break
        except KilledError as error:
            result = RunError(f"{error}; it was made {_TRIES} times, always so")
            if attempt < _TRIES:
                fewer = f"; fewer {setting('jobs')} need less memory" if jobs > 1 else ""
                said.put((run, slot, f"{run.name}: {error}: it is made again from its saved state{fewer}"))
        except BaseException as error:  # whatever it is: who waits for this thread must know
            result = error
            break
    said.put((run, slot, _Outcome(result)))


def environment(slot: int, jobs: int) -> dict[str, str]:
    """The environment variables of the process in a slot: a GPU of its own where there are several, and its share of
    the processor's cores. A single job keeps what this process has."""
    if jobs == 1:
        return {}
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // jobs)
    found = {"OMP_NUM_THREADS": str(min(share, _number(os.environ.get("OMP_NUM_THREADS", ""), share)))}
    gpus = torch.cuda.device_count()
    if gpus > 1:
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        found["CUDA_VISIBLE_DEVICES"] = (visible or [str(number) for number in range(gpus)])[slot % gpus]
    return found


def _number(text: str, default: int) -> int:
    return int(text) if text.isdecimal() and int(text) else default
