"""The task of images with a class for each pixel: logits (B, K, H, W), of which the largest is a pixel's class."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.core.errors import UsageError
from model_compression.core.finding import Finding
from model_compression.core.masks import IGNORE
from model_compression.core.metric import share_metric
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch, Mixed
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.models.prediction import predict
from model_compression.reports.masks import count_pixels, mean_iou, pixel_share, wrong_shares
from model_compression.tasks.base import TASKS, Changes, Rows, dense_rows
from model_compression.tasks.class_weights import WeighsClasses
from model_compression.tasks.image_classification.class_names import check_order
from model_compression.tasks.segmentation.findings import examine_answers, examine_masks, pixel_fault

_ANOTHER = 0.01  # of the pixels of an image, whose class may change before the answer is another one

MIOU = share_metric("miou", "mIoU", "mIoUs")


@TASKS.register("segmentation")
class Segmentation(WeighsClasses):
    """One class of K for each pixel; targets (N, H, W) uint8 are class numbers, or `IGNORE`.

    Evaluation keeps the class of each pixel and no logits, see `kept`: figures take masks (N, H, W) uint8.
    """

    name = "segmentation"
    answer = "categorical"
    one_row_each = False
    has_maps = True
    kept_as = "masks"
    metric = MIOU

    def rows(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Rows:
        """A row for each pixel that counts."""
        return dense_rows(student, teacher, batch.targets.long(), batch.ids, dim=1, ignore=IGNORE)

    def weight(self, batch: Batch) -> float:
        """How many pixels count."""
        return int((batch.targets != IGNORE).sum())

    def label_loss(self, logits: Tensor, targets: Tensor, mixed: Mixed | None, label_smoothing: float) -> Tensor:
        """Cross-entropy in nats times the weight of the class, a mean over the pixels that count; 0 where none does."""
        count = (targets != IGNORE).sum().clamp(min=1)
        weights = self.weights_for(logits)
        own = _cross_entropy(logits, targets, label_smoothing, weights)
        if mixed is None:
            return own.sum() / count
        share = mixed.share.view(-1, 1, 1)
        return (
            share * own + (1 - share) * _cross_entropy(logits, mixed.targets, label_smoothing, weights)
        ).sum() / count

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mIoU of each image by itself, over the classes that it has or gets, summed over the batch."""
        classes, counted = logits.shape[1], targets != IGNORE
        image = torch.arange(len(targets), device=targets.device).view(-1, 1, 1).expand_as(targets)[counted] * classes
        found, truth = logits.argmax(dim=1)[counted], targets[counted].long()
        size = len(targets) * classes
        both, given, true = (
            torch.bincount(image + numbers, weights=weights, minlength=size).view(-1, classes)
            for numbers, weights in ((truth, (found == truth).float()), (found, None), (truth, None))
        )
        union = given + true - both
        return ((both / union.clamp(min=1)).sum(dim=1) / (union > 0).sum(dim=1).clamp(min=1)).sum()

    def as_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, H, W) the classes of the largest logits."""
        return self.kept(logits)

    def mean_of(self, answers: Sequence[Tensor]) -> Tensor:
        """Logits whose softmax is the mean of the softmaxes; of one network its own."""
        logits = [answer.detach() for answer in answers]
        if len(logits) == 1:
            return logits[0]
        return torch.stack([F.log_softmax(one, dim=1) for one in logits]).logsumexp(dim=0) - math.log(len(logits))

    def kept(self, logits: Tensor) -> Tensor:
        """(B, H, W) uint8: the classes of the largest logits, 4 · K times smaller than these."""
        return logits.argmax(dim=1).to(torch.uint8)

    def figures(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """mIoU and pixel accuracy, 0 to 1, of all pixels that count; mIoU is over the classes that occur."""
        counts = count_pixels(*_arrays(logits, targets), _num_classes(logits, targets))
        return {"miou": mean_iou(counts), "pixel_accuracy": pixel_share(counts)}

    def agreement(self, logits: Tensor, others: Tensor) -> float:
        """Share of the pixels to which both give the same class."""
        found, other = _arrays(logits, others)
        return float(np.mean([np.mean(one == two) for one, two in zip(found, other, strict=True)]))

    def changes(self, found: Tensor, reference: Tensor, largest: float) -> Changes:
        """Images of which over 1 % of the pixels get another class: ties, as logits differ by at most ``largest``."""
        shares = (self._masks(found) != self._masks(reference)).flatten(1).double().mean(dim=1)
        others = tuple((shares > _ANOTHER).nonzero().flatten().tolist())
        return Changes(others=others, ties=others, kind="mask")

    def guessing_fault(self, value: float, dataset: Dataset) -> str | None:
        """No better than the largest class for every pixel."""
        truth = np.bincount(dataset.labels[dataset.labels != IGNORE], minlength=1)
        if not truth.sum():
            return None
        guess = float(truth.max() / truth.sum() / np.count_nonzero(truth))
        return f"its mIoU of {value:.1%} is no better than one class for every pixel" if value <= guess else None

    def surest_mistakes(self, logits: Tensor, others: Tensor | None, targets: Tensor) -> Tensor:
        """The images with the largest share of wrong pixels; where there are ``others``, more than of those."""
        found, truth = _arrays(logits, targets)
        wrong = wrong_shares(found, truth)
        worse = wrong if others is None else wrong - wrong_shares(*_arrays(others, targets))
        order = np.argsort(-worse, kind="stable")
        return torch.from_numpy(order[worse[order] > 0])

    def check_answer(self, role: str, model: Network, dataset: Dataset, answer: Tensor) -> None:
        """Raises UsageError unless there are K logits for each pixel of a mask, and the classes are in order."""
        who = f"teacher {model.name}" if role == "teacher" else role
        size = dataset.labels.shape[1:]
        if answer.ndim != 4:
            raise UsageError(
                f"the {who} answers two images with {tuple(answer.shape)}; expected logits of each pixel, "
                f"(2, {dataset.num_classes}, {size[0]}, {size[1]}): choose a network for segmentation"
            )
        check_order(role, model, dataset, answer.shape[1])
        if answer.shape[2:] != size:
            raise UsageError(
                f"the {who} answers with {' × '.join(map(str, answer.shape[2:]))} pixels, and masks have "
                f"{' × '.join(map(str, size))}: leave its size out, and scale the data instead"
            )

    def teacher_fault(
        self, model: Network, dataset: Dataset, predict: Callable[[Dataset], Tensor], advice: str
    ) -> str | None:
        """Weak answers, one class for all pixels, or classes in another order; see `pixel_fault`."""
        return pixel_fault(lambda some: self._masks(predict(some)).numpy(), dataset, advice)

    def data_findings(self, train: Dataset, test: Dataset) -> Iterator[Finding]:
        """Classes without pixels, and rare ones."""
        return examine_masks(train, test)

    def teacher_findings(
        self, model: Network, train: Dataset, sample: Dataset | None, device: torch.device, *, thorough: bool = False
    ) -> Iterator[Finding]:
        """Class names, and for `doctor` what its masks of ``sample`` show."""
        other = self.differences(model, train)
        text = other[0] if other else "those of the data, or it does not say"
        remedy = "look whether they are" if other else ""
        yield Finding(area="teacher", subject="class names", level="warn" if other else "ok", text=text, remedy=remedy)
        if sample is not None and thorough:
            masks = predict(model, sample, device, torch.float32, keep=self.kept)
            yield examine_answers(masks.numpy(), sample, self.value(masks, self.tensor_of(sample)))

    def answer_shape(self, dataset: Dataset) -> tuple[int | str, ...]:
        """(K, H, W)."""
        height, width = dataset.labels.shape[1:]
        return dataset.num_classes, height, width

    def _masks(self, answers: Tensor) -> Tensor:
        """(B, H, W) of logits or of what is `kept` of them."""
        return self.kept(answers) if answers.ndim == 4 else answers


def _cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float, weights: Tensor | None) -> Tensor:
    return F.cross_entropy(
        logits, targets.long(), weights, ignore_index=IGNORE, label_smoothing=label_smoothing, reduction="none"
    )


def _arrays(answers: Tensor, others: Tensor) -> tuple[Any, Any]:
    """Both as masks (N, H, W)."""
    found, other = (one.argmax(dim=1).to(torch.uint8) if one.ndim == 4 else one for one in (answers, others))
    return found.numpy(), other.numpy()


def _num_classes(answers: Tensor, targets: Tensor) -> int:
    """K, or as many classes as occur."""
    if answers.ndim == 4:
        return answers.shape[1]
    true = targets[targets != IGNORE]
    return 1 + max(int(answers.max()), int(true.max()) if len(true) else 0)
