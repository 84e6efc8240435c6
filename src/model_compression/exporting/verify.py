"""Whether a file answers as the network that it was made of: compared on all images, by the file's own runtime."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model_compression.core.config import DataConfig
from model_compression.core.errors import ModelCompressionError, UsageError
from model_compression.core.files import user_path
from model_compression.data.dataset import Dataset
from model_compression.data.streaming import loader_for
from model_compression.exporting.runtimes import open_file
from model_compression.models.base import Network
from model_compression.reports.statistics import Proportion

BOUND = 1e-4  # of the logits' range
_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Network and file on ``images`` images.

    ``largest_difference`` of a logit; ``logit_range``, largest less smallest logit of the network; ``others``, the
    numbers of images for which they choose different classes, and ``ties``, those among them whose two classes differ
    by no more than the largest difference could turn; ``correct``, how often the file is right, and
    ``reference_correct``, how often the network is.
    """

    images: int
    largest_difference: float
    logit_range: float
    others: tuple[int, ...]
    ties: tuple[int, ...]
    correct: int
    reference_correct: int

    @property
    def relative_difference(self) -> float:
        """The largest difference as a share of the logits' range."""
        return self.largest_difference / self.logit_range if self.logit_range else self.largest_difference

    @property
    def accuracy(self) -> float:
        """Of the file, 0 to 1."""
        return self.correct / self.images

    @property
    def drop(self) -> float:
        """What the file loses of the network's accuracy, in points of a hundred."""
        return 100 * (self.reference_correct - self.correct) / self.images

    @property
    def agreement(self) -> float:
        """Share of the images for which file and network choose the same class, 0 to 1."""
        return 1 - len(self.others) / self.images

    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson 1927)."""
        return Proportion(count=self.correct, total=self.images).interval

    def fault(self, bound: float = BOUND) -> str | None:
        """What is wrong, None for a file that answers alike: within ``bound``, and other classes in ties only."""
        if not self.relative_difference <= bound:  # also NaN
            return (
                f"logits differ by up to {self.largest_difference:.3g}, {self.relative_difference:.1e} of their range "
                f"of {self.logit_range:.3g}; at most {bound:.0e} is accepted"
            )
        wrong = sorted(set(self.others) - set(self.ties))
        if wrong:
            return f"{len(wrong)} of {self.images} images get another class, the first is image {wrong[0]}"
        return None

    def drop_fault(self, max_drop: float) -> str | None:
        """What is wrong with a file of fewer bits, None for one that loses at most ``max_drop`` points of accuracy."""
        if self.drop <= max_drop:
            return None
        reference = self.reference_correct / self.images
        return (
            f"its accuracy is {self.accuracy:.2%}, {self.drop:.2f} points below the network's {reference:.2%}; at most "
            f"{max_drop:g} are accepted"
        )


@torch.no_grad()
def verify(path: str | Path, network: Network, dataset: Dataset, *, expected: Tensor | None = None) -> Verification:
    """Compares the file at ``path`` with ``network``, in float32 on the CPU, on every image of ``dataset``.

    ``expected``: the network's logits (N, K), where they are known. Raises UsageError when the file is of other classes
    or another size of images, MissingExtraError without its runtime, and FileFormatError.
    """
    file = open_file(user_path(path))
    known = file.metadata
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
    return compared(found, reference, torch.from_numpy(dataset.labels))


def answers_of(path: Path, dataset: Dataset) -> Tensor:
    """Logits (N, K) of a file with its preprocessing inside, for every image of ``dataset``."""
    file = open_file(path)
    return torch.cat([torch.from_numpy(file.run(images.contiguous().numpy())) for images in pixels_of(dataset)])


def pixels_of(dataset: Dataset) -> Iterator[Tensor]:
    """All images, in index order, in batches (B, C, H, W) uint8 on the CPU."""
    loader = loader_for(dataset, DataConfig(name=dataset.name), torch.device("cpu"))
    return (batch.images for batch in loader.in_order(view=0, batch_size=_BATCH))


def compared(found: Tensor, reference: Tensor, targets: Tensor) -> Verification:
    """The figures of logits ``found`` (N, K) held against ``reference`` (N, K)."""
    largest = float((found - reference).abs().max())
    chosen, expected = found.argmax(dim=1), reference.argmax(dim=1)
    others = (chosen != expected).nonzero().flatten()
    rows = reference[others]
    margin = (rows.gather(1, expected[others, None]) - rows.gather(1, chosen[others, None])).flatten()
    return Verification(
        images=len(found),
        largest_difference=largest,
        logit_range=float(reference.max() - reference.min()),
        others=tuple(others.tolist()),
        ties=tuple(others[margin <= 2 * largest].tolist()),
        correct=int((chosen == targets).sum()),
        reference_correct=int((expected == targets).sum()),
    )
