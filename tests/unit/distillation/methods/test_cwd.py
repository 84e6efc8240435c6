"""cwd against the divergence of each channel written out, its known gradient, and its normalisation."""

import numpy as np
import pytest
import torch
from numerics import answers, pooled, ready, slope

import model_compression.distillation.methods.feature.cwd as cwd
from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create

TEMPERATURES = [0.5, 1.0, 4.0, 10.0]


def built(student, teacher, **params):
    return ready(create("cwd", **params), student, teacher)


def softmax(values, temperature):
    """Over the positions of each channel of (B, C, H, W)."""
    exponentials = np.exp((values - values.max(axis=(2, 3), keepdims=True)) / temperature)
    return exponentials / exponentials.sum(axis=(2, 3), keepdims=True)


def divergence(s, t, temperature):
    p, q = softmax(t, temperature), softmax(s, temperature)
    total = 0.0
    for sample, channel in np.ndindex(s.shape[:2]):
        total += (p[sample, channel] * np.log(p[sample, channel] / q[sample, channel])).sum()
    return temperature**2 * total / s.shape[1] / len(s)


def expected(method, student, teacher, temperature):
    total = 0.0
    for align, s, t in zip(method.aligners, student, teacher, strict=True):
        size = tuple(np.minimum(s.shape[2:], t.shape[2:]))
        s, t = pooled(s, size), pooled(t, size)
        if s.shape[1] != t.shape[1]:
            weight, bias = align.weight.detach().numpy()[:, :, 0, 0], align.bias.detach().numpy()
            s = np.einsum("oc,bchw->bohw", weight, s) + bias[:, None, None]
        total += divergence(s, t, temperature)
    return total


SHAPES = [
    ([(3, 4, 4, 4)], [(3, 4, 4, 4)]),
    ([(2, 3, 4, 4)], [(2, 5, 2, 2)]),
    ([(1, 3, 2, 2), (1, 2, 2, 1)], [(1, 2, 4, 4), (1, 2, 4, 1)]),
]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("student_shapes", "teacher_shapes"), SHAPES)
def test_cwd_is_the_divergence_over_positions_and_its_gradient(student_shapes, teacher_shapes, temperature):
    rng = np.random.default_rng(0)
    student, teacher = ([rng.normal(size=shape) * 3 for shape in shapes] for shapes in (student_shapes, teacher_shapes))
    method = built(student, teacher, temperature=temperature)
    (s, inputs), (t, answered) = answers(student), answers(teacher)
    terms = method(s, t, torch.zeros(1))
    assert list(terms) == ["cwd"]
    assert terms["cwd"].item() == pytest.approx(expected(method, student, teacher, temperature), rel=1e-9)
    terms["cwd"].backward()
    first = slope(lambda values: expected(method, [values, *student[1:]], teacher, temperature), student[0])
    np.testing.assert_allclose(inputs[0].grad.numpy(), first, rtol=1e-4, atol=1e-8)
    assert all(tensor.grad is None for tensor in answered)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_cwd_gradient_is_the_difference_of_probabilities(temperature):
    rng = np.random.default_rng(1)
    student, teacher = rng.normal(size=(2, 3, 4, 5, 6)) * 3
    s = torch.tensor(student, requires_grad=True)
    cwd.channel_kl(s, torch.tensor(teacher), temperature).backward()
    difference = softmax(student, temperature) - softmax(teacher, temperature)
    np.testing.assert_allclose(s.grad.numpy(), temperature * difference / 4 / 3, rtol=1e-9, atol=1e-15)


def test_cwd_is_a_mean_over_channels_and_samples_and_a_sum_over_positions():
    rng = np.random.default_rng(2)
    student, teacher = (torch.tensor(values) for values in rng.normal(size=(2, 1, 1, 3, 3)))
    one = cwd.channel_kl(student, teacher, 4.0).item()
    many = cwd.channel_kl(student.expand(5, 7, 3, 3), teacher.expand(5, 7, 3, 3), 4.0).item()
    assert many == pytest.approx(one, rel=1e-12)
    p, q = (softmax(values.numpy(), 4.0) for values in (teacher, student))
    assert one == pytest.approx(16 * (p * np.log(p / q)).sum(), rel=1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_cwd_is_zero_when_maps_match_or_differ_by_a_constant_per_channel(temperature):
    student = [np.random.default_rng(0).normal(size=(2, 3, 4, 4))]
    method = built(student, student, temperature=temperature)
    (s, inputs), (t, _) = answers(student), answers(student)
    term = method(s, t, torch.zeros(2))["cwd"]
    term.backward()
    assert term.item() == 0
    np.testing.assert_allclose(inputs[0].grad.numpy(), 0, atol=1e-15)
    moved, _ = answers([student[0] + np.array([1.0, -5.0, 100.0])[:, None, None]])
    assert method(moved, t, torch.zeros(2))["cwd"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_cwd_takes_extreme_maps(temperature, dtype):
    s = torch.tensor([[[[1e4, -1e4, 0.0]]]], dtype=dtype, requires_grad=True)
    value = cwd.channel_kl(s, torch.tensor([[[[-1e4, 1e4, 0.0]]]], dtype=dtype), temperature)
    value.backward()
    assert value.item() == pytest.approx(temperature**2 * 2e4 / temperature, rel=1e-6)  # log p − log q of one position
    wanted = torch.tensor([[[[temperature, -temperature, 0.0]]]], dtype=dtype)
    torch.testing.assert_close(s.grad, wanted, rtol=1e-6, atol=1e-9)


def test_cwd_refuses_maps_of_a_single_position():
    with pytest.raises(UsageError, match=r"the pair of 'layer0' has a single one: student \(3, 1, 1\), teacher"):
        built([np.zeros((1, 3, 1, 1))], [np.zeros((1, 3, 4, 4))])


@pytest.mark.parametrize("temperature", [0, -3.0, float("nan"), float("inf"), "hot", None, True])
def test_cwd_refuses_an_impossible_temperature(temperature):
    with pytest.raises(UsageError, match=r"cwd: temperature must be a number from 0.01 to 1000 .* got"):
        create("cwd", temperature=temperature)


def test_cwd_weight_and_temperature_are_the_published_ones():
    method = create("cwd")
    assert (dict(method.default_weights), method.default_label_weight, method.temperature) == ({"cwd": 50.0}, 1.0, 4.0)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_cwd_of_logits_compares_the_maps_of_class_scores(temperature):
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(size=(2, 2, 5, 3, 4)) * 3
    s = torch.tensor(student, requires_grad=True)
    method = create("cwd", temperature=temperature, on="logits")
    method.setup({}, 2, 5)
    rows = torch.zeros(7, 5)  # of the pixels that count
    term = method(Outputs(logits=rows, maps=s), Outputs(logits=rows, maps=torch.tensor(teacher)), torch.zeros(7))["cwd"]
    assert term.item() == pytest.approx(divergence(student, teacher, temperature), rel=1e-9)
    term.backward()
    assert s.grad.abs().sum() > 0
    assert method.default_weights == {"cwd": 3.0}
    with pytest.raises(UsageError, match=r"cwd: on='logits' compares maps of class scores, which segmentation has"):
        method(Outputs(logits=rows), Outputs(logits=rows), torch.zeros(7))
    with pytest.raises(UsageError, match="cwd: on must be 'features' or 'logits', got 'maps'"):
        create("cwd", on="maps")
