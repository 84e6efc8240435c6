"""Figures, losses and checks of several classes a sample, against scikit-learn and plain float64 formulas."""

import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, f1_score, log_loss

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.errors import UsageError
from model_compression.data.batches import Mixed
from model_compression.data.dataset import Dataset
from model_compression.reports.label_sets import (
    average_precisions,
    best_thresholds,
    binary_calibration,
    chosen,
    label_figures,
    macro_f1,
    mean_average_precision,
    wrong_sets,
)
from model_compression.tasks import task_of
from model_compression.tasks.answers import answer_distance, drawn_loss
from model_compression.tasks.multi_label.findings import better_order
from model_compression.tasks.multi_label.task import MultiLabel

RNG = np.random.default_rng(4)
LABELS = (RNG.random((60, 5)) < 0.3).astype(np.uint8)
LOGITS = (RNG.normal(size=(60, 5)) + 1.5 * LABELS).round(1).astype(np.float32)  # rounded: some are equal
THRESHOLDS = [0.2, 0.4, 0.5, 0.6, 0.9]


def dataset(labels=LABELS):
    images = np.zeros((len(labels), 3, 2, 2), dtype=np.uint8)
    return Dataset(
        name="d", samples=images, labels=labels, class_names=tuple("abcde"), mean=(0.5,) * 3, std=(0.5,) * 3,
        task="multi-label",
    )  # fmt: skip


def config(**options):
    return TrainConfig(student=ModelConfig(name="lenet"), **options)


def test_figures_are_those_of_scikit_learn():
    probabilities = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    found = MultiLabel(THRESHOLDS).figures(torch.from_numpy(LOGITS), torch.from_numpy(LABELS))
    assert found["map"] == pytest.approx(average_precision_score(LABELS, LOGITS, average="macro"), abs=1e-12)
    assert found["f1"] == pytest.approx(f1_score(LABELS, probabilities >= THRESHOLDS, average="macro"), abs=1e-12)
    assert found["nll"] == pytest.approx(np.mean([log_loss(LABELS[:, k], probabilities[:, k]) for k in range(5)]))
    assert average_precisions(LOGITS, LABELS) == pytest.approx(average_precision_score(LABELS, LOGITS, average=None))
    rows = label_figures(LOGITS, LABELS, list("abcde"), THRESHOLDS)
    assert [row.f1 for row in rows] == pytest.approx(f1_score(LABELS, probabilities >= THRESHOLDS, average=None))
    assert [row.count for row in rows] == LABELS.sum(axis=0).tolist()


def test_class_without_samples_counts_in_no_mean():
    labels = LABELS.copy()
    labels[:, 2] = 0
    rest = [0, 1, 3, 4]
    assert np.isnan(average_precisions(LOGITS, labels)[2])
    assert mean_average_precision(LOGITS, labels) == mean_average_precision(LOGITS[:, rest], labels[:, rest])
    assert macro_f1(LOGITS, labels) == macro_f1(LOGITS[:, rest], labels[:, rest])
    assert mean_average_precision(LOGITS, np.zeros_like(labels)) == 0.0


def test_calibration_compares_probability_and_frequency_of_each_bin():
    probabilities, present = 1 / (1 + np.exp(-LOGITS.astype(np.float64).ravel())), LABELS.ravel()
    expected = 0.0
    for low in range(15):
        inside = (probabilities > low / 15) & (probabilities <= (low + 1) / 15)
        expected += abs(present[inside].sum() - probabilities[inside].sum()) / present.size
    assert binary_calibration(LOGITS, LABELS).ece == pytest.approx(expected, abs=1e-12)


def test_thresholds_have_the_largest_f1_of_all():
    found = best_thresholds(LOGITS, LABELS)
    probabilities = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    for k, threshold in enumerate(found):
        own = f1_score(LABELS[:, k], probabilities[:, k] >= threshold)
        tried = [f1_score(LABELS[:, k], probabilities[:, k] >= one) for one in np.linspace(0.01, 0.99, 99)]
        assert own >= max(tried) - 1e-12
    rare = LABELS.copy()
    rare[:, 0] = 0
    rare[:4, 0] = 1
    assert best_thresholds(LOGITS, rare)[0] == 0.5  # four samples choose by chance
    faint = np.array([0.5] * 5 + [0.02] * 4 + [0.004] * 6 + [0.001] * 40)  # 0.004 needs a threshold below the lowest
    seldom = np.array([1] * 5 + [0] * 4 + [1] * 6 + [0] * 40)[:, None]
    logits = np.log(faint / (1 - faint))[:, None].astype(np.float32)
    found = chosen(logits, best_thresholds(logits, seldom))
    assert f1_score(seldom[:, 0], found[:, 0]) == pytest.approx(2 * 5 / (5 + 11))


