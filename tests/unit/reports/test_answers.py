"""What answers show, held against PyTorch's losses and plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from written_runs import logits_for

from model_compression.reports.answers import (
    accuracy,
    agreement,
    calibration,
    class_accuracies,
    confusion,
    find_mistakes,
    mistakes,
)
from model_compression.reports.predictions import Predictions
from model_compression.reports.statistics import Proportion
from model_compression.tasks.image_classification.figures import calibration_error


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 5, 400)
    return Predictions(
        student=logits_for(targets, 5, 0.6, 1),
        teacher=logits_for(targets, 5, 0.9, 2),
        targets=targets,
        thumbnails=np.zeros((60, 3, 4, 4), dtype=np.uint8),
        thumbnail_rows=np.arange(60),
        class_names=(),
    )


@pytest.mark.parametrize(("count", "total"), [(7587, 10000), (0, 13), (13, 13), (1, 1), (3, 7)])
def test_proportion_has_wilsons_interval(count, total):
    expected = binomtest(count, total).proportion_ci(method="wilson")
    found = Proportion(count=count, total=total)
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.share == count / total


def test_proportion_of_no_images_is_anything():
    found = Proportion(count=0, total=0)
    assert np.isnan(found.share)
    assert found.interval == (0.0, 1.0)


def test_confusion_and_classes_match_a_loop(found):
    expected = np.zeros((5, 5), dtype=int)
    for logits, target in zip(found.student, found.targets, strict=True):
        expected[target, max(range(5), key=lambda number: logits[number])] += 1
    assert np.array_equal(confusion(found.student, found.targets), expected)
    rows = class_accuracies(found)
    assert [row.student for row in rows] == [
        Proportion(count=expected[number, number], total=expected[number].sum()) for number in range(5)
    ]
    assert sum(row.student.count for row in rows) == accuracy(found.student, found.targets).count
    assert [row.name for row in rows] == [f"class {number}" for number in range(5)]
    assert all(row.teacher.share > row.student.share for row in rows)


def test_calibration_matches_torch(found):
    logits, targets = torch.from_numpy(found.student), torch.from_numpy(found.targets)
    own = calibration(found.student, found.targets)
    assert own.ece == pytest.approx(calibration_error(logits, targets), abs=1e-12)
    assert own.nll == pytest.approx(float(F.cross_entropy(logits.double(), targets)), abs=1e-12)
    assert sum(one.right.total for one in own.bins) == 400
    assert all(one.low < one.confidence <= one.high for one in own.bins)


def test_calibration_of_certainty_is_in_the_last_bin():
    logits = np.array([[200.0, 0.0], [200.0, 0.0]], dtype=np.float32)
    own = calibration(logits, np.array([0, 1]))
    assert [(one.low, one.high, one.right.share) for one in own.bins] == [(14 / 15, 1.0, 0.5)]
    assert own.ece == pytest.approx(0.5)
    assert own.nll == pytest.approx(100.0)


def test_agreement_matches_torch_and_adds_up(found):
    own = agreement(found.student, found.teacher, found.targets)
    assert own.both_right + own.only_teacher + own.only_student + own.both_wrong == 400
    assert own.both_right + own.only_student == accuracy(found.student, found.targets).count
    assert own.both_right + own.only_teacher == accuracy(found.teacher, found.targets).count
    assert own.same.share == np.mean(found.student.argmax(1) == found.teacher.argmax(1))
    student, teacher = (torch.from_numpy(logits).double().log_softmax(1) for logits in (found.student, found.teacher))
    expected = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    assert own.divergence == pytest.approx(float(expected), abs=1e-12)


def test_mistakes_are_where_the_teacher_is_right_the_surest_first(found):
    shown, are_surest = mistakes(found, 100)
    assert not are_surest
    wrong = found.student[:60].argmax(1) != found.targets[:60]
    right = found.teacher[:60].argmax(1) == found.targets[:60]
    assert sorted(mistake.number for mistake in shown) == np.flatnonzero(wrong & right).tolist()
    probabilities = [mistake.probability for mistake in shown]
    assert probabilities == sorted(probabilities, reverse=True)
    first = shown[0]
    logits = torch.from_numpy(found.student[first.number]).double()
    assert first.probability == pytest.approx(float(logits.softmax(0).max()))
    assert first.answer == f"class {int(logits.argmax())}"
    assert first.truth == f"class {found.targets[first.number]}"
    assert len(mistakes(found, 3)[0]) == 3


def test_mistakes_are_the_surest_of_all_where_these_can_be_shown(found):
    rows = find_mistakes(found.student, found.teacher, found.targets)
    confidence = torch.from_numpy(found.student).double().softmax(1).amax(1).numpy()
    assert (np.diff(confidence[rows]) <= 0).all()
    held = replace(found, thumbnails=found.thumbnails[:5], thumbnail_rows=np.sort(rows[:5]))
    shown, are_surest = mistakes(held, 5)
    assert are_surest
    assert [mistake.number for mistake in shown] == rows[:5].tolist()
    assert [mistake.probability for mistake in shown] == pytest.approx(confidence[rows[:5]])
    assert not mistakes(held, 6)[1]
