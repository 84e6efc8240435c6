"""sp against the paper's equations in loops, with gradients by central differences."""

import numpy as np
import pytest
import torch
from numerics import slope

import model_compression.distillation.methods.relation  # noqa: F401  (registers)
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create

SHAPES = [((2, 1, 2, 2), (2, 3, 1, 1)), ((4, 2, 3, 3), (4, 5, 2, 2)), ((5, 3, 1, 2), (5, 3, 1, 2))]


def similarities(maps):
    flat = maps.reshape(len(maps), -1)
    products = np.array([[sum(a * b) for b in flat] for a in flat])
    return np.array([row / np.sqrt(sum(row**2)) for row in products])


def expected(student, teacher):
    return sum((similarities(student) - similarities(teacher)).ravel() ** 2) / len(student) ** 2


def outputs(*features):
    logits = torch.zeros(len(features[0]), 2)
    return Outputs(logits=logits, features={str(number): maps for number, maps in enumerate(features)})


def evaluated(student, teacher, dtype=torch.float64):
    """(value, gradient for the student's maps)."""
    s = torch.tensor(student, dtype=dtype, requires_grad=True)
    t = torch.tensor(teacher, dtype=dtype, requires_grad=True)
    terms = create("sp")(outputs(s), outputs(t), torch.zeros(len(s), dtype=torch.int64))
    assert list(terms) == ["sp"]
    assert terms["sp"].shape == ()
    gradient, of_teacher = torch.autograd.grad(terms["sp"], (s, t), allow_unused=True)
    assert of_teacher is None
    return terms["sp"].item(), gradient.numpy()


def random_pair(shapes, scale=1.0):
    rng = np.random.default_rng(shapes[0][0])
    return tuple(rng.normal(size=shape) * scale for shape in shapes)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_sp_is_the_squared_difference_of_similarities(shapes):
    student, teacher = random_pair(shapes)
    value, gradient = evaluated(student, teacher)
    assert value == pytest.approx(expected(student, teacher), rel=1e-10)
    np.testing.assert_allclose(gradient, slope(lambda m: expected(m, teacher), student), rtol=1e-5, atol=1e-9)


def test_sp_rows_have_length_one_by_squares_and_not_by_absolute_values():
    # Products [[4, 2], [2, 2]] and the identity, by hand
    student, teacher = np.array([[2.0, 0], [1, 1]]), np.eye(2)
    root = np.sqrt([20, 8])
    hand = ((4 / root[0] - 1) ** 2 + (2 / root[0]) ** 2 + (2 / root[1]) ** 2 + (2 / root[1] - 1) ** 2) / 4
    value, _ = evaluated(student.reshape(2, 2, 1, 1), teacher.reshape(2, 2, 1, 1))
    assert value == pytest.approx(hand, rel=1e-12)


def test_sp_looks_at_the_last_pair():
    first, second = random_pair(SHAPES[1]), random_pair(SHAPES[1], scale=2.0)
    second = second[0] + 1, second[1]
    s, t = (outputs(*map(torch.tensor, side)) for side in zip(first, second, strict=True))
    value = create("sp")(s, t, torch.zeros(4, dtype=torch.int64))["sp"].item()
    assert value == pytest.approx(expected(*second), rel=1e-10)
    assert value != pytest.approx(expected(*first), rel=1e-3)


def test_sp_takes_tokens():
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(3, 4, 6)), rng.normal(size=(3, 16, 5))
    assert evaluated(student, teacher)[0] == pytest.approx(expected(student, teacher), rel=1e-10)


def test_sp_is_zero_when_maps_match_but_for_a_factor():
    student, _ = random_pair(SHAPES[1])
    for teacher in (student, 5 * student):
        value, gradient = evaluated(student, teacher)
        assert value == pytest.approx(0, abs=1e-28)
        np.testing.assert_allclose(gradient, 0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-10, 1e4, 1e15])
def test_sp_takes_extremes(scale, dtype):
    student, teacher = random_pair(SHAPES[1], scale=scale)
    value, gradient = evaluated(student, teacher, dtype)
    assert value == pytest.approx(expected(student, teacher), rel=1e-4)
    assert np.isfinite(gradient).all()
    assert gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fill", [0.0, 1.0, -1e4])
def test_sp_takes_identical_maps_and_dead_ones(fill, dtype):
    student, teacher = random_pair(SHAPES[1])
    all_alike, one_dead = np.full_like(student, fill), student.copy()
    one_dead[2] = 0
    for maps in (all_alike, one_dead):
        value, gradient = evaluated(maps, teacher, dtype)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        assert abs(gradient).max() < 10
        value, gradient = evaluated(teacher, maps, dtype)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_sp_of_one_sample_is_an_attached_zero():
    value, gradient = evaluated(*random_pair(((1, 2, 2, 2), (1, 3, 1, 1))))
    assert value == 0
    assert not gradient.any()


def test_sp_of_half_precision_equals_its_float32_value():
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(32, 8, 4, 4, generator=generator) for _ in range(2))
    targets, method = torch.zeros(32, dtype=torch.int64), create("sp")
    exact, half = (method(outputs(s.to(dtype)), outputs(t), targets)["sp"] for dtype in (torch.float32, torch.bfloat16))
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=1e-2)


def test_sp_has_the_weight_of_the_paper():
    method = create("sp")
    assert (dict(method.default_weights), method.default_label_weight) == ({"sp": 3000.0}, 1.0)
    assert method.needs == {"features"}