def test_thresholds_of_a_networks_file_are_used_where_they_fit():
    assert task_of(dataset(), {"thresholds": THRESHOLDS}).thresholds == tuple(THRESHOLDS)
    assert task_of(dataset(), {"thresholds": [0.5]}).thresholds == ()
    tuned = MultiLabel().tuned(torch.from_numpy(LOGITS), torch.from_numpy(LABELS))
    assert tuned.facts(dataset()) == {"class_names": list("abcde"), "thresholds": best_thresholds(LOGITS, LABELS)}


def test_label_loss_is_the_mean_cross_entropy_of_all_answers():
    logits, labels = torch.from_numpy(LOGITS), torch.from_numpy(LABELS)
    p, y = 1 / (1 + np.exp(-LOGITS.astype(np.float64))), LABELS.astype(np.float64)
    plain = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert MultiLabel().label_loss(logits, labels, None, 0.0).item() == pytest.approx(plain.mean(), rel=1e-6)
    soft = 0.8 * y + 0.1
    smooth = -(soft * np.log(p) + (1 - soft) * np.log(1 - p))
    assert MultiLabel().label_loss(logits, labels, None, 0.2).item() == pytest.approx(smooth.mean(), rel=1e-6)
    weights = (len(y) - y.sum(axis=0)) / y.sum(axis=0)
    balanced = MultiLabel().learning(config(class_weights="balanced"), dataset())
    expected = np.mean(-(weights * y * np.log(p) + (1 - y) * np.log(1 - p)))
    assert balanced.label_loss(logits, labels, None, 0.0).item() == pytest.approx(expected, rel=1e-6)
    share = torch.rand(len(y), generator=torch.Generator().manual_seed(0))
    mixed = Mixed(targets=labels.flip(0), share=share)
    other = -(y[::-1] * np.log(p) + (1 - y[::-1]) * np.log(1 - p))
    expected = (share.numpy() * plain.mean(axis=1) + (1 - share.numpy()) * other.mean(axis=1)).mean()
    assert MultiLabel().label_loss(logits, labels, mixed, 0.0).item() == pytest.approx(expected, rel=1e-6)


def test_options_of_the_loss_are_refused_where_they_have_no_effect():
    with pytest.raises(UsageError, match="huber has no effect on the task 'multi-label'"):
        MultiLabel().learning(config(huber=1.0), dataset())
    absent = LABELS.copy()
    absent[:, 1] = 0
    with pytest.raises(
        UsageError, match="class_weights balanced needs training samples of each class, and 'b' has none"
    ):
        MultiLabel().learning(config(class_weights="balanced"), dataset(absent))


def test_score_is_the_average_precision_of_each_samples_own_ranking():
    found = MultiLabel().score(
        torch.from_numpy(LOGITS + RNG.normal(size=LOGITS.shape).astype(np.float32) * 1e-4), torch.from_numpy(LABELS)
    )
    logits = LOGITS
    expected = 0.0
    for row in range(len(LABELS)):
        if not LABELS[row].any():
            expected += 1
            continue
        single = MultiLabel().score(torch.from_numpy(logits[[row]]), torch.from_numpy(LABELS[[row]])).item()
        order = np.argsort(-logits[row], kind="stable")
        hits = LABELS[row][order]
        expected += np.mean([hits[: place + 1].mean() for place in np.flatnonzero(hits)])
        assert single == pytest.approx(np.mean([hits[: place + 1].mean() for place in np.flatnonzero(hits)]), rel=1e-6)
    assert found.item() == pytest.approx(expected, abs=3)  # equal logits stand in another order


def test_common_answer_has_the_mean_probability():
    logits = [torch.from_numpy(LOGITS.astype(np.float64)), torch.from_numpy(LOGITS[::-1].astype(np.float64).copy())]
    found = MultiLabel().mean_of(logits).sigmoid()
    assert torch.allclose(found, (logits[0].sigmoid() + logits[1].sigmoid()) / 2, atol=1e-12)
    assert torch.equal(MultiLabel().mean_of(logits[:1]), logits[0])


def test_other_sets_of_classes_are_seen_and_ties_told_apart():
    reference = torch.tensor([[2.0, -2.0], [0.001, 1.0], [1.0, -1.0]])
    found = torch.tensor([[2.0, -2.0], [-0.001, 1.0], [-1.0, -1.0]])
    changes = MultiLabel().changes(found, reference, largest=0.002)
    assert (changes.others, changes.ties, changes.kind) == ((1, 2), (1,), "set of classes")
    assert MultiLabel().agreement(found, reference) == pytest.approx(4 / 6)


