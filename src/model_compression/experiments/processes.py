"""Runs in processes of their own, one after the other: started, watched, stopped."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from model_compression.core.errors import Interrupted, ModelCompressionError, UsageError
from model_compression.core.trust import for_child

_POLL_S = 0.2


class RunError(ModelCompressionError):
    """A run in a process of its own failed; the message is its reason, and nothing else is affected."""


def run_isolated(
    task: dict[str, Any], watch: Callable[[dict[str, Any]], None], stopped: Sequence[int], *, debug: bool = False
) -> dict[str, Any]:
    """Does ``task``, as `worker` takes it, in a process of its own; returns its result.

    ``watch`` is given what it says of its progress, and an empty message now and then. When a signal appears in
    ``stopped``, the process is asked to save and end. ``debug`` shows its tracebacks on stderr.

    Raises Interrupted after such a signal, UsageError for a task that cannot be done as it is, RunError for any other
    end, the death of the process among them.
    """
    with tempfile.TemporaryFile() as errors:
        process = _started(task, None if debug else errors)
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


def _started(task: dict[str, Any], errors: IO[bytes] | None) -> "subprocess.Popen[str]":
    """The process, with its task written. It finds modules where this one does, nowhere else."""
    path = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "model_compression.experiments.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, "PYTHONPATH": path},
        encoding="utf-8",
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:  # it may be dead, which is seen later
        pipe.write(json.dumps({**task, "trust": for_child()}))
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
        raise (UsageError if message["usage"] else RunError)(message["error"])
    if code == -signal.SIGKILL:
        raise RunError("its process was killed (signal 9), as a system does that is out of memory")
    if code < 0:
        raise RunError(f"its process died of signal {-code} ({signal.strsignal(-code)})")
    errors.seek(0)
    last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    raise RunError(f"its process ended with exit code {code}: {last or 'it said nothing'}")
