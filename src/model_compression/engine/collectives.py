"""Sums, rows and means over several processes that pass gradients, for losses and BatchNorm of the global batch."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Gather(torch.autograd.Function):
    """The rows of all processes. All compute the same loss of them, so the gradient of the own rows is known here.

    It is multiplied by the number of processes, by which `DistributedDataParallel` divides.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, bounds: Sequence[int]) -> Tensor:
        rank, size = dist.get_rank(), dist.get_world_size()
        ctx.rows, ctx.factor = slice(bounds[rank], bounds[rank + 1]), size
        lengths = [end - start for start, end in pairwise(bounds)]
        longest = max(lengths)
        padded = own.new_zeros(longest, *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(size)]
        dist.all_gather(parts, padded.contiguous())
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0][ctx.rows] * ctx.factor, None


def gather(tree: Any, bounds: Sequence[int]) -> Any:
    """``tree`` with the rows of all processes in each of its tensors, which hold those of this one.

    ``bounds`` are those of each process, see `slice_bounds`.

    A tree is a tensor, or a tuple, dictionary or dataclass of trees; anything else stays as it is.
    """
    if isinstance(tree, Tensor):
        return _Gather.apply(tree, bounds)
    if isinstance(tree, tuple):
        return tuple(gather(value, bounds) for value in tree)
    if isinstance(tree, dict):
        return {name: gather(value, bounds) for name, value in tree.items()}
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{entry.name: gather(getattr(tree, entry.name), bounds) for entry in fields(tree)})
    return tree


class _Sum(torch.autograd.Function):
    """The sum over all processes; what each of them gets back of gradients is added up likewise."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _normalized(
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    **unused: Any,
) -> Tensor:
    """`torch.nn.functional.batch_norm` in training, by the mean and the variance of the global batch."""
    rows = inputs.float() if inputs.element_size() < 4 else inputs
    dims = [0, *range(2, rows.ndim)]
    shape = [1, -1, *[1] * (rows.ndim - 2)]
    own = rows.new_full((1,), rows.numel() / rows.shape[1])
    sums = _Sum.apply(torch.cat([rows.sum(dims), own]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centered = rows - mean.view(shape)
    variance = _Sum.apply((centered * centered).sum(dims)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    answer: Tensor = centered * scale.view(shape)
    answer = answer if bias is None else answer + bias.view(shape)
    return answer.to(inputs.dtype)


class SynchronizedBatchNorm(TorchFunctionMode):
    """Inside, every BatchNorm that trains sees the global batch, whichever class of whichever library it is of.

    `torch.nn.SyncBatchNorm` serves GPUs alone, and would have to take the place of each module.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and kwargs.get("training", args[5] if len(args) > 5 else False):
            return _normalized(*args, **kwargs)
        return func(*args, **kwargs)