def test_surest_mistakes_come_first_and_are_those_that_the_teacher_avoids():
    labels = np.array([[1, 0], [1, 0], [0, 1], [1, 1]])
    student = np.array([[3.0, -3], [-1, -3], [4, 3], [-2, 2]])
    assert wrong_sets(student, None, labels).tolist() == [2, 3, 1]
    teacher = np.array([[3.0, -3], [1, -3], [-4, 3], [-2, 2]])
    assert wrong_sets(student, teacher, labels).tolist() == [2, 1]
    assert chosen(student, [0.5, 0.02]).tolist() == [[True, True], [False, True], [True, True], [False, True]]


def test_answers_at_random_are_no_better_than_guessing():
    data = dataset(np.tile(LABELS, (5, 1)))
    value = mean_average_precision(np.random.default_rng(1).normal(size=data.labels.shape), data.labels)
    assert "no better than guessing" in MultiLabel().guessing_fault(value, data)
    assert MultiLabel().guessing_fault(0.9, data) is None


def test_teacher_with_classes_in_another_order_is_found_and_an_untrained_one():
    labels = (RNG.random((400, 5)) < 0.3).astype(np.uint8)
    data, good = dataset(labels), (RNG.normal(size=labels.shape) + 3 * labels).astype(np.float32)
    order = [1, 0, 2, 4, 3]

    def fault(logits):
        rows = {bytes(image): n for n, image in enumerate(numbered.samples)}
        return MultiLabel().teacher_fault(
            types.SimpleNamespace(name="t"), numbered,
            lambda part: torch.from_numpy(logits[[rows[bytes(image)] for image in part.samples]]), "look",
        )  # fmt: skip

    images = np.zeros((400, 3, 2, 2), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(400) % 256, np.arange(400) // 256
    numbered = Dataset(
        name="d", samples=images, labels=labels, class_names=tuple("abcde"), mean=(0.5,) * 3, std=(0.5,) * 3,
        task="multi-label",
    )  # fmt: skip
    assert fault(good) is None
    assert better_order(good[:, order], data.labels).tolist() == order
    assert "has its classes in another order than d: it says 'a' for 'b', 'b' for 'a'" in fault(good[:, order])
    assert "answers that know nothing of them" in fault(RNG.normal(size=labels.shape).astype(np.float32))


def test_labels_that_teach_nothing_are_found():
    labels = LABELS.copy()
    labels[:, 3] = 0
    labels[:, 0] = 1
    (found,) = MultiLabel().data_findings(dataset(labels), dataset())
    assert (found.level, found.text) == ("warn", "all training images are of a")
    rare = np.zeros((300, 5), dtype=np.uint8)
    rare[:200], rare[:, 1] = 1, 0
    rare[0, 1] = 1
    assert [one.subject for one in MultiLabel().data_findings(dataset(rare), dataset())] == ["labels", "balance"]


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "real"])
def test_distance_of_answers_is_zero_for_equal_ones_and_their_divergence_else(kind):
    a, b = torch.from_numpy(LOGITS.astype(np.float64)), torch.from_numpy(LOGITS[::-1].astype(np.float64).copy())
    assert answer_distance(kind, a, a) == pytest.approx(0, abs=1e-12)
    p, q = (1 / (1 + np.exp(-one.numpy())) for one in (a, b))
    expected = {
        "categorical": F.kl_div(a.log_softmax(1), b.softmax(1), reduction="batchmean").item(),
        "bernoulli": np.mean(np.sum(q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)), axis=1)),
        "real": np.mean(0.5 * np.sum((a.numpy() - b.numpy()) ** 2, axis=1)),
    }
    assert answer_distance(kind, a, b) == pytest.approx(expected[kind], rel=1e-9)


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "real"])
def test_slopes_of_drawn_answers_have_the_mean_zero_and_the_variance_of_the_kind(kind):
    """∂(−log p)/∂z is p − y, or z − y: over many draws its mean is 0 and its square Fisher's information."""
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64).repeat(40_000, 1).requires_grad_()
    (slope,) = torch.autograd.grad(drawn_loss(kind, logits, torch.Generator().manual_seed(0)), logits)
    z = logits[0].detach()
    p = {"categorical": z.softmax(0), "bernoulli": z.sigmoid(), "real": torch.zeros(3)}[kind]
    information = torch.ones(3) if kind == "real" else p * (1 - p)
    assert torch.allclose(slope.mean(dim=0), torch.zeros(3, dtype=torch.float64), atol=0.015)
    assert torch.allclose(slope.square().mean(dim=0), information.double(), atol=0.015)
