"""Finds how far to prune a network so that its file keeps a budget."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from model_compression.compression.channels import (
    Resource,
    cost_of,
    cut_channels,
    least_channels,
    seen_shape,
    shown_images,
)
from model_compression.compression.config import Cuts
from model_compression.compression.groups import copy_network, smallest
from model_compression.compression.measure import in_onnx_runtime, in_pytorch, of_file
from model_compression.core.errors import MissingExtraError, UsageError
from model_compression.core.files import temporary_folder
from model_compression.data.dataset import Dataset
from model_compression.engine.observer import Observer, counter
from model_compression.exporting.fewer_bits import to_int8
from model_compression.exporting.runtimes.onnx import rewrite
from model_compression.exporting.short_names import with_short_names
from model_compression.exporting.write import write_unverified
from model_compression.models.base import Network
from model_compression.models.factored import as_factored
from model_compression.tasks import task_of

_TRIES, _SHOWN = 8, 64
_NAMES: dict[Resource, str] = {"macs": "MACs", "params": "parameters"}
_ROOM = 0.95  # of a budget is planned with: what is pruned after training has other layers than what is tried here


def share_that_fits(
    network: Network,
    data: Dataset,
    resource: Resource,
    fits: Callable[[Network], bool],
    cuts: Cuts,
    observer: Observer,
) -> float:
    """The largest share of the ``resource`` that is left by a cut, as ``cuts`` says, that ``fits``; 1.0: all of it.

    By bisection of its logarithm, to within a few per cent; ``observer`` sees each try.

    Raises UsageError when the smallest network that can be made does not fit, and what `smallest` raises when the
    network cannot be cut at all.
    """
    if fits(network):
        return 1.0
    whole = cost_of(network, resource, data.image_shape)
    cuttable, round_to = as_factored(network) if cuts.low_rank else network, cuts.round_to
    shape = seen_shape(cuttable, data.image_shape)
    smallest_one, groups = smallest(cuttable, shape, least_channels(round_to), observer)
    least = cost_of(smallest_one, resource, data.image_shape)
    low, high, found = least / whole, 1.0, None
    images = list(shown_images(data, 0, _SHOWN))
    count = counter(observer, "size", _TRIES, "tries")
    for number in range(1, _TRIES + 1):
        middle = math.sqrt(low * high)
        target = max(least, round(middle * whole))
        cut = cut_channels(
            cuttable, images, resource=resource, target=target, round_to=round_to, cuttable=groups,
            kind=task_of(data).answer,
        )  # fmt: skip
        good = fits(cut)
        observer.message(f"  {target:,} of {whole:,} {_NAMES[resource]}: {'fits' if good else 'too much'}")
        if good:
            found, low = middle, middle
        else:
            high = middle
        count(number)
    if found is None:
        raise UsageError(
            f"however far {network.name} is pruned, it does not fit; it can be cut to {least:,} of its {whole:,} "
            f"{_NAMES[resource]}; allow more, or take another network"
        )
    return found


def fits_budget(
    network: Network, data: Dataset, max_bytes: int, max_latency_ms: float, *, weight_bits: int = 8
) -> bool:
    """Whether the file of ``network`` in int8, or int4, keeps both bounds, with some room; 0 is no bound."""
    with quantised_file(as_if_trained(network), data, weight_bits) as path:
        if max_bytes and path.stat().st_size > _ROOM * max_bytes:
            return False
        return not max_latency_ms or of_file(path).latency().median_ms <= _ROOM * max_latency_ms


@contextmanager
def quantised_file(network: Network, data: Dataset, weight_bits: int = 8) -> Iterator[Path]:
    """``network`` in int8, or int4, roughly calibrated, to be measured."""
    with temporary_folder() as folder:
        path = folder / "tried.onnx"
        write_unverified(network, path, data.image_shape, preprocessing=True)
        shown = torch.cat(list(shown_images(data, 0, _SHOWN))).numpy()
        encode = partial(to_int8, images=shown, calibration="minmax", weight_bits=weight_bits)
        rewrite(path, lambda model: with_short_names(encode(model)))
        yield path


@torch.no_grad()
def as_if_trained(network: Network) -> Network:
    """A copy without zeros where training leaves none: a file has no place for biases that are 0."""
    network = copy_network(network)
    generator = torch.Generator().manual_seed(0)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor += 0.01 * torch.rand(tensor.shape, generator=generator)
    return network


def time_of_one_image(network: Network, image_shape: tuple[int, int, int]) -> float:
    """Median in ms, in ONNX Runtime, or in PyTorch where that is not installed."""
    shape = seen_shape(network, image_shape)
    try:
        return in_onnx_runtime(network, shape).latency().median_ms
    except MissingExtraError:
        return in_pytorch(network, shape).latency().median_ms
