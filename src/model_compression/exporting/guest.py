"""ONNX files that were not written here run in a process of their own, with a limit of memory and of time.

A graph can ask for any amount of both: it may loop, and make large tensors of small ones. On stdout the
process says what the file is, in a line of JSON, and for each batch that it is sent the logits, or what went wrong.
"""

import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import threading
import weakref
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import FileFormatError
from model_compression.core.options import setting

_OPEN_S, _SAMPLE_S = 60.0, 2.0  # to open a file and for each call, and for each sample of it besides
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
_LEAST_BYTES = 2 * 2**30
_LINE, _COUNT = 64 * 2**20, struct.Struct("<q")  # the longest line that is read; how numbers are sent


class Guest:
    """A session of ONNX Runtime for the file at ``path`` in another process, which ends with this object.

    ``facts`` is what `described` gives. Raises FileFormatError for a file that cannot be opened within the limits.
    """

    def __init__(self, path: Path, threads: int):
        from model_compression.core.free_memory import available_memory_bytes

        allowed = max(_LEAST_BYTES, available_memory_bytes() // 2)
        self._path = path
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(path), str(threads), str(allowed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(part or str(Path.cwd()) for part in sys.path)},
        )
        self._end = weakref.finalize(self, _ended, self._process)
        with self._limit(_OPEN_S):
            line = self._pipe.readline(_LINE)
        self.facts: dict[str, Any] = json.loads(line) if line else {"error": self._death(_OPEN_S)}
        if "error" in self.facts:
            self._end()
            raise FileFormatError(f"{path} is no ONNX file that ONNX Runtime can run: {self.facts['error']}")

    def run(self, inputs: dict[str, npt.NDArray[Any]], sizes: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Logits (B, …) of samples (B, …) by name; ``sizes`` are the logits' behind the batch.

        Raises FileFormatError when there is none within the limits.
        """
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        count = len(next(iter(arrays.values())))
        shape = (count, *sizes)
        limit, size = _OPEN_S + _SAMPLE_S * count, 4 * math.prod(shape)
        sent = json.dumps([[name, str(array.dtype), array.shape] for name, array in arrays.items()])
        with self._limit(limit):
            with suppress(OSError):  # of a process that died, which is seen below
                assert self._process.stdin is not None
                self._process.stdin.write(sent.encode() + b"\n" + b"".join(map(bytes, arrays.values())))
                self._process.stdin.flush()
            head = self._pipe.read(_COUNT.size)
            found = _COUNT.unpack(head)[0] if len(head) == _COUNT.size else 0
            answer = self._pipe.read(size if found == size else min(abs(found), _LINE))
        if found != size or len(answer) != size:
            reason = answer.decode(errors="replace") if found < 0 else self._death(limit)
            self._end()
            raise FileFormatError(f"{self._path} cannot be run: {reason}")
        return np.frombuffer(bytearray(answer), dtype=np.float32).reshape(shape)

    @property
    def _pipe(self) -> BinaryIO:
        assert self._process.stdout is not None
        return self._process.stdout  # type: ignore[return-value]

    def _limit(self, seconds: float) -> "_Limit":
        return _Limit(self._process, seconds)

    def _death(self, seconds: float) -> str:
        self._end()
        trust = f"add {setting('trust', True)} where you know who made it"
        if self._process.returncode == -9:
            return f"it did not answer within {seconds:,.0f} s, or took too much memory; {trust}"
        return f"its process ended with {self._process.returncode}, as for want of memory; {trust}"


class _Limit:
    """Kills a process that takes longer than this."""

    def __init__(self, process: "subprocess.Popen[bytes]", seconds: float):
        self._timer = threading.Timer(seconds, process.kill)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()


def _ended(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
        return
    process.kill()
    process.wait()


def described(session: Any) -> dict[str, Any]:
    """What a session says of its file: the texts beside the graph, and types and shapes of what goes in and out."""
    entries = (*session.get_inputs(), *session.get_outputs())
    return {
        "texts": session.get_modelmeta().custom_metadata_map,
        "entries": [[entry.name, entry.type, entry.shape] for entry in entries],
    }


def session_of(content: bytes, threads: int) -> Any:
    """A session of ONNX Runtime, in which no other file is read: a graph may name files with data for its tensors.

    For content without a place of its own, ONNX Runtime looks for them in the working folder unless another is named.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as empty:
        options.add_session_config_entry(_DATA_FOLDER, empty)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def first_line(error: BaseException) -> str:
    """Of what it says."""
    return (str(error) or type(error).__name__).partition("\n")[0][:200]


def main() -> None:
    """Serves the file that the command line names, until nothing more is asked."""
    path, threads, allowed = sys.argv[1:]
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints
    try:
        _limit_memory(int(allowed))
        content = Path(path).read_bytes()
        with tempfile.TemporaryDirectory() as empty, chdir(empty):  # for versions that do not know `_DATA_FOLDER`
            session = session_of(content, int(threads))
        facts = described(session)
    except BaseException as error:  # whatever it is, it is the file's
        facts = {"error": first_line(error)}
    pipe.write(json.dumps(facts).encode() + b"\n")
    pipe.flush()
    while "error" not in facts and (head := sys.stdin.buffer.readline()):
        pipe.write(_answer(session, json.loads(head)))
        pipe.flush()


def _answer(session: Any, sent: list[tuple[str, str, list[int]]]) -> bytes:
    """The logits of the samples that stdin has next, behind their number of bytes; a text's is negative.

    ``sent`` are name, type and shape of each array.
    """
    inputs = {}
    for name, kind, shape in sent:
        content = sys.stdin.buffer.read(np.dtype(kind).itemsize * math.prod(shape))
        inputs[name] = np.frombuffer(content, kind).reshape(shape)
    try:
        (logits,) = session.run(None, inputs)
        payload: bytes = logits.astype(np.float32, copy=False).tobytes()
        return _COUNT.pack(len(payload)) + payload
    except BaseException as error:
        text = first_line(error).encode()
        return _COUNT.pack(-len(text)) + text


def _limit_memory(allowed: int) -> None:
    """Lets this process take ``allowed`` bytes more than it has, where the system can hold it to that."""
    import onnxruntime  # noqa: F401  (what its code takes is none of the file's)

    with suppress(ImportError, OSError, ValueError):  # Windows has no resource
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + allowed
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
