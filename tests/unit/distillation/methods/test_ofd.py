"""ofd against loops over elements, margins against numerical integration, and channels where code cheats."""

import numpy as np
import pytest
import torch
from numerics import answers, convolved, normalised, pooled, ready, slope
from scipy import integrate, stats

import model_compression.distillation.methods.feature.ofd as ofd
from model_compression.core.errors import UsageError
from model_compression.distillation.methods import create


def built(student, teacher, batch_norm=None):
    return ready(create("ofd"), student, teacher, **({} if batch_norm is None else {"batch_norm": batch_norm}))


def integrated_margin(weight, bias):
    """E[x | x < 0] of a Gaussian by quadrature of its density."""
    density = stats.norm(bias, abs(weight)).pdf
    low = min(bias, 0) - 12 * abs(weight)
    above = integrate.quad(lambda x: x * density(x), low, 0, epsabs=0, limit=500)[0]
    return above / integrate.quad(density, low, 0, epsabs=0, limit=500)[0]


def distance(s, t):
    """Element by element, as the paper's equation 3 has its two cases; mean over the batch."""
    total = 0.0
    for place in np.ndindex(s.shape):
        if not s[place] <= t[place] <= 0:
            total += (s[place] - t[place]) ** 2
    return total / len(s)


def expected(method, student, teacher, margins):
    total = 0.0
    for number, (s, t, margin) in enumerate(zip(student, teacher, margins, strict=True)):
        convolution, norm = method.connectors[number]
        s = normalised(convolved(s, convolution), norm)
        t = np.maximum(t, np.asarray(margin)[:, None, None])
        size = tuple(np.minimum(s.shape[2:], t.shape[2:]))
        total += distance(pooled(s, size), pooled(t, size)) / 2 ** (len(student) - number - 1)
    return total


def batch_margins(teacher):
    found = []
    for values in teacher:
        channels = values.transpose(1, 0, 2, 3).reshape(values.shape[1], -1)
        found.append([channel[channel < 0].mean() if (channel < 0).any() else 0.0 for channel in channels])
    return found


SHAPES = [
    ([(3, 4, 4, 4)], [(3, 4, 4, 4)]),
    ([(2, 3, 4, 4)], [(2, 5, 2, 2)]),
    ([(2, 3, 2, 2), (2, 2, 2, 2), (2, 2, 1, 1)], [(2, 2, 4, 4), (2, 6, 2, 2), (2, 3, 2, 2)]),
]


@pytest.mark.parametrize("known", [True, False], ids=["batch norm", "batch"])
@pytest.mark.parametrize(("student_shapes", "teacher_shapes"), SHAPES)
def test_ofd_is_the_partial_distance_and_its_gradient(student_shapes, teacher_shapes, known):
    rng = np.random.default_rng(0)
    student, teacher = ([rng.normal(size=shape) * 2 for shape in shapes] for shapes in (student_shapes, teacher_shapes))
    norms = {
        f"layer{i}": (torch.tensor(rng.normal(size=m.shape[1])), torch.tensor(rng.normal(size=m.shape[1])))
        for i, m in enumerate(teacher)
    }
    margins = batch_margins(teacher)
    if known:
        margins = [[integrated_margin(w, b) for w, b in zip(*norm, strict=True)] for norm in norms.values()]
    method = built(student, teacher, norms if known else None)
    (s, inputs), (t, answered) = answers(student), answers(teacher)
    terms = method(s, t, torch.zeros(1))
    assert list(terms) == ["ofd"]
    assert terms["ofd"].item() == pytest.approx(expected(method, student, teacher, margins), rel=1e-7)
    terms["ofd"].backward()
    first = slope(lambda values: expected(method, [values, *student[1:]], teacher, margins), student[0])
    np.testing.assert_allclose(inputs[0].grad.numpy(), first, rtol=1e-4, atol=1e-6)
    assert all(tensor.grad is None for tensor in answered)


