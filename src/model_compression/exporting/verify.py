"""Whether a file answers as the network that it was made of: compared on all samples, by the file's own runtime."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import ModelCompressionError, UsageError
from model_compression.core.files import user_path
from model_compression.core.inputs import Inputs, map_inputs
from model_compression.core.metric import Metric
from model_compression.data.dataset import Dataset
from model_compression.data.streaming import loader_for
from model_compression.exporting.runtimes import ExportedFile, open_file
from model_compression.models.base import Network
from model_compression.models.prediction import batch_size
from model_compression.tasks import Changes, Task, task_of

BOUND = 1e-4  # of the logits' range


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Network and file on ``images`` samples.

    ``largest_difference`` of a logit; ``logit_range``, largest less smallest logit of the network; ``value`` of the
    primary ``metric`` of the file, with its 95 % ``interval`` where there is one, and ``reference_value`` of the
    network. ``changes`` are the images whose answers a user would call another one, see `tasks.base.Changes`;
    ``agreement`` is that of the task between file and network.
    """

    metric: Metric
    images: int
    largest_difference: float
    logit_range: float
    value: float
    reference_value: float
    interval: tuple[float, float] | None
    changes: Changes
    agreement: float
    noun: str = "images"
    """What the samples are."""
    judged_by_labels: bool = True
    """See `Task`: without labels ``agreement`` alone says what a file of fewer bits keeps."""

    @property
    def relative_difference(self) -> float:
        """The largest difference as a share of the logits' range."""
        return self.largest_difference / self.logit_range if self.logit_range else self.largest_difference

    @property
    def drop(self) -> float:
        """What the file loses of the network's primary metric, as it is shown: of a share in points of a hundred."""
        return round(self.metric.factor * self.metric.gain(self.reference_value, self.value), 9)

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
            noun = self.noun
            return f"{len(wrong)} of {self.images} {noun} get another {kind}, the first is number {wrong[0]}"
        return None

    def drop_fault(self, max_drop: float) -> str | None:
        """What is wrong with a file of fewer bits, None for one that loses at most ``max_drop``, as `drop` counts.

        Without labels it may lose as many points of ``agreement`` as well.
        """
        metric, lost = self.metric, 100 * (1 - self.agreement)
        if not self.judged_by_labels and not lost <= max_drop:
            return (
                f"its answers agree with the network's to {self.agreement:.2%}, {lost:.2f} points less than all; "
                f"at most {max_drop:g} are accepted"
            )
        if self.drop <= max_drop:
            return None
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
    if known.task.removesuffix("-unlabelled") != dataset.task.removesuffix("-unlabelled"):
        raise UsageError(f"{path} is of the task {known.task!r}, and {dataset.name} of {dataset.task!r}")
    size = dataset.image_shape if dataset.holds_images else ()
    fits = known.image_shape[:1] == size[:1] if known.is_of_any_size else known.image_shape == size
    if not fits or known.class_names != dataset.class_names:
        taken = f"images of {known.image_shape}" if known.image_shape else ", ".join(one.name for one in known.inputs)
        raise UsageError(
            f"{path} takes {taken} and knows the classes {', '.join(known.class_names[:5])} …; "
            f"{dataset.name} has {dataset.noun}{f' of {size}' if size else ''} and "
            f"{', '.join(dataset.class_names[:5])} …"
        )
    network = network.deployed().cpu().eval()
    task, done = task_of(dataset, network.facts), 0
    largest, highest, lowest = torch.tensor(0.0), torch.tensor(-torch.inf), torch.tensor(torch.inf)
    kept: list[tuple[Tensor, Tensor]] = []
    for inputs in inputs_of(dataset, [network]):
        prepared = network.preprocessing(inputs)
        found = _run(file, inputs if known.preprocessing_inside else prepared)
        reference = network(prepared) if expected is None else expected[done : done + len(found)]
        if found.shape != reference.shape:
            raise ModelCompressionError(
                f"{path} answers with {tuple(found.shape)}, the network {tuple(reference.shape)}"
            )
        done += len(found)
        largest = torch.maximum(largest, (found - reference).abs().max())  # NaN stays NaN
        highest, lowest = torch.maximum(highest, reference.max()), torch.minimum(lowest, reference.min())
        kept.append((task.kept(found), task.kept(reference)))
    both = [torch.cat(side) for side in zip(*kept, strict=True)]
    targets = task.tensor_of(dataset)
    return verification_of(both[0], both[1], targets, task, dataset.noun, float(largest), float(highest - lowest))


def answers_of(path: Path, dataset: Dataset) -> Tensor:
    """What the task keeps of the logits of a file with its preprocessing inside, for every sample of ``dataset``."""
    file, keep = open_file(path), task_of(dataset).kept
    return torch.cat([keep(_run(file, inputs)) for inputs in inputs_of(dataset)])


def _run(file: ExportedFile, inputs: Inputs) -> Tensor:
    arrays: Any = map_inputs(lambda tensor: tensor.contiguous().numpy(), inputs)  # type: ignore[arg-type, return-value]
    return torch.from_numpy(file.run(arrays))


def inputs_of(dataset: Dataset, networks: Iterable[Network] = ()) -> Iterator[Inputs]:
    """All samples, in index order, in batches that ``networks`` can answer, on the CPU."""
    loader = loader_for(dataset, DataConfig(name=dataset.name), torch.device("cpu"))
    return (batch.inputs for batch in loader.in_order(view=0, batch_size=batch_size(dataset, networks)))


def verification_of(
    found: Tensor, reference: Tensor, targets: Tensor, task: Task, noun: str, largest: float, logit_range: float
) -> Verification:
    """The figures of what the task keeps of the logits (N, …) of file and network; ``targets`` are the labels."""
    value = task.value(found, targets)
    agreement = task.agreement(task.compared(found, targets), task.compared(reference, targets))
    return Verification(
        metric=task.metric,
        images=len(found),
        largest_difference=largest,
        logit_range=logit_range,
        value=value,
        reference_value=task.value(reference, targets),
        interval=task.interval(value, len(found)),
        changes=task.changes(found, reference, largest),
        agreement=agreement,
        noun=noun,
        judged_by_labels=task.judged_by_labels,
    )
