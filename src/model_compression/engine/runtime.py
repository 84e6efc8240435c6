"""Where a step runs: on which device, in which precision, and with which other processes."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model_compression.core import processes
from model_compression.data.batches import slice_bounds
from model_compression.distillation.step import ANSWERS, INPUTS, Learned
from model_compression.engine.collectives import SynchronizedBatchNorm, gather

Loss = Callable[[nn.Module], Tensor]
"""The loss that a step gives for a few samples: it is called as in training."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One process. `Processes`, of several, has the same names, and its own answers to them."""

    device: torch.device
    precision: torch.dtype

    rank: int = 0
    world_size: int = 1

    def wrap(self, step: nn.Module, loss: Loss) -> nn.Module:
        """``step`` as it is called in training; several processes average its gradients while they are computed."""
        return step

    def reduce(self, sums: Tensor) -> Tensor:
        """``sums`` of all processes, added up."""
        return sums

    def agree(self, *flags: int) -> tuple[int, ...]:
        """For each of ``flags``, 0 to 255, the largest value in any process, so that all do the same."""
        return flags

    def part(self, total: int) -> slice:
        """The rows of a global batch of ``total`` that this process takes."""
        return slice(0, total)

    def longest(self, total: int) -> int:
        """The rows of a global batch of ``total`` that the process with most of them takes."""
        return total

    def whole(self, weight: float, total: int, *, counts: bool) -> float:
        """What the ``weight`` of this process's samples is to be divided by, for their share of the mean of a batch.

        The share is relative to the mean over processes, which the gradients are. The global batch has ``total``
        samples; ``counts`` says whether the weight is the number of samples.
        """
        return weight

    def gather(self, tree: Any, total: int) -> Any:
        """The rows of all processes, of trees of tensors with those of this one, with gradient."""
        return tree

    def synchronized(self, total: int) -> AbstractContextManager[Any]:
        """Inside, BatchNorm takes mean and variance of the global batch of ``total``."""
        return nullcontext()

    def share_out(self, total: int, answer: Callable[[slice], Tensor]) -> Tensor:
        """What ``answer`` gives for the rows of a dataset of ``total`` samples, each process asking it for some."""
        return answer(slice(None))

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Gives all processes what the first one has in ``tensors``."""

    def without_sending(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        """Inside, gradients stay in this process: more are added to them."""
        return nullcontext()

    def catch_up(self, wrapped: nn.Module) -> None:
        """After an error in a step: takes part in what the other processes do for it, with gradients of 0."""


# What torch is told not to do before each step; from 2.14 on it has another name.
_NEWER = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _NEWER else "broadcast_buffers": False}


@dataclass
class _Buckets:
    """How many of the buckets of gradients of this step are under way."""

    sent: int = 0


@dataclass(frozen=True, kw_only=True)
class Processes(Runtime):
    """Several processes, each with a slice of every global batch; see `core.processes`."""

    rank: int = field(default_factory=dist.get_rank)
    world_size: int = field(default_factory=dist.get_world_size)

    def wrap(self, step: nn.Module, loss: Loss) -> nn.Module:
        """``step`` in `DistributedDataParallel`, whose buckets are what they will be in every later step.

        DDP orders its buckets by the first gradients that it sees. Two steps on a few samples are taken beforehand, so
        that a run that is resumed adds up in the same order. What they change is put back.
        """
        kept = [(buffer, buffer.clone()) for buffer in step.buffers()]
        parameters = [parameter for parameter in step.parameters() if parameter.requires_grad]
        step.zero_grad(set_to_none=True)
        loss(step).backward()
        unused = any(parameter.grad is None for parameter in parameters)
        step.zero_grad(set_to_none=True)
        wrapped = DistributedDataParallel(step, find_unused_parameters=unused, gradient_as_bucket_view=True, **_BUFFERS)
        wrapped.register_comm_hook(state := _Buckets(), _average)
        wrapped.__dict__["buckets"] = state
        for _ in range(2):
            loss(wrapped).backward()
            step.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
        return wrapped

    def reduce(self, sums: Tensor) -> Tensor:
        """``sums`` of all processes, added up."""
        total = sums.clone()
        dist.all_reduce(total)
        return total

    def agree(self, *flags: int) -> tuple[int, ...]:
        """For each of ``flags``, 0 to 255, the largest value in any process; from processor to processor."""
        found = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(found.tolist())

    def part(self, total: int) -> slice:
        """This process's rows of a global batch; all of them where the batch is too small to share out."""
        if not self._shares_out(total):
            return slice(0, total)
        bounds = slice_bounds(total, self.world_size)
        return slice(bounds[self.rank], bounds[self.rank + 1])

    def longest(self, total: int) -> int:
        """The rows of a global batch of ``total`` that the process with most of them takes."""
        return -(-total // self.world_size) if self._shares_out(total) else total

    def whole(self, weight: float, total: int, *, counts: bool) -> float:
        """What the ``weight`` of this process's samples is to be divided by, for their share of the mean of a batch."""
        if not self._shares_out(total):
            return weight
        whole = float(total) if counts else float(self.reduce(torch.tensor(weight, dtype=torch.float64)))
        return whole / self.world_size

    def gather(self, tree: Any, total: int) -> Any:
        """The rows of all processes, of trees of tensors with those of this one, with gradient."""
        return gather(tree, slice_bounds(total, self.world_size)) if self._shares_out(total) else tree

    def synchronized(self, total: int) -> AbstractContextManager[Any]:
        """Inside, BatchNorm takes mean and variance of the global batch of ``total``."""
        return SynchronizedBatchNorm() if self._shares_out(total) else nullcontext()

    def _shares_out(self, total: int) -> bool:
        """Whether each process gets two samples, which BatchNorm needs; else each computes the whole batch."""
        return total >= 2 * self.world_size

    def share_out(self, total: int, answer: Callable[[slice], Tensor]) -> Tensor:
        """What ``answer`` gives for the rows of a dataset of ``total`` samples, each process asking it for some."""
        rows: Tensor = self.gather(answer(self.part(total)), total)
        return rows

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Gives all processes what the first one has in ``tensors``."""
        with torch.no_grad():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def without_sending(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        """Inside, gradients stay in this process: more are added to them."""
        assert isinstance(wrapped, DistributedDataParallel)
        context: AbstractContextManager[Any] = wrapped.no_sync()
        return context

    def catch_up(self, wrapped: nn.Module) -> None:
        """Sends the buckets that the error has kept from being sent, with gradients of 0."""
        assert isinstance(wrapped, DistributedDataParallel)
        reducer, state = wrapped.reducer, wrapped.__dict__["buckets"]
        for number, bucket in enumerate(reducer._get_zeros_like_grad_buckets()):
            if number >= state.sent:
                dist.all_reduce(bucket.buffer())
        if wrapped.find_unused_parameters:
            dist.all_reduce(reducer._get_local_used_map())
        state.sent = 0


def _average(state: _Buckets, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """Sends a bucket of gradients off, while the ones before it are still computed."""
    state.sent = 0 if bucket.is_last() else state.sent + 1
    work = dist.all_reduce(bucket.buffer().div_(dist.get_world_size()), async_op=True)
    sent: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return sent


def over_processes(learned: Learned, runtime: Runtime, share: float, total: int, terms: Sequence[str]) -> Learned:
    """What a global batch of ``total`` samples gave, from what each process knows of its slice.

    ``share`` is that of the slice, see `Runtime.whole`; ``terms`` are all that there may be.
    """
    share /= runtime.world_size
    kind = torch.float32 if learned.loss.device.type == "mps" else torch.float64
    absent = learned.loss.new_zeros((), dtype=kind)
    own = [learned.loss * share, learned.score]
    own += [learned.terms[name] * share if name in learned.terms else absent for name in terms]
    own += [learned.inputs.get(name, absent) for name in (INPUTS, ANSWERS)]
    values = runtime.reduce(torch.stack([value.to(kind) for value in own])).unbind()
    of_terms = dict(zip(terms, values[2:], strict=False))
    of_inputs = dict(zip((INPUTS, ANSWERS), values[-2:], strict=True))
    return replace(
        learned,
        count=total,
        loss=values[0].to(learned.loss.dtype),
        score=values[1] if runtime.longest(total) < total else values[1] / runtime.world_size,
        terms={name: of_terms[name].to(term.dtype) for name, term in learned.terms.items()},
        inputs={name: of_inputs[name] for name in learned.inputs},
    )


def choose_runtime(device: torch.device, precision: torch.dtype) -> Runtime:
    """The runtime of this process: alone, or among others."""
    kind = Runtime if processes.world_size() == 1 else Processes
    return kind(device=device, precision=precision)
