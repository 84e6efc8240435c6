"""`measure`: what a network costs."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from model_compression.api.inputs import give_names
from model_compression.compression.measure import (
    Answering,
    Latency,
    Size,
    in_onnx_runtime,
    in_pytorch,
    of_file,
    size_of,
)
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import check_side
from model_compression.core.errors import MissingExtraError, UsageError
from model_compression.core.files import user_path
from model_compression.core.free_memory import available_memory_bytes
from model_compression.core.options import setting
from model_compression.core.trust import all_files
from model_compression.exporting.runtimes import names_by_suffix, open_file
from model_compression.models.base import MODELS, Network
from model_compression.models.blank import described, takes_texts
from model_compression.models.loading import build_model
from model_compression.models.weights import find_weights

_MOST_THREADS = 1024


@dataclass(frozen=True, kw_only=True, repr=False)
class Cost:
    """What a network costs.

    ``size`` is None for an exported file; ``file_bytes`` None for a network without a file; ``is_guest``: a stranger's
    file runs in a process of its own, which takes a little longer.
    """

    model: str
    size: Size | None
    file_bytes: int | None
    latencies: tuple[Latency, ...]
    noun: str = "images"
    """What is measured with: images or texts."""
    is_guest: bool = False

    def __repr__(self) -> str:
        parts = [] if self.size is None else [f"{self.size.parameters:,} parameters, {self.size.macs:,} MACs"]
        parts += [] if self.file_bytes is None else [f"{self.file_bytes:,} bytes"]
        parts += [f"{one.runtime}, batch {one.batch}: {one.median_ms:.2f} ms" for one in self.latencies]
        return f"<{self.model}: {'; '.join(parts)}>"


@checked_arguments
def measure(
    model: str | Path,
    *,
    batch_size: int | None = None,
    threads: int = 0,
    seconds: float = 2.0,
    size: int | None = None,
    tokens: int = 128,
    trust: bool = False,
) -> Cost:
    """Measures parameters, multiply-accumulates, bytes, memory of activations, and latency here.

    Example:
        >>> mc.measure("lenet", seconds=0.1).size.parameters
        3497866

    Args:
        model: a network's name, a run folder, a weights file, or an exported file.
        batch_size: images or texts at once, beside one; None: 256 images, 32 texts.
        threads: 0: as many as there are cores.
        seconds: for each latency.
        size: height and width of the images, in pixels; None: the network's own.
        tokens: of each text, special ones included.
        trust: whether code that a stranger's file names is imported.

    Raises:
        UsageError: a batch that does not fit into memory, or an argument that cannot be.
    """
    _check(batch_size, threads, seconds, size, tokens)
    give_names(model)
    if threads:
        torch.set_num_threads(threads)
    used = torch.get_num_threads()
    with all_files(trust):
        path = user_path(str(model))
        costs: Size | None = None
        if path.suffix in names_by_suffix():
            answering, is_of_texts = [of_file(path, used, tokens)], not open_file(path).metadata.image_shape
            batch_size = batch_size or _batch(is_of_texts)
        else:
            network = build_model(str(model)).deployed().eval()
            is_of_texts = takes_texts(network)
            shape = _shape(network, size, tokens)
            costs = size_of(network, shape)
            batch_size = batch_size or _batch(is_of_texts)
            _check_memory(batch_size, costs)
            answering = [in_pytorch(network, shape)]
            with suppress(MissingExtraError):
                answering.append(in_onnx_runtime(network, shape, used))
        noun = "texts" if is_of_texts else "images"
        latencies = _latencies(answering, batch_size, used, seconds, noun)
        file_bytes = _file_bytes(str(model))
    is_guest = costs is None and answering[0].is_guest
    return Cost(model=str(model), size=costs, file_bytes=file_bytes, latencies=latencies, noun=noun, is_guest=is_guest)


def _check(batch_size: int | None, threads: int, seconds: float, size: int | None, tokens: int) -> None:
    """Raises UsageError for an argument out of its range."""
    for name, value in (("batch_size", batch_size), ("tokens", tokens)):
        if value is not None and value < 1:
            raise UsageError(f"{setting(name)} must be at least 1, got {value}")
    if not 0 <= threads <= _MOST_THREADS:
        raise UsageError(f"{setting('threads')} must lie between 0 (all cores) and {_MOST_THREADS}, got {threads}")
    if seconds <= 0:
        raise UsageError(f"{setting('seconds')} must be above 0, got {seconds}")
    if size is not None:
        check_side(setting("size"), size)


def _latencies(
    answering: Sequence[Answering], batch_size: int, threads: int, seconds: float, noun: str
) -> tuple[Latency, ...]:
    """Of one sample and of ``batch_size`` in each runtime. Raises UsageError where they do not fit into memory."""
    try:
        return tuple(
            one.latency(batch, threads, seconds) for batch in dict.fromkeys((1, batch_size)) for one in answering
        )
    except (MemoryError, RuntimeError) as error:
        raise UsageError(
            f"{batch_size} {noun} at once do not fit into memory ({str(error)[:80]}); give a smaller "
            f"{setting('batch_size')}"
        ) from None


def _shape(network: Network, size: int | None, tokens: int) -> tuple[int, ...]:
    """Of what the network is measured with, see `blank`."""
    if takes_texts(network):
        if size is not None:
            raise UsageError(
                f"{setting('size')} is of images, and {network.name} takes texts: give {setting('tokens')}"
            )
        return (tokens,)
    channels, height, width = network.image_shape
    return channels, size or height, size or width


def _batch(is_of_texts: bool) -> int:
    return 32 if is_of_texts else 256


def _check_memory(batch: int, size: Size) -> None:
    """Raises UsageError for a batch whose activations do not fit in memory: the system would kill the process."""
    needed, available = batch * size.activation_bytes, available_memory_bytes()
    if needed > available:
        raise UsageError(
            f"{batch} times {described(size.input_shape)} at once needs about {needed / 2**30:,.0f} GiB, and "
            f"{available / 2**30:,.0f} GiB are free; give a smaller {setting('batch_size')}"
        )


def _file_bytes(name: str) -> int | None:
    if name in MODELS:
        return None
    path = Path(name)
    return (path if path.is_file() else find_weights(name)).stat().st_size
