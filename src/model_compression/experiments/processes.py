"""A run in a process of its own: started, watched, stopped."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from model_compression.core.errors import Interrupted, ModelCompressionError, UsageError
from model_compression.core.trust import for_child

_POLL_S = 0.2


class RunError(ModelCompressionError):
    """A run in a process of its own failed; the message is its reason, and nothing else is affected."""


class MachineError(RunError):
    """A run in a process of its own could not write or read, as on a full disk: its settings are not the reason."""


class KilledError(RunError):
    """The process of a run was killed by signal 9, as a system does that is out of memory."""


def run_isolated(
    task: dict[str, Any],
    watch: Callable[[dict[str, Any]], None],
    stopped: Sequence[int],
    *,
    debug: bool = False,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Does ``task``, as `worker` takes it, in a process of its own; returns its result.

    ``watch`` is given what it says of its progress, and an empty message now and then. When a signal appears in
    ``stopped``, the process is asked to save and end. ``debug`` shows its tracebacks on stderr; ``environment`` are
    variables that it has beside those of this process.

    Raises Interrupted after such a signal, UsageError for a task that cannot be done as it is, KilledError for a
    process that was killed, RunError for any other end.
    """
    with tempfile.TemporaryFile() as errors:
        process = _started(with_surroundings(task), None if debug else errors, environment or {})
        asked, result = False, None
        try:
            for message in _messages(process):
                if stopped and not asked:
                    process.send_signal(signal.SIGTERM)
                    asked = True
                if "result" in message or "error" in message:
                    result = message
                else:
                    watch(message)
            code = process.wait()
        finally:
            if process.poll() is None:  # a second Ctrl-C: there is no time to save
                process.kill()
                process.wait()
        return _result(result, code, stopped, errors)


def with_surroundings(task: dict[str, Any]) -> dict[str, Any]:
    """``task`` with what its process has of this one, unless it has them already: where it finds modules, which code
    it may import, its working folder and the package's own environment variables."""
    path = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    own = {name: value for name, value in os.environ.items() if name.startswith("MODEL_COMPRESSION_")}
    return {"path": path, "trust": for_child(), "working_folder": str(Path.cwd()), "environment": own, **task}


def _started(task: dict[str, Any], errors: IO[bytes] | None, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """The process, with its task written."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "model_compression.experiments.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, **environment, **task["environment"], "PYTHONPATH": task["path"]},
        cwd=task["working_folder"],
        encoding="utf-8",
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:  # it may be dead, which is seen later
        pipe.write(json.dumps(task))
    return process


def _messages(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    """What the process says, until it ends; an empty message when it has said nothing for a moment."""
    lines: queue.Queue[str | None] = queue.Queue()
    pipe = process.stdout
    assert pipe is not None

    def read() -> None:
        with pipe:
            for line in pipe:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=_POLL_S)
        except queue.Empty:
            yield {}
            continue
        if line is None:
            return
        yield json.loads(line)


def _result(message: dict[str, Any] | None, code: int, stopped: Sequence[int], errors: IO[bytes]) -> dict[str, Any]:
    if message is not None and "result" in message:
        result: dict[str, Any] = message["result"]
        return result
    if stopped:
        raise Interrupted("stopped", exit_code=128 + stopped[0])
    if message is not None:
        kind = UsageError if message["usage"] else MachineError if message.get("is_of_machine") else RunError
        raise kind(message["error"])
    if code == -signal.SIGKILL:
        raise KilledError("its process was killed (signal 9), as a system does that is out of memory")
    if code < 0:
        raise RunError(f"its process died of signal {-code} ({signal.strsignal(-code)})")
    errors.seek(0)
    last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    raise RunError(f"its process ended with exit code {code}: {last or 'it said nothing'}")
