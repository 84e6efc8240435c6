"""The processes of one run: who this one is among them, and what they do together.

They are started by torchrun or by ``--processes``, which set the environment variables RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR and MASTER_PORT. Without them there is one process, and everything here returns at once.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

from model_compression.core.errors import ModelCompressionError, UsageError

T = TypeVar("T")

_PATIENCE = timedelta(hours=2)  # for a process that does alone what the others wait for, as to download data
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed", "ncclRemoteError")
_SAID = "model_compression/said"  # in the store: who was the first to say why a run ends
_DONE, _ALL_DONE = "model_compression/done", "model_compression/all_done"  # in the store: who has ended well
_PARENT = os.getppid()
_SPOKEN: list[Any] = []  # the store of the processes, once they have met


class ProcessLostError(ModelCompressionError):
    """Another process of the run has ended."""


def world_size() -> int:
    """How many processes there are, from the environment; they need not have met yet."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process, from 0."""
    return _number("RANK", 0) if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes files and speaks."""
    return rank() == 0


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdecimal():
        raise UsageError(f"the environment variable {variable} must be a number, got {text!r}; torchrun sets it")
    return int(text)


def is_orphan() -> bool:
    """Whether what has started this process, one of several, has ended."""
    return world_size() > 1 and os.getppid() != _PARENT


def meet() -> None:
    """Joins the other processes, once: nccl between GPUs, gloo between processors. Waits until all are there."""
    if world_size() == 1:
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if dist.is_initialized():
        return
    if not dist.is_available():
        raise UsageError("this PyTorch is built without torch.distributed: start one process")
    store, number, size = next(iter(rendezvous("env://", timeout=_PATIENCE)))
    _SPOKEN.append(store)
    if torch.cuda.is_available():
        torch.cuda.set_device(_number("LOCAL_RANK", 0) % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=_PATIENCE)


def part_company() -> None:
    """Leaves the other processes, when all have ended well.

    A process that leaves early closes its connections while others may still read from them: they would fail. So all
    wait in the store, which belongs to the launcher.
    """
    import sys

    if "torch.distributed" not in sys.modules or not _SPOKEN:
        return
    import torch.distributed as dist

    if not dist.is_initialized():
        return
    with suppress(dist.DistError):  # the store has ended with its launcher
        if _SPOKEN[0].add(_DONE, 1) == world_size():
            _SPOKEN[0].set(_ALL_DONE, "")
        _SPOKEN[0].wait([_ALL_DONE], _PATIENCE)
    dist.destroy_process_group()


def speaks_first() -> bool:
    """Whether no other process has said yet why the run ends: one line is enough."""
    if world_size() == 1:
        return True
    if not _SPOKEN:  # they have not met: all find the same
        return is_main()
    try:
        return int(_SPOKEN[0].add(_SAID, 1)) == 1
    except Exception:  # the store ends with the process that has it
        return is_main()


def same(value: T) -> T:
    """What the first process has for ``value``, in all: decisions that depend on a machine's speed or memory."""
    if world_size() == 1:
        return value
    import torch.distributed as dist

    values = [value]
    with lost_is_said():
        dist.broadcast_object_list(values, src=0)
    return values[0]


def on_main(action: Callable[[], T]) -> T:
    """What ``action`` returns or raises in the first process, in all; it runs in that one alone."""
    if world_size() == 1:
        return action()
    result: T | None = None
    error: Exception | None = None
    if is_main():
        try:
            result = action()
        except (ModelCompressionError, OSError) as raised:
            error = raised
    sent: Any = error if error is None or isinstance(error, OSError) else (type(error), error.args, vars(error))
    result, sent = same((result, sent))
    if isinstance(sent, tuple):  # ours are made of other arguments than they keep
        kind, arguments, values = sent
        sent = kind.__new__(kind)
        sent.args = arguments
        vars(sent).update(values)
    if sent is not None:
        raise sent
    return result  # type: ignore[return-value]


@contextmanager
def lost_is_said(remedy: Callable[[], str] = lambda: "") -> Iterator[None]:
    """What torch raises when another process has ended becomes a `ProcessLostError`, which says what to do."""
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not any(sign in str(error) for sign in _LOST):
            raise
        told = remedy()
        raise ProcessLostError(f"another process of this run has ended{'; ' if told else ''}{told}") from error
