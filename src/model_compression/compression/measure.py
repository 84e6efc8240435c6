"""What a network costs: parameters, multiply-accumulates, bytes, memory of its activations, and time."""

import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model_compression.core.errors import UsageError
from model_compression.core.files import temporary_folder
from model_compression.core.inputs import Inputs, tensors_of
from model_compression.core.processor_usage import Usage
from model_compression.exporting.runtimes import open_file
from model_compression.exporting.write import write_unverified
from model_compression.models.base import Network
from model_compression.models.blank import blank
from model_compression.models.copies import place
from model_compression.models.eval_mode import evaluating
from model_compression.models.summary import summarize

_TRIES, _PARTS = 3, 4  # measurements at most, and parts of one whose medians are compared
_SPREAD = 2.0  # a median this many times another one, or the fastest tenth, was disturbed


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a network, for one image of ``input_shape`` (C, H, W), or one text of (L,) tokens.

    ``float32_bytes``, ``float16_bytes`` and ``int8_bytes`` are those of all parameters and buffers, each number in 4, 2
    or 1 bytes; a file is a little larger. ``activation_bytes`` is the most that is alive at once of a float32 forward
    pass, the input among it, weights and what a convolution needs within itself not.
    """

    input_shape: tuple[int, ...]
    parameters: int
    macs: int
    float32_bytes: int
    float16_bytes: int
    int8_bytes: int
    activation_bytes: int


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Of calls with ``batch`` images or texts: median and 95th percentile over ``calls`` calls, after a warm-up.

    ``disturbed``: the median is far above what the fastest tenth of the calls took, or the median changed while it was
    measured, as on a machine that has other work; the figures are then not those of the network.
    """

    runtime: str
    batch: int
    threads: int
    calls: int
    median_ms: float
    p95_ms: float
    disturbed: bool = False

    @property
    def samples_per_second(self) -> float:
        """At the median."""
        return 1000 * self.batch / self.median_ms


def size_of(network: Network, input_shape: tuple[int, ...]) -> Size:
    """Raises UsageError when the network takes no samples of that shape, see `blank`."""
    summary = summarize(network, input_shape)
    numbers = sum(tensor.numel() for tensor in network.state_dict().values() if tensor.is_floating_point())
    return Size(
        input_shape=input_shape,
        parameters=summary.parameters,
        macs=summary.macs,
        float32_bytes=4 * numbers,
        float16_bytes=2 * numbers,
        int8_bytes=numbers,
        activation_bytes=peak_activation_bytes(network, blank(input_shape)),
    )


@torch.no_grad()
def peak_activation_bytes(network: torch.nn.Module, inputs: Inputs) -> int:
    """The most bytes of tensors that are alive at once while ``inputs`` pass through ``network`` in eval mode."""
    watch = _LiveBytes(tensors_of(inputs), [*network.parameters(), *network.buffers()])
    with evaluating(network), watch:
        network(inputs)
    return watch.peak


def latency(
    run: Callable[[], object],
    *,
    runtime: str,
    batch: int,
    threads: int,
    seconds: float = 2.0,
    is_own: bool = True,
) -> Latency:
    """Times ``run``, which answers a batch, for ``seconds`` and at least 20 calls, after a tenth of that to warm up.

    A measurement that was disturbed is taken again, twice at most; the one with the smallest median counts. Disturbed
    is one whose times differ, and one throughout which other work took the processor, see `Usage`. ``is_own``: this
    process computes, and no other for it.
    """
    _timed(run, seconds / 10, 3)
    found: list[Latency] = []
    while len(found) < _TRIES and (not found or found[-1].disturbed):
        before = Usage.now()
        times = _timed(run, seconds, 20)
        busy = is_own and Usage.now().since(before).is_crowded(threads)
        found.append(_latency(times, runtime, batch, threads, busy))
    return min(found, key=lambda one: (one.disturbed, one.median_ms))


