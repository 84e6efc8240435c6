"""Several processes for one command, started by torchrun's own launcher."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout

from model_compression.core import processes
from model_compression.core.errors import EXIT_FAILURE, UsageError


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Adds --processes. A command that has it may also be started by torchrun."""
    parser.add_argument(
        "--processes",
        metavar="N",
        help="processes that share each batch: a number, or auto, one per GPU (default: 1, or those of torchrun)",
    )


def num_processes(given: str | None, device: str | None = None) -> int:
    """How many processes are to be started for ``--processes``, to compute on ``device``: 1 in one that was started so.

    Raises UsageError unless it is a number from 1 on, or auto, and for more than there are GPUs.
    """
    if given is None or processes.world_size() > 1:
        return 1
    if given == "auto":
        import torch

        return max(1, torch.cuda.device_count())
    if not given.isdecimal() or not 1 <= int(given) <= 1024:
        raise UsageError(f"--processes must be a number from 1 to 1024, or auto, got {given!r}")
    if int(given) == 1:
        return 1
    import torch

    if device != "cpu" and torch.cuda.is_available() and int(given) > torch.cuda.device_count():
        raise UsageError(f"--processes is {given}, and there are {torch.cuda.device_count()} GPUs here: use auto")
    return int(given)


def launch(count: int, arguments: Sequence[str]) -> int:
    """Runs the command with ``arguments`` in ``count`` processes of this machine; returns the exit code.

    A signal is passed on to all of them; when one ends with an error, so do the others.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("torch.distributed.elastic"):  # the command says itself what went wrong
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "model_compression", *arguments)
    except ChildFailedError as error:
        number, first = error.get_first_failure()
        if first.exitcode > 0:
            return int(first.exitcode)
        killed = signal.Signals(-first.exitcode).name
        said = f"error: process {number} was ended by {killed}; what is finished is kept"
        print(f"model-compression {arguments[0]}: {said}", file=sys.stderr)
        return EXIT_FAILURE
    except SignalException as stop:
        return 128 + int(stop.sigval)
    return 0


def check_started_alone(name: str, args: argparse.Namespace) -> None:
    """Raises UsageError for a command that torchrun has started in several processes and that runs in one."""
    if processes.world_size() > 1 and not hasattr(args, "processes"):
        raise UsageError(f"{name} runs in one process, and torchrun has started {processes.world_size()}")


@contextmanager
def heard_once() -> Iterator[None]:
    """Of several processes that do the same, the first one prints the result. They part at the end."""
    with ExitStack() as stack:
        if not processes.is_main():
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield
    processes.part_company()
