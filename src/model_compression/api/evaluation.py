"""`evaluate`: how good a network is."""

import time
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from model_compression.api.argument_texts import described
from model_compression.api.embedding import load_as_embedding, vectors_of
from model_compression.api.inputs import Data, Model, give_names, load_datasets, load_network, watched
from model_compression.checks.networks import ENOUGH
from model_compression.checks.teacher import examine_teacher
from model_compression.core.argument_checks import checked_arguments
from model_compression.core.device import choose_device, choose_precision
from model_compression.core.errors import UsageError
from model_compression.core.metric import Metric
from model_compression.core.options import setting
from model_compression.data.dataset import Dataset
from model_compression.engine.console_observer import ConsoleObserver
from model_compression.engine.observer import Observer
from model_compression.models.base import Network
from model_compression.models.copies import place
from model_compression.models.prediction import predict
from model_compression.reports.sections.neighbours import effective_rank
from model_compression.tasks import task_of
from model_compression.tasks.embedding.judgement import judge


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """How good a network is on ``samples`` samples, which are ``noun``, as "images".

    ``figures`` by name, the primary ``metric`` first; ``stated`` is what the network's file says of it on the test set
    of its own data; ``logits`` (N, …) float32 in the order of the dataset, or what the task keeps of them: of
    segmentation the classes (N, H, W) uint8.
    """

    metric: Metric
    figures: dict[str, float]
    samples: int
    stated: float | None
    seconds: float
    logits: torch.Tensor
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 % intervals (Wilson) of the figures that are shares, where ``knn`` was asked for."""
    noun: str = "samples"

    @property
    def value(self) -> float:
        """The primary metric, as accuracy, 0 to 1."""
        return self.figures[self.metric.name]

    def __repr__(self) -> str:
        others = "".join(f", {name} {value:.4g}" for name, value in list(self.figures.items())[1:])
        return f"<{self.metric.label} {self.metric.text(self.value)}{others} on {self.samples:,} {self.noun}>"


@described
@checked_arguments
def evaluate(
    model: Model,
    data: Data = None,
    *,
    split: Literal["test", "train"] = "test",
    knn: bool = False,
    window: int = 0,
    device: str = "auto",
    precision: str = "auto",
    observer: Observer | None = None,
    progress: bool | None = None,
    trust: bool = False,
) -> Evaluation:
    """Measures how good a trained network is.

    Example:
        >>> mc.evaluate("runs/labels")
        <accuracy ...%, nll ..., ece ... on ... images>

    Args:
        model: a shipped network, a run folder, a weights file, "hf:NAME", a `ModelConfig` with options, or a module.
        data: as `distill` takes it; None: the run's own, else CIFAR-10.
        split: which of the two sets.
        knn: whether the network, without its classifier, is judged by its embeddings: a weighted vote of the 20 nearest
            training images, a linear probe, and the effective rank. A module must answer with embeddings.
        window: of a segmentation, the side in pixels of windows that overlap by half, in which images are answered; the
            logits of a pixel are averaged. 0: whole images.
        device, precision: `api.argument_texts`.
        observer, progress, trust: `api.argument_texts`.

    Raises:
        UsageError: the network does not fit the data, or an argument cannot be.
    """
    give_names(model, data)
    chosen, kind = choose_device(device), choose_precision(precision, choose_device(device))
    if knn and split == "train":
        raise UsageError(f"{setting('knn')} judges test images by training images; leave {setting('split')} out")
    with watched(observer, progress, trust) as watcher:
        if knn:
            return _judged(model, data, chosen, kind, watcher)
        train, test = load_datasets(data, model, watcher)
        dataset = test if split == "test" else train
        network = load_network(model, dataset, watcher)
        if (window and not dataset.has_masks) or window < 0:
            raise UsageError(
                f"{setting('window', window)} must be a side in pixels, for images with masks; leave it out"
            )
        found = evaluate_on(network, dataset, chosen, kind, watcher, split, window)
        if isinstance(model, nn.Module) and dataset.labelled and len(dataset) >= ENOUGH:
            _say_what_is_wrong(network, train, dataset, chosen, watcher)
        return found


def _judged(model: Model, data: Data, device: torch.device, precision: torch.dtype, watcher: Observer) -> Evaluation:
    """The worth of embeddings for the classes of a dataset."""
    begun = time.monotonic()
    train, test = load_as_embedding(data, model, watcher)
    if not (train.labelled and test.labelled):
        unlabelled = train if not train.labelled else test
        raise UsageError(f"{unlabelled.name} has no labels, by which {setting('knn')} judges; give a labelled dataset")
    network = load_network(model, test, watcher)
    known, vectors = (vectors_of(network, one, device, precision, watcher, one.name) for one in (train, test))
    task = task_of(test)
    found = judge(known, task.tensor_of(train)[:, 0], vectors, task.tensor_of(test)[:, 0])
    return Evaluation(
        metric=task.metric,
        figures={"knn": found.knn.share, "linear_probe": found.probe.share, "rank": effective_rank(vectors.numpy())},
        intervals={"knn": found.knn.interval, "linear_probe": found.probe.interval},
        samples=len(test),
        noun=test.noun,
        stated=None,
        seconds=time.monotonic() - begun,
        logits=vectors,
    )


def _say_what_is_wrong(
    network: Network, train: Dataset, dataset: Dataset, device: torch.device, watcher: Observer
) -> None:
    """A module says nothing of its pixels and its classes: what its answers show of them is a line each."""
    for finding in examine_teacher(network, train, dataset, device):
        if finding.level == "fail":
            watcher.message(f"{finding.subject} of the module, which gets normalised pixels: {finding.text}")


def evaluate_on(
    network: Network,
    dataset: Dataset,
    device: torch.device,
    precision: torch.dtype,
    watcher: Observer,
    split: str,
    window: int = 0,
) -> Evaluation:
    """How good ``network``, which has been checked, is on ``dataset``, the ``split`` of its data."""
    begun = time.monotonic()
    bar = watcher.counter(split, len(dataset)) if isinstance(watcher, ConsoleObserver) else None
    task = task_of(dataset, network.facts)
    logits = predict(place(network, device), dataset, device, precision, bar, keep=task.kept, window=window)
    seconds = time.monotonic() - begun
    targets = task.tensor_of(dataset)
    stated = network.facts.get(task.metric.key("test")) if split == "test" else None
    return Evaluation(
        metric=task.metric,
        figures=task.figures(logits, targets) | task.further_figures(logits, targets, dataset),
        samples=len(dataset),
        noun=dataset.noun,
        stated=stated if isinstance(stated, float) else None,
        seconds=seconds,
        logits=logits,
    )
