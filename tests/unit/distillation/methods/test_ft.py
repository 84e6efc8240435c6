"""ft against convolutions written out, factors normalised by hand; and its two stages."""

import numpy as np
import pytest
import torch
from numerics import evaluate, maps, pooled, ready, slope

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods.feature.ft import FactorTransfer


def layer(x, weight, bias):
    """3×3 convolution with a border of zeros, and a leaky ReLU; weight (out, in, 3, 3)."""
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    found = np.zeros((len(x), len(weight), height, width)) + bias[None, :, None, None]
    for row in range(3):
        for column in range(3):
            shifted = padded[:, :, row : row + height, column : column + width]
            found += np.einsum("oc,bchw->bohw", weight[:, :, row, column], shifted)
    return np.where(found > 0, found, 0.1 * found)


def through(layers, x):
    for step in layers:
        weight, bias = (parameter.detach().numpy() for parameter in step[0].parameters())
        if isinstance(step[0], torch.nn.ConvTranspose2d):  # of stride 1: a convolution with the kernel turned round
            weight = weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
        x = layer(x, weight, bias)
    return x


def expected(s, t):
    """Of factors of one shape."""
    total = 0.0
    for a, b in zip(s.reshape(len(s), -1), t.reshape(len(t), -1), strict=True):
        total += np.abs(a / np.sqrt((a**2).sum()) - b / np.sqrt((b**2).sum())).sum()
    return total / s.size


SHAPES = [((1, 3, 3, 3), (1, 4, 3, 3)), ((3, 2, 2, 3), (3, 7, 2, 3)), ((2, 4, 1, 1), (2, 3, 1, 1))]


@pytest.mark.parametrize(("student", "teacher"), SHAPES)
@pytest.mark.parametrize("ratio", [0.5, 0.75, 2.0])
def test_ft_is_the_mean_difference_of_normalised_factors(student, teacher, ratio):
    s, t = maps(student, 0), maps(teacher, 1)
    method = ready(FactorTransfer(ratio=ratio), [s], [t])
    value, (gradient,) = evaluate(method, [s], [t])
    factor = through(method.encoders[0], t)
    assert factor.shape[1] == round(ratio * teacher[1])

    def term(x):
        return expected(through(method.translators[0], x), factor)

    assert value == pytest.approx(term(s), rel=1e-9)
    np.testing.assert_allclose(gradient, slope(term, s), rtol=1e-5, atol=1e-8)


def test_ft_adds_its_pairs_and_pools_the_larger_factor():
    s, t = [maps((2, 3, 4, 4), 0), maps((2, 4, 2, 2), 1)], [maps((2, 5, 2, 4), 2), maps((2, 6, 4, 6), 3)]
    method = ready(FactorTransfer(), s, t)
    value, _ = evaluate(method, s, t)
    first = expected(pooled(through(method.translators[0], s[0]), (2, 4)), through(method.encoders[0], t[0]))
    second = expected(through(method.translators[1], s[1]), pooled(through(method.encoders[1], t[1]), (2, 2)))
    assert value == pytest.approx(first + second, rel=1e-9)


def test_ft_first_stage_is_the_mean_square_of_what_is_not_restored():
    s, t = [maps((2, 3, 2, 2), 0)] * 2, [maps((2, 4, 3, 3), 1), maps((2, 6, 2, 2), 2)]
    method = ready(FactorTransfer(), s, t)
    teacher = Outputs(logits=torch.zeros(2, 2), features={str(i): torch.tensor(x) for i, x in enumerate(t)})
    coders = list(zip(method.encoders, method.decoders, t, strict=True))
    restored = sum(((through(d, through(e, x)) - x) ** 2).mean() for e, d, x in coders)
    assert method.first_stage(teacher).item() == pytest.approx(restored, rel=1e-9)


def test_ft_first_stage_trains_the_paraphraser_and_training_the_translator():
    s, t = [maps((4, 3, 4, 4), 0)], [np.abs(maps((4, 6, 4, 4), 1))]
    method = ready(FactorTransfer(), s, t)
    teacher = Outputs(logits=torch.zeros(4, 2), features={"0": torch.tensor(t[0], requires_grad=True)})
    student = Outputs(logits=torch.zeros(4, 2), features={"0": torch.tensor(s[0])})
    start = method.first_stage(teacher).item()
    for _ in range(30):
        method.zero_grad()
        loss = method.first_stage(teacher)
        loss.backward()
        with torch.no_grad():
            for parameter in [*method.encoders.parameters(), *method.decoders.parameters()]:
                parameter -= parameter.grad
    assert loss.item() < 0.7 * start
    trained = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert trained == {"encoders", "decoders"}
    assert teacher.features["0"].grad is None

    method.zero_grad()
    method(student, teacher, torch.zeros(4, dtype=torch.long))["ft"].backward()
    trained = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert trained == {"translators"}


def test_ft_is_zero_when_factors_match():
    s = maps((2, 4, 3, 3), 0)
    method = ready(FactorTransfer(), [s], [s])
    method.translators.load_state_dict(method.encoders.state_dict())
    value, (gradient,) = evaluate(method, [s], [s])
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("student", [1e4, -1e4, 0.0])
@pytest.mark.parametrize("teacher", [1e4, 0.0])
def test_ft_takes_extremes(student, teacher, dtype):
    s, t = [np.full((1, 3, 4, 4), student)], [np.full((1, 5, 2, 2), teacher)]
    value, (gradient,) = evaluate(ready(FactorTransfer(), s, t), s, t, dtype)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_ft_takes_factors_of_nothing():
    s, t = [maps((2, 3, 4, 4), 0)], [maps((2, 5, 4, 4), 1)]
    method = ready(FactorTransfer(), s, t)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.zero_()
    value, (gradient,) = evaluate(method, s, t)
    assert value == 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("ratio", [0, -0.5, 10**400, float("nan"), float("inf"), "half", None, True])
def test_ft_refuses_an_impossible_ratio(ratio):
    with pytest.raises(UsageError, match=r"ft: ratio must be a number > 0 \(published: 0.5\), got"):
        FactorTransfer(ratio=ratio)


def test_ft_weighs_as_the_authors_code():
    assert (FactorTransfer.default_weights, FactorTransfer.default_label_weight) == ({"ft": 500.0}, 1.0)
