"""review_kd against convolutions, attention and pyramids written out, for one pair and several."""

import numpy as np
import pytest
import torch
from numerics import answers, convolved, normalised, pooled, ready, slope

import model_compression.distillation.methods.feature.review_kd as review_kd
from model_compression.distillation.methods import create


def built(student, teacher):
    return ready(create("review_kd"), student, teacher)


def nearest(values, size):
    rows = np.arange(size[0]) * values.shape[2] // size[0]
    columns = np.arange(size[1]) * values.shape[3] // size[1]
    return values[:, :, rows][:, :, :, columns]


def context_loss(s, t):
    levels, weights = [((s - t) ** 2).mean()], [1.0]
    for side in (4, 2, 1):
        if side < s.shape[2]:
            size = (side, side)
            levels.append(((pooled(s, size) - pooled(t, size)) ** 2).mean())
            weights.append(weights[-1] / 2)
    return np.dot(levels, weights) / sum(weights)


def expected(method, student, teacher):
    total, deeper = 0.0, None
    for number in reversed(range(len(student))):
        fusion, t = method.fusions[number], teacher[number]
        fused = normalised(convolved(student[number], fusion.narrow[0]), fusion.narrow[1])
        if deeper is not None:
            deeper = nearest(deeper, fused.shape[2:])
            gates = 1 / (1 + np.exp(-convolved(np.concatenate([fused, deeper], axis=1), fusion.attention)))
            fused = fused * gates[:, :1] + deeper * gates[:, 1:]
        deeper = nearest(fused, t.shape[2:])
        total += context_loss(normalised(convolved(deeper, fusion.widen[0]), fusion.widen[1]), t)
    return total


SHAPES = [
    ([(2, 3, 4, 4)], [(2, 3, 4, 4)]),
    ([(2, 3, 8, 8)], [(2, 5, 4, 4)]),
    ([(2, 2, 4, 4), (2, 3, 2, 2)], [(2, 4, 8, 8), (2, 6, 2, 2)]),
    (
        [(3, 2, 6, 6), (3, 3, 4, 4), (3, 4, 2, 2), (3, 4, 1, 1)],
        [(3, 3, 6, 6), (3, 2, 3, 3), (3, 5, 2, 2), (3, 5, 1, 1)],
    ),
]


@pytest.mark.parametrize(("student_shapes", "teacher_shapes"), SHAPES)
def test_review_kd_is_the_context_loss_of_fused_maps_and_its_gradient(student_shapes, teacher_shapes):
    rng = np.random.default_rng(0)
    student, teacher = ([rng.normal(size=shape) for shape in shapes] for shapes in (student_shapes, teacher_shapes))
    method = built(student, teacher)
    (s, inputs), (t, answered) = answers(student), answers(teacher)
    terms = method(s, t, torch.zeros(1))
    assert list(terms) == ["review_kd"]
    assert terms["review_kd"].item() == pytest.approx(expected(method, student, teacher), rel=1e-9)
    terms["review_kd"].backward()
    last = slope(lambda values: expected(method, [*student[:-1], values], teacher), student[-1])
    np.testing.assert_allclose(inputs[-1].grad.numpy(), last, rtol=1e-4, atol=1e-8)
    assert all(parameter.grad is not None for parameter in method.parameters())
    assert all(tensor.grad is None for tensor in answered)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8])
def test_review_kd_context_loss_weighs_its_levels(side):
    rng = np.random.default_rng(side)
    s, t = rng.normal(size=(2, 2, 3, side, side))
    found = review_kd.hierarchical_context_loss(torch.tensor(s), torch.tensor(t))
    assert found.item() == pytest.approx(context_loss(s, t), rel=1e-12)


def test_review_kd_context_loss_of_a_constant_difference_is_its_square_at_every_level():
    t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert review_kd.hierarchical_context_loss(t + 3, t).item() == pytest.approx(9, rel=1e-12)


def test_review_kd_context_loss_is_zero_when_maps_match():
    s = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = review_kd.hierarchical_context_loss(s, s.detach().clone())
    value.backward()
    assert value.item() == 0
    assert not s.grad.any()


def test_review_kd_context_loss_takes_maps_that_are_not_square():
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, 2, 3, 6, 1))
    levels = [((s - t) ** 2).mean()]
    levels += [((pooled(s, (side, 1)) - pooled(t, (side, 1))) ** 2).mean() for side in (4, 2, 1)]
    found = review_kd.hierarchical_context_loss(torch.tensor(s), torch.tensor(t))
    assert found.item() == pytest.approx(np.dot(levels, [1, 0.5, 0.25, 0.125]) / 1.875, rel=1e-12)


def test_review_kd_shallow_teachers_teach_deep_maps_and_not_the_other_way_round():
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(2, 3, 2, 2))]
    method = built(maps, maps)

    def gradients(changed):
        teacher = [values * (2 if number == changed else 1) for number, values in enumerate(maps)]
        (s, inputs), (t, _) = answers(maps), answers(teacher)
        return torch.autograd.grad(method(s, t, torch.zeros(2))["review_kd"], inputs)

    base, shallow, deep = gradients(None), gradients(0), gradients(1)
    assert not torch.allclose(shallow[1], base[1])
    assert torch.allclose(deep[0], base[0])


def test_review_kd_hands_on_at_most_512_channels():
    maps = [np.zeros((2, 600, 1, 1))]
    assert built(maps, maps).fusions[0].narrow[0].out_channels == 512


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("batch", [1, 3])
def test_review_kd_takes_extremes_and_a_single_value_per_channel(value, batch):
    maps = [np.full((batch, 2, 4, 4), value), np.full((batch, 3, 1, 1), value)]
    method = built(maps, maps).float()
    (s, inputs), (t, _) = answers(maps, torch.float32), answers(maps, torch.float32)
    term = method(s, t, torch.zeros(batch))["review_kd"]
    term.backward()
    assert term.isfinite()
    assert all(tensor.grad.isfinite().all() for tensor in (*inputs, *method.parameters()))


def test_review_kd_weight_is_the_published_one():
    assert (dict(create("review_kd").default_weights), create("review_kd").default_label_weight) == (
        {"review_kd": 5.0},
        1.0,
    )
