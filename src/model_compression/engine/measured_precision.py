"""Which precision trains a network fastest on this machine: measured once, and kept in the user's cache."""

import copy
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from model_compression.core.device import (
    PRECISIONS,
    autocast,
    choose_precision,
    give_freed_memory_back,
    precision_name,
)
from model_compression.core.errors import ModelCompressionError
from model_compression.core.files import write_atomically, writing_failed
from model_compression.core.inputs import Inputs, map_inputs, tensors_of
from model_compression.core.optim_config import OptimConfig
from model_compression.distillation.teachers.store import cache_folder
from model_compression.engine.optim import build_optimizer
from model_compression.engine.run_folder import environment
from model_compression.models.base import Network
from model_compression.models.copies import place

FEWEST_STEPS = 200
"""Shorter runs are not measured: it takes eight steps or more."""
TIE = 1.02
"""How many times as fast another precision must be to replace the native one."""
_SECONDS, _FEWEST_ROUNDS, _MOST_ROUNDS = 1.5, 3, 20


def fastest_precision(
    student: Network,
    sample: Inputs,
    batch_size: int,
    optim: OptimConfig,
    device: torch.device,
    report: Callable[[str], None],
) -> str:
    """The precision in which ``student`` trains fastest on batches of samples like ``sample`` (1, …), as "bf16".

    The first process that asks measures a few steps on a copy of ``student``, and ``report`` is told what it found;
    later ones read that, as long as machine, threads and torch are the same. The native precision (see
    `choose_precision`) stays unless another one is 2 % faster.
    """
    native = precision_name(choose_precision("native", device))
    facts, shapes = environment(), [list(tensor.shape[1:]) for tensor in tensors_of(sample)]
    subject = {
        "network": _digest(student),
        "image": shapes[0] if len(shapes) == 1 else shapes,
        "batch": batch_size,
        "optimizer": optim.optimizer,
        "device": device.type,
        **{fact: facts[fact] for fact in ("gpu", "processor", "threads", "torch")},
    }
    key = hashlib.sha256(json.dumps(subject, sort_keys=True).encode()).hexdigest()[:32]
    file = cache_folder().parent / "precision.json"
    with ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(
                FileLock(file.with_suffix(".lock"))
            )  # while it measures: two at once disturb each other
        except OSError as error:
            report(f"the precision is measured in every run: {writing_failed(file, error)}")
        found = _read(file)
        if key in found:
            return str(found[key]["precision"])
        batch = map_inputs(lambda tensor: tensor.expand(batch_size, *tensor.shape[1:]), sample)
        times = step_times(student, batch, optim, device)
        chosen, seconds = fastest(times, native), {name: min(taken) for name, taken in times.items()}
        report(f"a training step takes {_in_words(seconds)}: {chosen} is used here from now on")
        try:
            found[key] = {"precision": chosen, "seconds": seconds, **subject}
            write_atomically(file, (json.dumps(found, indent=1) + "\n").encode())
        except ModelCompressionError as error:
            report(f"the precision is measured in every run: {error}")
    return chosen


def fastest(times: Mapping[str, Sequence[float]], native: str) -> str:
    """The precision with the least time of a step; ``native`` unless another is faster in its median time too."""
    best = min(times, key=lambda name: min(times[name]), default=native)
    if native in times and any(kind(times[native]) <= kind(times[best]) * TIE for kind in (min, statistics.median)):
        return native
    return best


def candidates(device: torch.device) -> tuple[str, ...]:
    """The precisions that can be fastest on ``device``. On a processor float16 never is."""
    return ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16")


def step_times(
    student: Network, inputs: Inputs, optim: OptimConfig, device: torch.device, seconds: float = _SECONDS
) -> dict[str, list[float]]:
    """Seconds of training steps on ``inputs`` (B, …) in each precision; one that fails is left out.

    The precisions take turns for ``seconds``. On a processor only the time counts in which this thread computes, which
    other programs hardly change.
    """
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    steps: dict[str, Callable[[], None]] = {}
    times: dict[str, list[float]] = {}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for name in candidates(device):
            step = _step(student, inputs, optim, device, PRECISIONS[name])
            try:
                step()  # the first one prepares kernels
            except (RuntimeError, MemoryError):
                give_freed_memory_back(device)
                continue
            steps[name], times[name] = step, []
        end = time.perf_counter() + seconds
        for number in range(_MOST_ROUNDS):
            if number >= _FEWEST_ROUNDS and time.perf_counter() > end:
                break
            for name, step in steps.items():
                begun = clock()
                step()
                times[name].append(clock() - begun)
    return times


def _step(
    student: Network, inputs: Inputs, optim: OptimConfig, device: torch.device, precision: torch.dtype
) -> Callable[[], None]:
    """A training step as `Trainer` does it, on a copy of ``student``, with a loss of the size of the usual ones."""
    network = place(copy.deepcopy(student), device).train()
    optimizer = build_optimizer(network, optim)
    scaler = torch.amp.GradScaler(device.type, init_scale=1.0, enabled=precision == torch.float16)
    placed = map_inputs(lambda tensor: tensor.contiguous().to(device), inputs)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        prepared = network.preprocessing(placed)
        with autocast(device, precision):
            logits = network(prepared)
        loss = logits.float().logsumexp(dim=1).mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        float(next(network.parameters()).detach().flatten()[0])  # waits for the device

    return step


def _digest(network: Network) -> str:
    """Of layers and shapes; weights do not matter."""
    shapes = [(name, list(tensor.shape)) for name, tensor in network.state_dict().items()]
    return hashlib.sha256(json.dumps([repr(network), shapes]).encode()).hexdigest()[:32]


def _read(file: Path) -> dict[str, Any]:
    """What was measured; what cannot be read is measured again."""
    try:
        found = json.loads(file.read_text())
        return {key: entry for key, entry in found.items() if entry["precision"] in PRECISIONS}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def _in_words(seconds: Mapping[str, float]) -> str:
    return " and ".join(f"{1000 * taken:.3g} ms in {name}" for name, taken in seconds.items())