@dataclass(frozen=True, kw_only=True)
class Answering:
    """A network in a ``runtime``: ``call`` gives, for a batch size, what answers such a batch."""

    runtime: str
    call: Callable[[int], Callable[[], object]]
    is_guest: bool = False
    """Whether it runs in a process of its own, as a stranger's file, which takes a little longer."""

    def latency(self, batch: int = 1, threads: int = 0, seconds: float = 1.0) -> Latency:
        """See `latency`; ``threads`` 0: as many as torch has."""
        threads = threads or torch.get_num_threads()
        return latency(
            self.call(batch),
            runtime=self.runtime,
            batch=batch,
            threads=threads,
            seconds=seconds,
            is_own=not self.is_guest,
        )


def in_pytorch(network: Network, input_shape: tuple[int, ...]) -> Answering:
    """Of samples of ``input_shape``, see `blank`, in float32 on the CPU."""
    model = place(network.deployed().float().eval(), torch.device("cpu"))

    def call(batch: int) -> Callable[[], object]:
        inputs = blank(input_shape, batch)
        if isinstance(inputs, Tensor):
            inputs = inputs.to(memory_format=torch.channels_last)

        @torch.no_grad()
        def answer() -> object:
            return model(inputs)

        return answer

    return Answering(runtime="PyTorch", call=call)


def of_file(path: Path, threads: int = 0, tokens: int = 0) -> Answering:
    """An exported file in its own runtime, of images, or of texts of ``tokens``; ``threads`` 0: as many as torch has.

    Raises UsageError for a file that takes neither.
    """
    file = open_file(path, threads or torch.get_num_threads())
    known = file.metadata
    names = [entry.name for entry in known.entries]
    if not known.image_shape and names != [*blank((1,))]:
        raise UsageError(f"{path} takes {', '.join(names)}, and what is measured takes images or texts")

    def call(batch: int) -> Callable[[], object]:
        if known.image_shape:
            images = np.zeros((batch, *known.image_shape), np.uint8 if known.preprocessing_inside else np.float32)
            return lambda: file.run(images)
        texts = dict.fromkeys(names, np.ones((batch, tokens), dtype=np.int64))
        return lambda: file.run(texts)

    return Answering(runtime=file.runtime, call=call, is_guest=file.is_guest)


def in_onnx_runtime(network: Network, input_shape: tuple[int, ...], threads: int = 0) -> Answering:
    """Of samples of ``input_shape``, see `blank`. Raises MissingExtraError where ONNX files can't be written or run."""
    with temporary_folder() as folder:
        path = folder / "measured.onnx"
        write_unverified(network, path, input_shape)
        return of_file(path, threads, input_shape[0])


def _latency(in_order: list[float], runtime: str, batch: int, threads: int, is_crowded: bool = False) -> Latency:
    times, median = sorted(in_order), statistics.median(in_order)
    part = len(in_order) // _PARTS
    medians = [statistics.median(in_order[start : start + part]) for start in range(0, part * _PARTS, part)]
    fast = times[len(times) // 10]
    return Latency(
        runtime=runtime,
        batch=batch,
        threads=threads,
        calls=len(times),
        median_ms=1000 * median,
        p95_ms=1000 * times[min(len(times) - 1, round(0.95 * len(times)))],
        disturbed=is_crowded or max(median / fast, max(medians) / min(medians)) > _SPREAD,
    )


def _timed(run: Callable[[], object], seconds: float, calls: int) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < calls or time.perf_counter() < end:
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return times


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operators have made and that are still referred to."""

    def __init__(self, inputs: list[Tensor], weights: list[Tensor]):
        super().__init__()
        self._weights = {tensor.untyped_storage().data_ptr() for tensor in weights}
        self._users: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self.peak = 0
        for tensor in inputs:
            self._note(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self._weights or not storage.nbytes():
            return
        self._users[place] = self._users.get(place, 0) + 1
        self._bytes[place] = storage.nbytes()
        weakref.finalize(tensor, self._forget, place)
        self.peak = max(self.peak, sum(self._bytes.values()))

    def _forget(self, place: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            del self._users[place], self._bytes[place]
