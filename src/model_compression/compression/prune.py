"""Prunes a trained network in steps, each repaired by distillation; every repair is a run of its own.

A folder holds prune.json, what each step began with, as step-1.safetensors, the runs step-1, step-2, … and ``final``,
whose network is the result. The steps spare the same share each, and the last one is trained longest.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from model_compression.checks.networks import check_classes
from model_compression.compression.channels import ROUND_TO, check_reachable, cost_of, cut_channels
from model_compression.compression.repair import checked_repair
from model_compression.compression.stages import begin, check_new, read, stage
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import HERE, ModelConfig, TrainConfig, located
from model_compression.core.config_values import Config, PathText
from model_compression.core.errors import FileFormatError, RunFolderError, UsageError
from model_compression.core.files import user_path
from model_compression.data.dataset import Dataset
from model_compression.engine.observer import Observer, Silent
from model_compression.engine.parts import Parts
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_run, finish_run
from model_compression.engine.teachers import check_cache_place, load_data
from model_compression.models.base import Network
from model_compression.models.factored import as_factored
from model_compression.models.sparse import as_sparse, density_of
from model_compression.models.weights import find_weights, read_model, save_weights

FILE = "prune.json"
MOST_STEPS = 1000
_SHOWN, _BATCH = 1024, 64  # images that show what channels are worth
_NAMES = {"macs": "MACs", "params": "parameters", "weights": "weights that are not zero"}


@dataclass(frozen=True, kw_only=True)
class PruneConfig(Config):
    """What is pruned, how far, and how it is repaired."""

    model: PathText
    """A run, a weights file or a shipped network."""
    run: TrainConfig
    """How each step is repaired; its student is replaced. Its epochs are those of the last step."""
    resource: Literal["macs", "params", "weights"] = "macs"
    """What is spared: multiply-accumulates or parameters, by whole channels, or single weights, which become zero."""
    share: float
    """Of the resource that is left in the end, between 0 and 1."""
    steps: int = 4
    step_epochs: int = 2
    """Epochs of the repair after each step but the last."""
    low_rank: bool = False
    """Whether large inner products lose rank as well: each is written as a product of two before the first cut."""
    round_to: int = ROUND_TO
    """Every layer that loses channels keeps a multiple of it."""

    def check(self) -> None:
        """Checks the values."""
        if not 0 < self.share < 1:
            raise UsageError(f"the share that is left must lie between 0 and 1, got {self.share}; 0.5 leaves half")
        for name in ("steps", "step_epochs", "round_to"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.steps > MOST_STEPS:
            raise UsageError(f"steps must be at most {MOST_STEPS}, got {self.steps}; 2 to 10 are usual")
        if self.low_rank and self.resource == "weights":
            raise UsageError("low_rank has no effect on single weights; leave it out")
        if self.round_to != ROUND_TO and self.resource == "weights":
            raise UsageError("round_to has no effect on single weights; leave it out")
        checked_repair(self.run)


@checked_arguments
def prune(config: PruneConfig, folder: str | Path, observer: Observer | None = None) -> dict[str, dict[str, Any]]:
    """Prunes and repairs in a new ``folder``; returns the metrics of each step by name, the last one's the result.

    Raises RunFolderError when the folder is taken, UsageError, before anything is written, when the network cannot be
    pruned so far, Interrupted after a signal, and what `start_run` raises.
    """
    folder, observer = user_path(folder), observer or Silent()
    check_new(folder)
    check_prune(located(config, folder), observer)
    begin(folder, FILE, config)
    return _finish(config, folder, observer)


@checked_arguments
def resume_prune(folder: str | Path, observer: Observer | None = None) -> dict[str, dict[str, Any]]:
    """Continues what was interrupted; returns what `prune` does. Raises RunFolderError when nothing is left to do."""
    folder = user_path(folder)
    config = read(PruneConfig, folder / FILE)
    if RunFolder(folder / "final").is_finished():
        raise RunFolderError(f"{folder} is finished: there is nothing to resume; its result is in {folder / 'final'}")
    return _finish(config, folder, observer or Silent())


def finish_prune(config: PruneConfig, folder: Path, observer: Observer) -> dict[str, dict[str, Any]]:
    """The metrics of what is finished, resumed or made anew, whichever ``folder`` asks for."""
    if not (folder / FILE).exists():
        return prune(config, folder, observer)
    if located(read(PruneConfig, folder / FILE), folder) != located(config, folder):
        raise RunFolderError(f"{folder} holds another pruning; choose another --out, or delete it")
    return _finish(config, folder, observer)


def check_prune(config: PruneConfig, observer: Observer) -> None:
    """Raises what `prune` would raise before it makes its folder."""
    check_cache_place(config.run)
    network = read_model(find_weights(config.model))
    data = load_data(config.run.data, observer.message)
    check_classes("model", network, data[0], has_size_option=False)
    own = dataclasses.replace(config.run, student=ModelConfig(name=config.model), teacher_cache="off")
    check_run(own, Parts(data=data))
    if config.resource != "weights":
        target = _target(config, network, config.share, data[0])
        check_reachable(_cuttable(config, network), config.resource, target, data[0].image_shape, config.round_to)


def shares(config: PruneConfig) -> dict[str, float]:
    """What is left after each step, by its name: the steps spare alike."""
    names = [*(f"step-{number}" for number in range(1, config.steps)), "final"]
    return {name: config.share ** ((number + 1) / config.steps) for number, name in enumerate(names)}


def _finish(config: PruneConfig, folder: Path, observer: Observer) -> dict[str, dict[str, Any]]:
    config = located(config, folder)
    source, metrics = find_weights(config.model), {}
    plan = shares(config)
    for number, (name, share) in enumerate(plan.items(), start=1):
        run, start = RunFolder(folder / name), folder / f"{name}.safetensors"
        epochs = config.run.epochs if name == "final" else config.step_epochs
        student = ModelConfig(name=f"{HERE}../{start.name}")  # beside the run, wherever the folder is moved
        repaired = dataclasses.replace(config.run, student=student, epochs=epochs)
        if run.is_finished():  # whatever the folder was called when it was made
            metrics[name] = run.read_metrics()
        else:
            if not _is_whole(start):
                save_weights(start, _cut(config, source, share, observer))
            observer.message(f"{name}, step {number} of {len(plan)}: {share:.1%} of the {_NAMES[config.resource]}")
            with stage(name, folder):
                metrics[name] = finish_run(repaired, run.path, observer)
        source = run.student
        metrics[name] |= {"share": share, "density": density_of(read_model(source))}
    return metrics


def _is_whole(path: Path) -> bool:
    try:
        read_model(path)
    except FileFormatError:  # not there, or damaged: the same is cut again
        return False
    return True


def _cut(config: PruneConfig, source: Path, share: float, observer: Observer) -> Network:
    """What a step begins with: the network of ``source`` without what the step takes."""
    network = read_model(source)
    if config.resource == "weights":
        return as_sparse(network, share)
    train, _ = load_data(config.run.data, observer.message)
    original = read_model(find_weights(config.model))
    target = _target(config, original, share, train)
    observer.message(f"looking for what is worth least in {source}")
    if source == find_weights(config.model):
        network = _cuttable(config, network)
    return cut_channels(
        network, list(shown_images(train, config.run.seed)), resource=config.resource, target=target,
        round_to=config.round_to, seed=config.run.seed,
    )  # fmt: skip


def _cuttable(config: PruneConfig, network: Network) -> Network:
    return as_factored(network) if config.low_rank else network


def _target(config: PruneConfig, original: Network, share: float, data: Dataset) -> int:
    assert config.resource != "weights"
    return round(share * cost_of(original, config.resource, data.image_shape))


def shown_images(train: Dataset, seed: int, count: int = _SHOWN) -> Iterator[Tensor]:
    """Batches (B, C, H, W) uint8 of ``count`` training images."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:count]
    return (torch.from_numpy(train.images[batch.sort().values.numpy()]) for batch in order.split(_BATCH))
