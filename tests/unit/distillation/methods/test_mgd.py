"""mgd against masked convolutions written out, and its masks: how many, whose, and when they change."""

import numpy as np
import pytest
import torch
from numerics import answers, convolved, pooled, ready, slope

import model_compression.distillation.methods.feature.mgd as mgd
from model_compression.core.errors import UsageError
from model_compression.distillation.methods import create


def built(student, teacher, **params):
    return ready(create("mgd", **params), student, teacher)


def expected(method, student, teacher, masks):
    total = 0.0
    for number, (s, t, mask) in enumerate(zip(student, teacher, masks, strict=True)):
        size = tuple(np.minimum(s.shape[2:], t.shape[2:]))
        s, t = pooled(s, size), pooled(t, size)
        generator = method.generators[number]
        if s.shape[1] != t.shape[1]:
            s = convolved(s, generator.align)
        hidden = np.maximum(convolved(s * mask, generator.restore[0]), 0)
        total += ((convolved(hidden, generator.restore[2]) - t) ** 2).sum() / len(s)
    return total


SHAPES = [
    ([(3, 4, 4, 4)], [(3, 4, 4, 4)]),
    ([(2, 3, 4, 4)], [(2, 5, 2, 2)]),
    ([(1, 3, 2, 2), (1, 2, 2, 2)], [(1, 2, 4, 4), (1, 6, 2, 2)]),
]


@pytest.mark.parametrize("mask_ratio", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("student_shapes", "teacher_shapes"), SHAPES)
def test_mgd_is_the_summed_square_of_what_was_generated_and_its_gradient(
    student_shapes, teacher_shapes, mask_ratio, context
):
    rng = np.random.default_rng(0)
    student, teacher = ([rng.normal(size=shape) * 2 for shape in shapes] for shapes in (student_shapes, teacher_shapes))
    method = built(student, teacher, mask_ratio=mask_ratio)
    (s, inputs), (t, answered) = answers(student), answers(teacher)
    where = context(range(len(student[0])))
    terms = method(s, t, torch.zeros(1), where)
    assert list(terms) == ["mgd"]
    sizes = [tuple(np.minimum(a.shape[2:], b.shape[2:])) for a, b in zip(student, teacher, strict=True)]
    masks = [mgd.keep_mask(where, pair, size, mask_ratio).numpy() for pair, size in enumerate(sizes)]
    assert terms["mgd"].item() == pytest.approx(expected(method, student, teacher, masks), rel=1e-9)
    terms["mgd"].backward()
    first = slope(lambda values: expected(method, [values, *student[1:]], teacher, masks), student[0])
    np.testing.assert_allclose(inputs[0].grad.numpy(), first, rtol=1e-4, atol=1e-6)
    assert all(tensor.grad is None for tensor in answered)


@pytest.mark.parametrize("mask_ratio", [0.0, 0.15, 0.5, 0.75])
def test_mgd_blanks_its_share_of_positions_independently(mask_ratio, context):
    keep = mgd.keep_mask(context(range(2000)), 0, (7, 5), mask_ratio)
    assert keep.shape == (2000, 1, 7, 5)  # one mask for all channels
    per_position, per_sample = keep.double().mean(dim=0), keep.double().flatten(1).mean(dim=1)
    np.testing.assert_allclose(per_position.numpy(), 1 - mask_ratio, atol=0.06)
    np.testing.assert_allclose(per_sample.mean(), 1 - mask_ratio, atol=0.01)
    # Positions of a sample are independent: the variance of their mean is that of 35 coins.
    np.testing.assert_allclose(per_sample.var(), mask_ratio * (1 - mask_ratio) / 35, rtol=0.15, atol=1e-12)


def test_mgd_masks_follow_seed_step_pair_and_sample_and_nothing_else(context):
    base = mgd.keep_mask(context([4, 9, 2]), 0, (8, 8), 0.5)
    assert torch.equal(base, mgd.keep_mask(context([4, 9, 2]), 0, (8, 8), 0.5))
    assert torch.equal(base[[2, 0]], mgd.keep_mask(context([2, 4]), 0, (8, 8), 0.5))
    others = [
        mgd.keep_mask(context([4, 9, 2], step=12), 0, (8, 8), 0.5),
        mgd.keep_mask(context([4, 9, 2], seed=4), 0, (8, 8), 0.5),
        mgd.keep_mask(context([4, 9, 2]), 1, (8, 8), 0.5),
        mgd.keep_mask(context([5, 10, 3]), 0, (8, 8), 0.5),
    ]
    assert all((other == base).double().mean().item() == pytest.approx(0.5, abs=0.15) for other in others)
    assert (base[0] == base[1]).double().mean().item() == pytest.approx(0.5, abs=0.2)


def test_mgd_sums_over_elements_and_averages_over_the_batch():
    one = mgd.summed_squares(torch.zeros(1, 2, 3, 3), torch.ones(1, 2, 3, 3))
    many = mgd.summed_squares(torch.zeros(5, 2, 3, 3), torch.ones(5, 2, 3, 3))
    assert one.item() == many.item() == 18


def test_mgd_sees_nothing_of_what_is_blanked(context):
    maps = [np.random.default_rng(0).normal(size=(3, 2, 4, 4))]
    teacher = [np.random.default_rng(1).normal(size=(3, 5, 4, 4))]
    method, where = built(maps, teacher), context([0, 1, 2])
    keep = mgd.keep_mask(where, 0, (4, 4), 0.5).expand(3, 2, 4, 4)
    (s, inputs), (t, _) = answers(maps), answers(teacher)
    method(s, t, torch.zeros(3), where)["mgd"].backward()
    assert not inputs[0].grad[~keep].any()
    assert inputs[0].grad[keep].any()
    # A blanked position is 0 also behind the alignment, whose bias would fill it.
    moved, _ = answers([maps[0] + 100 * ~keep.numpy()])
    assert method(moved, t, torch.zeros(3), where)["mgd"].item() == method(s, t, torch.zeros(3), where)["mgd"].item()
    blank = method.generators[0](inputs[0], torch.zeros(3, 1, 4, 4))
    assert torch.equal(blank[0], method.generators[0].restore(torch.zeros(1, 5, 4, 4, dtype=torch.float64))[0])


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 2, 2), (4, 3, 1, 1)])
def test_mgd_takes_extremes(value, shape, context):
    maps = [np.full(shape, value)]
    method = built(maps, maps).float()
    (s, inputs), (t, _) = answers(maps, torch.float32), answers(maps, torch.float32)
    term = method(s, t, torch.zeros(shape[0]), context(range(shape[0])))["mgd"]
    term.backward()
    assert term.isfinite()
    assert all(tensor.grad.isfinite().all() for tensor in (*inputs, *method.parameters()))


@pytest.mark.parametrize("mask_ratio", [-0.1, 1, 1.5, float("nan"), "half", None, True])
def test_mgd_refuses_an_impossible_share(mask_ratio):
    with pytest.raises(UsageError, match=r"mgd: mask_ratio must be a number from 0 to below 1 .* got"):
        create("mgd", mask_ratio=mask_ratio)


def test_mgd_weight_and_share_are_the_published_ones():
    method = create("mgd")
    assert (dict(method.default_weights), method.default_label_weight, method.mask_ratio) == ({"mgd": 7e-5}, 1.0, 0.5)
