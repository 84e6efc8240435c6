"""Whether a file answers as the network that it was made of: compared on all images, by the file's own runtime."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model_compression.core.config import DataConfig
from model_compression.core.errors import ModelCompressionError, UsageError
from model_compression.core.files import user_path
from model_compression.core.metric import Metric
from model_compression.data.dataset import Dataset
from model_compression.data.streaming import loader_for
from model_compression.exporting.runtimes import open_file
from model_compression.models.base import Network
from model_compression.tasks import Changes, Task, task_of

BOUND = 1e-4  # of the logits' range
_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Network and file on ``images`` images.

    ``largest_difference`` of a logit; ``logit_range``, largest less smallest logit of the network; ``value`` of the
    primary ``metric`` of the file, with its 95 % ``interval`` where there is one, and ``reference_value`` of the
    network. ``changes`` are the images whose answers a user would call another one, see `tasks.base.Changes`.
    """

    metric: Metric
    images: int
    largest_difference: float
    logit_range: float
    value: float
    reference_value: float
    interval: tuple[float, float] | None
    changes: Changes

    @property
    def relative_difference(self) -> float:
        """The largest difference as a share of the logits' range."""
        return self.largest_difference / self.logit_range if self.logit_range else self.largest_difference

    @property
    def drop(self) -> float:
        """What the file loses of the network's primary metric, as it is shown: of accuracy in points of a hundred."""
        return round(self.metric.factor * self.metric.gain(self.reference_value, self.value), 9)

    @property
    def agreement(self) -> float:
        """Share of the images for which file and network give the same answer, 0 to 1."""
        return 1 - len(self.changes.others) / self.images

    def fault(self, bound: float = BOUND) -> str | None:
        """What is wrong, None for a file that answers alike: within ``bound``, and other answers in ties only."""
        if not self.relative_difference <= bound:  # also NaN
            return (
                f"logits differ by up to {self.largest_difference:.3g}, {self.relative_difference:.1e} of their range "
                f"of {self.logit_range:.3g}; at most {bound:.0e} is accepted"
            )
        wrong = sorted(set(self.changes.others) - set(self.changes.ties))
        if wrong:
            kind = self.changes.kind
            return f"{len(wrong)} of {self.images} images get another {kind}, the first is image {wrong[0]}"
        return None

    def drop_fault(self, max_drop: float) -> str | None:
        """What is wrong with a file of fewer bits, None for one that loses at most ``max_drop``, as `drop` counts."""
        if self.drop <= max_drop:
            return None
        metric = self.metric
        return (
            f"its {metric.label} is {metric.text(self.value)}, {self.drop:.2f} {metric.gain_unit} below the network's "
            f"{metric.text(self.reference_value)}; at most {max_drop:g} are accepted"
        )


@torch.no_grad()
def verify(path: str | Path, network: Network, dataset: Dataset, *, expected: Tensor | None = None) -> Verification:
    """Compares the file at ``path`` with ``network``, in float32 on the CPU, on every image of ``dataset``.

    ``expected``: the network's logits (N, K), where they are known. Raises UsageError when the file is of other classes
    or another size of images, MissingExtraError without its runtime, and FileFormatError.
    """
    file = open_file(user_path(path))
    known = file.metadata
    if known.task != dataset.task:
        raise UsageError(f"{path} is of the task {known.task!r}, and {dataset.name} of {dataset.task!r}")
    if known.image_shape != dataset.image_shape or known.class_names != dataset.class_names:
        raise UsageError(
            f"{path} takes images of {known.image_shape} and knows the classes {', '.join(known.class_names[:5])} …; "
            f"{dataset.name} has {dataset.image_shape} and {', '.join(dataset.class_names[:5])} …"
        )
    network = network.deployed().cpu().eval()
    answers, references = [], []
    for images in pixels_of(dataset):
        inputs = network.preprocessing(images)
        given = images if file.metadata.preprocessing_inside else inputs
        answers.append(torch.from_numpy(file.run(given.contiguous().numpy())))
        if expected is None:
            references.append(network(inputs))
    found, reference = torch.cat(answers), torch.cat(references) if expected is None else expected
    if found.shape != reference.shape:
        raise ModelCompressionError(f"{path} answers with {tuple(found.shape)}, the network {tuple(reference.shape)}")
    return compare_answers(found, reference, torch.from_numpy(dataset.labels), task_of(dataset))


def answers_of(path: Path, dataset: Dataset) -> Tensor:
    """Logits (N, K) of a file with its preprocessing inside, for every image of ``dataset``."""
    file = open_file(path)
    return torch.cat([torch.from_numpy(file.run(images.contiguous().numpy())) for images in pixels_of(dataset)])


def pixels_of(dataset: Dataset) -> Iterator[Tensor]:
    """All images, in index order, in batches (B, C, H, W) uint8 on the CPU."""
    loader = loader_for(dataset, DataConfig(name=dataset.name), torch.device("cpu"))
    return (batch.inputs for batch in loader.in_order(view=0, batch_size=_BATCH))


def compare_answers(found: Tensor, reference: Tensor, targets: Tensor, task: Task) -> Verification:
    """The figures of logits ``found`` (N, …) held against ``reference`` (N, …); ``targets`` are the labels (N, …)."""
    largest = float((found - reference).abs().max())
    value = task.value(found, targets)
    return Verification(
        metric=task.metric,
        images=len(found),
        largest_difference=largest,
        logit_range=float(reference.max() - reference.min()),
        value=value,
        reference_value=task.value(reference, targets),
        interval=task.interval(value, len(found)),
        changes=task.changes(found, reference, largest),
    )