@pytest.mark.parametrize(
    ("weight", "bias"), [(1.0, 0.0), (2.0, -1.0), (-0.5, 0.3), (1e-2, 0.02), (3.0, 9.0), (1.0, -6)]
)
def test_ofd_margin_is_the_expectation_of_negative_responses(weight, bias):
    found = ofd.gaussian_margin(torch.tensor([weight], dtype=torch.float64), torch.tensor([bias], dtype=torch.float64))
    assert found.item() == pytest.approx(integrated_margin(weight, bias), rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ofd_margin_of_channels_at_the_ends_of_the_scale(dtype):
    weight = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1e-3], dtype=dtype)
    bias = torch.tensor([40.0, 1e4, -1e4, 2.0, -2.0, 0.0, 1e4], dtype=dtype)
    # Far from 0, x below 0 is exponential with mean -weight² / bias; authors' code has -3 there.
    wanted = [-0.0249688, -1e-4, -1e4, 0.0, -2.0, 0.0, -1e-10]
    np.testing.assert_allclose(ofd.gaussian_margin(weight, bias).double().numpy(), wanted, rtol=1e-4, atol=2e-9)


def test_ofd_margin_without_a_batch_norm_is_the_mean_of_negatives():
    values = torch.tensor(
        [[[[-1.0, -3.0], [5.0, 0.0]], [[1.0, 2.0], [3.0, 0.0]]]], dtype=torch.float64, requires_grad=True
    )
    margin = ofd.negative_mean(values)
    assert margin.tolist() == [-2.0, 0.0]
    assert not margin.requires_grad


def test_ofd_skips_elements_where_both_are_silent():
    cases = [(-2.0, -1.0, 0.0), (-0.5, -1.0, 0.25), (-2.0, 0.0, 0.0), (-2.0, 0.5, 6.25), (3.0, -1.0, 16.0)]
    for s, t, wanted in cases:
        student = torch.full((1, 1, 1, 1), s, requires_grad=True)
        value = ofd.partial_l2(student, torch.full((1, 1, 1, 1), t))
        value.backward()
        assert value.item() == wanted
        assert student.grad.item() == (2 * (s - t) if wanted else 0)


def test_ofd_is_zero_when_maps_match():
    student = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = ofd.partial_l2(student, student.detach().clone())
    value.backward()
    assert value.item() == 0
    assert not student.grad.any()


def test_ofd_sums_over_elements_and_averages_over_the_batch():
    one = ofd.partial_l2(torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3))
    many = ofd.partial_l2(torch.zeros(5, 2, 3, 3), torch.ones(5, 2, 3, 3))
    assert one.item() == many.item() == 18


def test_ofd_does_not_change_with_the_rest_of_the_batch_when_the_batch_norm_is_known():
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(4, 3, 2, 2))]
    norms = {"layer0": (torch.ones(3), torch.zeros(3))}
    method = built(maps, maps, norms).eval()  # the connector's own BatchNorm apart
    (s, _), (t, _) = answers(maps), answers(maps)
    whole = method(s, t, torch.zeros(4))["ofd"].item()
    parts = [
        method(*(answers([maps[0][i : i + 1]])[0] for _ in range(2)), torch.zeros(1))["ofd"].item() for i in range(4)
    ]
    assert whole == pytest.approx(np.mean(parts), rel=1e-9)


def test_ofd_keeps_its_margins_with_its_weights():
    maps = [np.zeros((1, 3, 2, 2))]
    method = built(maps, maps, {"layer0": (torch.ones(3), torch.arange(3.0))})
    other = built(maps, maps, {"layer0": (torch.ones(3), torch.zeros(3))})
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.margin_0, method.margin_0)


def test_ofd_refuses_a_batch_norm_that_does_not_fit():
    maps = [np.zeros((1, 3, 2, 2))]
    with pytest.raises(
        UsageError, match=r"batch_norm names 'conv9', which is no feature of the teacher; known:.*layer0"
    ):
        built(maps, maps, {"conv9": (torch.ones(3), torch.ones(3))})
    with pytest.raises(UsageError, match="batch_norm of 'layer0' has 4 channels, its features have 3"):
        built(maps, maps, {"layer0": (torch.ones(4), torch.ones(4))})


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 2, 2), (4, 3, 1, 1)])
def test_ofd_takes_extremes_and_a_single_value_per_channel(value, shape):
    maps = [np.full(shape, value)]
    method = built(maps, maps).float()
    (s, inputs), (t, _) = answers(maps, torch.float32), answers(maps, torch.float32)
    term = method(s, t, torch.zeros(len(maps[0])))["ofd"]
    term.backward()
    assert term.isfinite()
    assert all(tensor.grad.isfinite().all() for tensor in (*inputs, *method.parameters()))


def test_ofd_weight_is_the_published_one():
    assert (dict(create("ofd").default_weights), create("ofd").default_label_weight) == ({"ofd": 1e-3}, 1.0)
