"""Figures of predictions against NumPy."""

import numpy as np
import pytest
import torch

from model_compression.tasks.image_classification.figures import agreement, calibration_error, figures


@pytest.fixture(params=[(1, 2), (50, 3), (2000, 10)], ids=str)
def answers(request):
    rng = np.random.default_rng(1)
    count, classes = request.param
    logits = (rng.normal(size=(count, classes)) * 3).astype(np.float32)
    return logits, np.where(rng.uniform(size=count) < 0.6, logits.argmax(axis=1), rng.integers(0, classes, count))


def reference(logits, targets, bins=15):
    logits = logits.astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    error = 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return {
        "accuracy": correct.mean(),
        "nll": -np.log(probabilities[np.arange(len(targets)), targets]).mean(),
        "ece": error,
    }


def test_figures_are_those_of_numpy(answers):
    logits, targets = answers
    found = figures(torch.from_numpy(logits), torch.from_numpy(targets))
    assert found == {key: pytest.approx(value, rel=1e-6, abs=1e-9) for key, value in reference(*answers).items()}
    assert all(type(value) is float for value in found.values())


def test_calibration_error_of_a_certain_network_is_its_error():
    logits = torch.tensor([[100.0, 0, 0]] * 4)
    assert calibration_error(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(0.25)
    assert calibration_error(logits, torch.tensor([0, 0, 0, 0])) == pytest.approx(0)


def test_calibration_error_bins_are_closed_above():
    half = torch.zeros(2, 2)  # a confidence of exactly 1/2: with two bins, the lower one
    surer = torch.tensor([[1.0, 0], [1.0, 0]])
    logits, targets = torch.cat([half, surer]), torch.tensor([0, 0, 1, 1])
    confidence = 1 / (1 + np.exp(-1))
    assert calibration_error(logits, targets, bins=2) == pytest.approx((2 * (1 - 0.5) + 2 * confidence) / 4)


def test_agreement_is_the_share_of_equal_choices():
    first = torch.tensor([[1.0, 0], [0, 1.0], [3.0, 2.0], [0, 5.0]])
    second = torch.tensor([[9.0, 0], [1.0, 0], [3.0, 2.0], [0, 0.1]])
    assert agreement(first, second) == 0.75
