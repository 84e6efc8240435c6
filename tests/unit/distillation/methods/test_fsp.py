"""fsp against Gram matrices summed position by position."""

import numpy as np
import pytest
import torch
from numerics import evaluate, maps, pooled, ready, slope

from model_compression.distillation.methods.feature.fsp import FSP


def gram(x, y):
    batch, channels, height, width = x.shape
    found = np.zeros((batch, channels, y.shape[1]))
    for row in range(height):
        for column in range(width):
            for b in range(batch):
                found[b] += np.outer(x[b, :, row, column], y[b, :, row, column]) / (height * width)
    return found


def flow(x, y):
    height, width = min(x.shape[2], y.shape[2]), min(x.shape[3], y.shape[3])
    return gram(pooled(x, (height, width)), pooled(y, (height, width)))


def expected(student, teacher):
    total = 0.0
    for layer in range(len(student) - 1):
        difference = flow(*student[layer : layer + 2]) - flow(*teacher[layer : layer + 2])
        total += (difference**2).sum() / difference.size
    return total


def check(student, teacher, project=lambda student: student, method=None):
    value, gradients = evaluate(method or ready(FSP(), student, teacher), student, teacher)
    assert value == pytest.approx(expected(project(student), teacher), rel=1e-9, abs=1e-14)
    for layer, gradient in enumerate(gradients):

        def moved(x, layer=layer):
            return expected(project([*student[:layer], x, *student[layer + 1 :]]), teacher)

        np.testing.assert_allclose(gradient, slope(moved, student[layer]), rtol=1e-5, atol=1e-8)


SIZES = [
    [(3, 4, 4), (5, 4, 4)],
    [(3, 4, 4), (5, 2, 2)],  # the flow crosses a change of size
    [(2, 2, 2), (3, 4, 4), (1, 4, 2)],
    [(2, 1, 1), (1, 1, 1)],
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_fsp_is_the_mean_square_of_the_difference_of_flows(sizes, batch):
    check([maps((batch, *size), i) for i, size in enumerate(sizes)], [maps((batch, *size), 9) for size in sizes])


def test_fsp_compares_networks_of_other_sizes_without_pooling_between_them():
    check([maps((2, 3, 4, 4), 0), maps((2, 4, 4, 2), 1)], [maps((2, 3, 6, 6), 2), maps((2, 4, 2, 3), 3)])


def test_fsp_projects_where_widths_differ_and_only_there():
    s, t = [maps((2, 3, 4, 4), 0), maps((2, 4, 2, 2), 1)], [maps((2, 3, 4, 4), 2), maps((2, 7, 2, 2), 3)]
    method = ready(FSP(), s, t)
    assert [tuple(parameter.shape) for parameter in method.parameters()] == [(7, 4, 1, 1)]
    weight = method.projectors[1].weight.detach().numpy()[:, :, 0, 0]
    check(s, t, lambda student: [student[0], np.einsum("oc,bchw->bohw", weight, student[1])], method)


def test_fsp_needs_two_pairs_and_joins_neighbours():
    assert FSP.min_pairs == 2
    s, t = ([maps((2, 3, 2, 2), seed + i) for i in range(3)] for seed in (0, 5))
    method = ready(FSP(), s, t)
    all_flows, _ = evaluate(method, s, t)
    parts = [evaluate(ready(FSP(), s[i : i + 2], t[i : i + 2]), s[i : i + 2], t[i : i + 2])[0] for i in range(2)]
    assert all_flows == pytest.approx(sum(parts), rel=1e-12)  # 1→2 and 2→3, not 1→3


def test_fsp_is_zero_when_maps_match():
    s = [maps((2, 3, 4, 4), 0), maps((2, 4, 2, 2), 1)]
    value, gradients = evaluate(ready(FSP(), s, s), s, s)
    assert value == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("student", [1e4, -1e4, 0.0])
def test_fsp_takes_extremes(student, dtype):
    s, t = [np.full((1, 3, 4, 4), student)] * 2, [np.full((1, 5, 4, 4), 1e4)] * 2
    value, gradients = evaluate(ready(FSP(), s, t), s, t, dtype)
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_fsp_weighs_as_the_benchmark():
    assert (FSP.default_weights, FSP.default_label_weight) == ({"fsp": 50.0}, 1.0)
