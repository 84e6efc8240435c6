"""The task of texts with a class for each word: logits (B, L, K); the largest of a word's first token is its class."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_compression.core.entities import entity_f1
from model_compression.core.errors import UsageError
from model_compression.core.finding import Finding
from model_compression.core.metric import ACCURACY
from model_compression.core.outputs import Outputs
from model_compression.data.batches import Batch, Mixed
from model_compression.data.dataset import Dataset
from model_compression.models.base import Network
from model_compression.tasks.base import TASKS, Changes, Rows, dense_rows
from model_compression.tasks.class_weights import WeighsClasses
from model_compression.tasks.image_classification import class_names
from model_compression.tasks.image_classification.figures import agreement, figures, macro_f1
from model_compression.tasks.image_classification.teacher_faults import better_order, weakness
from model_compression.tasks.text_classification.tokenizer_checks import check_tokenizer, tokenizer_facts

IGNORED = -100
"""The target of a token that has none: padding, special tokens, and all but the first token of a word."""
_SEEN = 256  # texts by which a teacher is judged


@TASKS.register("token-classification")
class TokenClassification(WeighsClasses):
    """One class of K for each word; targets (N, L) are class numbers, −100 where a token has none."""

    name = "token-classification"
    answer = "categorical"
    one_row_each = False
    metric = ACCURACY

    def label_loss(self, logits: Tensor, targets: Tensor, mixed: Mixed | None, label_smoothing: float) -> Tensor:
        """Cross-entropy, in nats, times the weight of the class; a mean over words."""
        rows, classes = _words(logits, targets)
        if not len(classes):
            return logits.sum() * 0
        weights = self.weights_for(logits)
        if weights is None:
            return F.cross_entropy(rows, classes, label_smoothing=label_smoothing)
        return F.cross_entropy(rows, classes, weights, label_smoothing=label_smoothing, reduction="none").mean()

    def score(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The share of right words of each text, summed over the batch."""
        known = targets != IGNORED
        right = ((logits.argmax(dim=2) == targets) & known).sum(dim=1)
        return (right / known.sum(dim=1).clamp(min=1)).sum()

    def as_targets(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B, L) the classes of the largest logits, where ``targets`` has a word."""
        return torch.where(targets != IGNORED, logits.argmax(dim=2), IGNORED)

    def rows(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Rows:
        """A row for each word."""
        return dense_rows(student, teacher, batch.targets, batch.ids, dim=2, ignore=IGNORED)

    def weight(self, batch: Batch) -> float:
        """The number of words."""
        return int((batch.targets != IGNORED).sum())

    def mean_of(self, answers: Sequence[Tensor]) -> Tensor:
        """Logits (B, L, K) whose softmax is the mean of the softmaxes."""
        logits = [answer.detach() for answer in answers]
        if len(logits) == 1:
            return logits[0]
        return torch.stack([one.log_softmax(dim=2) for one in logits]).logsumexp(dim=0) - math.log(len(logits))

    def figures(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """Of all words: accuracy, negative log-likelihood, calibration error, and the mean of the classes' F1."""
        rows, classes = _words(logits, targets)
        return figures(rows, classes) | {"f1": macro_f1(rows, classes)}

    def further_figures(self, logits: Tensor, targets: Tensor, dataset: Dataset) -> dict[str, float]:
        """F1 of whole entities, where classes are called as in the BIO scheme."""
        found = entity_f1(logits.argmax(dim=2).numpy(), targets.numpy(), dataset.class_names)
        return {} if found is None else {"entity_f1": found}

    def compared(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The rows (M, K) of words."""
        return _words(logits, targets)[0]

    def agreement(self, logits: Tensor, others: Tensor) -> float:
        """Share of the rows, of words or of all tokens, for which both choose the same class."""
        return agreement(logits.flatten(0, -2), others.flatten(0, -2))

    def changes(self, found: Tensor, reference: Tensor, largest: float) -> Changes:
        """Texts with a token that gets another class; ties are those in which ``largest`` could turn every one."""
        chosen, expected = found.argmax(dim=2), reference.argmax(dim=2)
        differs = chosen != expected
        margin = (reference.gather(2, expected[..., None]) - reference.gather(2, chosen[..., None])).squeeze(2)
        others = differs.any(dim=1)
        ties = others & ~(differs & (margin > 2 * largest)).any(dim=1)
        kind = "class for a token"
        return Changes(others=_numbers(others), ties=_numbers(ties), kind=kind)

    def guessing_fault(self, value: float, dataset: Dataset) -> str | None:
        """An accuracy within two standard errors of the largest class's share says nothing."""
        classes = self.tensor_of(dataset)[self.tensor_of(dataset) != IGNORED]
        share = float(classes.bincount().max() / len(classes))
        guess = share + 2 * math.sqrt(share * (1 - share) / len(classes))
        return f"its accuracy of {value:.1%} is no better than guessing" if value <= guess else None

    def surest_mistakes(self, logits: Tensor, others: Tensor | None, targets: Tensor) -> Tensor:
        """The texts with the most wrong words, where there are ``others`` words that are right there."""
        known = targets != IGNORED
        wrong = (logits.argmax(dim=2) != targets) & known
        if others is not None:
            wrong &= others.argmax(dim=2) == targets
        counts = wrong.sum(dim=1)
        return counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]

    def check_answer(self, role: str, model: Network, dataset: Dataset, answer: Tensor) -> None:
        """Raises UsageError unless each token has a logit for each class, and the network knows the data's tokens."""
        check_tokenizer(role, model, dataset)
        length = self.tensor_of(dataset).shape[1]
        if answer.ndim != 3 or answer.shape[1] != length:
            raise UsageError(
                f"the {role} answers two texts with {tuple(answer.shape)}; expected logits (2, {length}, classes), for "
                "each token"
            )
        class_names.check_classes(role, model, dataset, answer[:, 0])

    def teacher_fault(
        self, model: Network, dataset: Dataset, predict: Callable[[Dataset], Tensor], advice: str
    ) -> str | None:
        """Weak answers, one class for all words, or classes in another order."""
        sample = dataset.subset(range(min(_SEEN, len(dataset))))
        rows, classes = (one.numpy() for one in _words(predict(sample), self.tensor_of(sample)))
        answers = rows.argmax(axis=1)
        if better_order(answers, classes, dataset.num_classes) is not None:
            return f"has its classes in another order than {dataset.name}, or is not trained; {advice}"
        fault = weakness(answers, classes, None, "words")
        return None if fault is None else f"{fault}; {advice}"

    def data_findings(self, train: Dataset, test: Dataset) -> Iterator[Finding]:
        """Classes that no word of the test has."""
        counts = np.bincount(test.labels[test.labels != IGNORED], minlength=train.num_classes)
        absent = [name for name, count in zip(train.class_names, counts, strict=True) if not count]
        text, remedy = f"{train.num_classes} classes, all with test words", ""
        if absent:
            text = f"no test words of {', '.join(absent[:5])}{f' and {len(absent) - 5} more' if absent[5:] else ''}"
            remedy = "figures say nothing of them: bring some, or hold out more texts"
        yield Finding(area="data", subject="tags", level="warn" if absent else "ok", text=text, remedy=remedy)

    def answer_shape(self, dataset: Dataset) -> tuple[int | str, ...]:
        """A row of logits for each token."""
        return ("length", dataset.num_classes)

    def facts(self, dataset: Dataset) -> dict[str, Any]:
        """The names of the classes, and the tokenizer."""
        return super().facts(dataset) | tokenizer_facts(dataset)


def _words(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (M, K) and classes (M,) of the words in (B, L, K) and (B, L)."""
    known = targets != IGNORED
    return logits[known], targets[known]


def _numbers(flags: Tensor) -> tuple[int, ...]:
    return tuple(flags.nonzero().flatten().tolist())
