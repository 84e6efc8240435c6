"""`python -m model_compression` is the command `model-compression`. It hears signals before its parts are imported."""

import atexit
import os
import signal
import sys
from types import FrameType

_NOT_BEGUN = "nothing was written yet: repeat the command"


class _Ends:
    """A handler that ends the process at once, with a line and 128 + N, or, behind the command, with its exit code."""

    def __init__(self, program: str):
        self.program = program
        self.code: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.code is not None:
            os._exit(self.code)
        if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
            words = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
            os.write(2, f"{self.program}: {words}; {_NOT_BEGUN}\n".encode())
        os._exit(128 + number)


def _heard(program: str) -> _Ends:
    """Sets the handler as `engine.stop_requests`, which takes over, does: SIGHUP stays ignored under nohup."""
    ends = _Ends(program)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            signal.signal(number, ends)
    atexit.register(_deaf)  # the first that is registered is called last
    return ends


def _deaf() -> None:
    """From here on the interpreter takes itself down, without handlers: no signal changes the exit code any more."""
    if hasattr(signal, "pthread_sigmask"):  # Windows has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def main() -> int:
    """The command of this process."""
    ends = _heard("model-compression" + "".join(f" {one}" for one in sys.argv[1:2] if one.replace("-", "").isalnum()))
    from model_compression.cli.main import main as command

    ends.code = command()
    return ends.code


def historic() -> int:
    """The command line of 2016."""
    ends = _heard("teacher-student.py")
    from model_compression.classic.command_line import main as command

    ends.code = command()
    return ends.code


if __name__ == "__main__":
    raise SystemExit(main())
