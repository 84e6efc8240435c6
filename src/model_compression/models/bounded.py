"""What a file may make a builder allocate: no more than the tensors in the file can fill."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from model_compression.core.errors import FileFormatError

_TIMES = 8  # float32 for half precision is twice the file; the rest is for what initialisations compute with
_ALWAYS = 128 * 2**20  # bytes
_TENSORS = (
    10_000  # made in all, of small files; in a large one a tensor for every few bytes, as its name alone takes 60
)
_BYTES_OF_ONE = 4
_LARGEST_OPTION = 100_000  # of small files; in a large one an option, as a width, is an eighth of its bytes at most


@contextmanager
def bounded_by(path: Path, options: Mapping[str, Any]) -> Iterator[None]:
    """Inside, tensors of some times the size of the file at ``path`` can be made in all, as by a builder that it names.

    Their number is bounded too: a hundred thousand layers of a single weight take hours and little memory.

    Raises FileFormatError at the tensor that is too much, before it has memory, and for a number in ``options`` that no
    network in a file of that size has: loops and lists may be of its length.
    """
    largest = max((abs(leaf) for leaf in tree_leaves(dict(options)) if isinstance(leaf, int)), default=0)
    if largest > max(_LARGEST_OPTION, path.stat().st_size // 8):
        raise _too_large(path)
    size = path.stat().st_size
    with _Allowance(_ALWAYS + _TIMES * size, _TENSORS + size // _BYTES_OF_ONE, path):
        yield


class _Allowance(TorchDispatchMode):
    def __init__(self, allowed: int, tensors: int, path: Path):
        super().__init__()
        self._left, self._tensors, self._path = allowed, tensors, path

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        makes = not (func._schema.is_mutable or func.is_view or func is torch.ops.aten._local_scalar_dense.default)
        if makes:
            self._left -= _bytes_of(func, args, kwargs)
            self._tensors -= 1
            if self._left < 0 or self._tensors < 0:
                raise _too_large(self._path)
        return func(*args, **kwargs)


def _too_large(path: Path) -> FileFormatError:
    return FileFormatError(
        f"{path} describes a network far larger than its {path.stat().st_size:,} bytes hold; it is damaged, or made to "
        "take all memory"
    )


def _bytes_of(func: Any, args: Any, kwargs: Any) -> int:
    """What the result of an operator takes, found without memory; 0 where that cannot be told."""
    args, kwargs = tree_map_only(Tensor, _without_memory, (args, {**kwargs}))
    if "device" in kwargs or not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs))):
        kwargs = {**kwargs, "device": torch.device("meta")}
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    try:
        result = func(*args, **kwargs)
    except Exception:  # an operator whose result depends on values, which are few
        return 0
    return sum(math.prod(leaf.shape) * leaf.element_size() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


def _without_memory(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
