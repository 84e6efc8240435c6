"""Prunes a trained network in steps, and fine-tunes it by distillation after each; every fine-tuning is a run.

A folder holds prune.json, the network that each step starts from (step-1.safetensors, …), the runs step-1, step-2, …
and ``final``, whose network is the result. Each step removes the same share, and the last one is trained longest.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_compression.checks.networks import check_classes
from model_compression.compression.budget import share_that_fits, time_of_one_image
from model_compression.compression.channels import check_reachable, cost_of, cut_channels, shown_images
from model_compression.compression.config import PruneConfig
from model_compression.compression.repair import check_repair
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import HERE, locate
from model_compression.core.errors import FileFormatError
from model_compression.core.files import seen_from_here
from model_compression.data.dataset import Dataset
from model_compression.engine.observer import Observer
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_run
from model_compression.engine.teachers import check_cache_place
from model_compression.engine.training import StageOfRuns
from model_compression.models.base import Network
from model_compression.models.factored import as_factored
from model_compression.models.loading import read_model
from model_compression.models.sparse import as_sparse, density_of
from model_compression.models.weights import find_weights, save_weights
from model_compression.tasks import task_of

_NAMES = {"macs": "MACs", "params": "parameters", "weights": "weights that are not zero"}


class Pruning(StageOfRuns[PruneConfig]):
    """Cuts and fine-tunes in turn; the result of each step is a run."""

    KIND, FILE, NOUN = PruneConfig, "prune.json", "pruning"

    @property
    def result(self) -> Path:
        """The run after the last cut."""
        return self.folder / "final"

    def is_done(self) -> bool:
        """Whether the last run is finished."""
        return RunFolder(self.result).is_finished()

    def check(self) -> PruneConfig:
        """Tries the first fine-tuning, on the network as it is, and whether it can be cut so far."""
        config = locate(self.config, self.folder)
        check_repair(config.run)
        check_cache_place(config.run)
        network = read_model(find_weights(config.model))
        train, _ = self.parts.load_data(config.run, self.observer.message)
        check_classes("model", network, train, has_size_option=False)
        own = dataclasses.replace(config.run, student=ModelConfig(name=config.model), teacher_cache="off")
        check_run(own, self.parts)
        if config.resource == "latency":
            return self._for_latency(config, network, train)
        if config.resource != "weights":
            target = _target(config, network, config.share, train)
            check_reachable(
                _cuttable(config, network), config.resource, target, train.image_shape, config.round_to, self.observer
            )
        return self.config

    def _for_latency(self, config: PruneConfig, network: Network, train: Dataset) -> PruneConfig:
        """The configuration with the share of the MACs that takes the wanted share of the time, as measured now."""
        shape, report = train.image_shape, self.observer.message
        report(f"looking for the size with {config.share:.0%} of the latency")
        allowed = config.share * time_of_one_image(network, shape)
        share = share_that_fits(
            network, train, "macs", lambda one: time_of_one_image(one, shape) <= allowed, config, self.observer
        )
        report(f"that is {share:.1%} of the MACs")
        return dataclasses.replace(self.config, resource="macs", share=share)

    def run(self) -> dict[str, dict[str, Any]]:
        """The metrics of each step by name."""
        metrics = self.finish_runs(self._repairs())
        for name, share in shares(self.config).items():
            network = read_model(RunFolder(self.folder / name).student)
            metrics[name] |= {"share": share, "density": density_of(network)}
        return metrics

    def _repairs(self) -> Iterator[tuple[str, TrainConfig, str]]:
        """The run after each cut; what it begins with is cut from the result of the one before."""
        config, plan = locate(self.config, self.folder), shares(self.config)
        source = find_weights(config.model)
        for number, (name, share) in enumerate(plan.items(), start=1):
            run, start = RunFolder(self.folder / name), self.folder / f"{name}.safetensors"
            if not (run.is_finished() or _is_whole(start)):
                save_weights(start, self._cut(config, source, share))
            student = ModelConfig(name=f"{HERE}../{start.name}")  # beside the run, wherever the folder is moved
            epochs = config.run.epochs if name == "final" else config.step_epochs
            line = f"{name}, step {number} of {len(plan)}: {share:.1%} of the {_NAMES[config.resource]}"
            yield name, dataclasses.replace(config.run, student=student, epochs=epochs), line
            source = run.student

    def _cut(self, config: PruneConfig, source: Path, share: float) -> Network:
        """What a step begins with: the network of ``source`` without what the step takes."""
        network = read_model(source)
        if config.resource == "weights":
            return as_sparse(network, share)
        train, _ = self.parts.load_data(config.run, self.observer.message)
        original = read_model(find_weights(config.model))
        assert config.resource in ("macs", "params")
        self.observer.message(f"estimating the worth of each channel of {seen_from_here(source)}")
        if source == find_weights(config.model):
            network = _cuttable(config, network)
        return cut_channels(
            network,
            list(shown_images(train, config.run.seed)),
            resource=config.resource,
            target=_target(config, original, share, train),
            round_to=config.round_to,
            seed=config.run.seed,
            kind=task_of(train).answer,
        )


@checked_arguments
def prune(config: PruneConfig, folder: str | Path, observer: Observer | None = None) -> dict[str, dict[str, Any]]:
    """Prunes and fine-tunes in a new ``folder``; returns the metrics of each step by name; the last are the result.

    Raises RunFolderError when the folder is taken, UsageError, before anything is written, when the network cannot be
    pruned so far, Interrupted after a signal, and what `start_run` raises.
    """
    return Pruning(config, folder, observer).start()


def shares(config: PruneConfig) -> dict[str, float]:
    """What is left after each step, by its name: the steps spare alike."""
    names = [*(f"step-{number}" for number in range(1, config.steps)), "final"]
    return {name: config.share ** ((number + 1) / config.steps) for number, name in enumerate(names)}


def _is_whole(path: Path) -> bool:
    try:
        read_model(path)
    except FileFormatError:  # not there, or damaged: the same is cut again
        return False
    return True


def _cuttable(config: PruneConfig, network: Network) -> Network:
    return as_factored(network) if config.low_rank else network


def _target(config: PruneConfig, original: Network, share: float, data: Dataset) -> int:
    assert config.resource in ("macs", "params")
    return round(share * cost_of(original, config.resource, data.image_shape))
