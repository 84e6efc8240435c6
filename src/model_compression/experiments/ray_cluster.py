"""Runs in processes of a Ray cluster, each under an actor that lives as long as its run.

The machines share the folders of runs, records and data. A run is the same as on this machine: the actor starts the
process that `processes` starts here, and passes on what it says.
"""

import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from model_compression.core.errors import Interrupted, UsageError, reason_of
from model_compression.core.extras import check_extra
from model_compression.core.options import setting
from model_compression.experiments.processes import KilledError, MachineError, RunError, run_isolated, with_surroundings

_POLL_S = 0.3
_PATIENCE_S = 10
_KINDS: tuple[type[Exception], ...] = (KilledError, MachineError, RunError, UsageError)
_ERRORS = {kind.__name__: kind for kind in _KINDS}


@contextmanager
def connected(address: str, jobs: int, debug: bool) -> Iterator[Callable[..., dict[str, Any]]]:
    """A function that makes a run on the cluster at ``address``, as `executor.MakeRun` says.

    Without an address, it is the cluster that RAY_ADDRESS or this machine has, or else one of this machine alone.
    ``jobs`` runs share the processors. Raises MissingExtraError without Ray, UsageError for a cluster that cannot be
    reached.
    """
    check_extra("ray", setting("executor", f"ray:{address}" if address else "ray"))
    import ray

    _check_reachable(address)
    if ray.is_initialized():  # by the user of the Python functions, who also ends it
        yield _Cluster(jobs, debug).make
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(address=address or None, log_to_driver=debug, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"the Ray cluster {address or 'of this machine'} cannot be used: {reason_of(error)}"
        ) from error
    for number, handler in handlers.items():  # Ray has put its own in their place
        with suppress(ValueError):  # in a thread, where it could not
            signal.signal(number, handler)
    try:
        yield _Cluster(jobs, debug).make
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises UsageError where nothing listens at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:  # "auto", or ray://HOST:PORT
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"no Ray cluster answers at {address}: {error}; start one there with `ray start`") from error


class _Cluster:
    """What each run gets of a cluster."""

    def __init__(self, jobs: int, debug: bool):
        import ray

        self._debug = debug

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(node.get("GPU", 0) for node in nodes)
        of_each_node = -(-jobs // len(nodes))
        cores = max(1, int(min(node.get("CPU", 1) for node in nodes)) // of_each_node)
        actor: Any = ray.remote(_Host)
        self._actor = actor.options(num_cpus=cores, num_gpus=1 if gpus else 0, max_concurrency=2)

    def make(
        self,
        task: dict[str, Any],
        watch: Callable[[dict[str, Any]], None],
        stopped: Sequence[int],
        *,
        slot: int,
    ) -> dict[str, Any]:
        """Does ``task`` on the cluster, as `run_isolated` does it here."""
        import ray

        host, asked = self._actor.remote(), False
        try:
            outcome = host.run.remote(with_surroundings(task), self._debug)
            while True:
                done, _ = ray.wait([outcome], timeout=_POLL_S)
                for message in [*ray.get(host.messages.remote()), {}]:
                    watch(message)
                if done:
                    return _result(ray.get(outcome))
                if stopped and not asked:
                    asked = True
                    ray.get(host.stop.remote(stopped[0]))
        except ray.exceptions.RayActorError as error:
            raise KilledError("its process on the cluster was killed, or its machine was lost") from error
        finally:
            ray.kill(host)


class _Host:
    """The actor of a run."""

    def __init__(self) -> None:
        self._said: list[dict[str, Any]] = []
        self._stopped: list[int] = []

    def run(self, task: dict[str, Any], debug: bool) -> dict[str, Any]:
        """Does ``task``; returns its ``result``, or the kind and message of its ``error``."""
        if not Path(task["working_folder"]).is_dir():
            reason = f"{task['working_folder']} is not on {socket.gethostname()}: the machines must share their folders"
            return {"error": [RunError.__name__, reason]}
        try:
            return {"result": run_isolated(task, self._watch, self._stopped, debug=debug)}
        except Interrupted as error:
            return {"interrupted": error.exit_code}
        except (RunError, UsageError) as error:
            return {"error": [type(error).__name__, str(error)]}

    def _watch(self, message: dict[str, Any]) -> None:
        if message:
            self._said.append(message)

    def messages(self) -> list[dict[str, Any]]:
        """What the process has said since the last call."""
        said, self._said[:] = list(self._said), []
        return said

    def stop(self, number: int) -> None:
        """Asks the process to save and end, as the signal ``number`` does."""
        self._stopped.append(number)


def _result(outcome: dict[str, Any]) -> dict[str, Any]:
    if "interrupted" in outcome:
        raise Interrupted("stopped", exit_code=outcome["interrupted"])
    if "error" in outcome:
        kind, message = outcome["error"]
        raise _ERRORS[kind](message)
    result: dict[str, Any] = outcome["result"]
    return result
