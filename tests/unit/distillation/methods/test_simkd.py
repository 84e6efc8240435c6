"""simkd against the mean of squares, and what it says of the student that it wants."""

import numpy as np
import pytest
import torch
from numerics import evaluate, maps, pooled, ready, slope

from model_compression.core.errors import UsageError
from model_compression.distillation.methods import create


def expected(s, t):
    size = tuple(np.minimum(s.shape[2:], t.shape[2:]))
    return ((pooled(s, size) - pooled(t, size)) ** 2).mean()


SHAPES = [
    ([(3, 4, 4, 4)], [(3, 4, 4, 4)]),
    ([(2, 5, 4, 4)], [(2, 5, 2, 2)]),
    ([(2, 1, 2, 2)], [(2, 1, 4, 4)]),
    ([(2, 2, 4, 4), (2, 6, 4, 2)], [(2, 5, 4, 4), (2, 6, 2, 4)]),
]


@pytest.mark.parametrize(("student_shapes", "teacher_shapes"), SHAPES)
def test_simkd_is_the_squared_error_of_the_last_map_and_its_gradient(student_shapes, teacher_shapes):
    student, teacher = (
        [maps(shape, seed) for shape in shapes] for seed, shapes in ((0, student_shapes), (1, teacher_shapes))
    )
    value, gradients = evaluate(ready(create("simkd"), student, teacher), student, teacher)
    assert value == pytest.approx(expected(student[-1], teacher[-1]), rel=1e-12)
    np.testing.assert_allclose(gradients[-1], slope(lambda x: expected(x, teacher[-1]), student[-1]), atol=1e-9)
    assert not any(gradient.any() for gradient in gradients[:-1])  # the last pair alone


def test_simkd_has_nothing_of_its_own_and_wants_a_student_with_the_teachers_channels():
    method = ready(create("simkd"), [maps((2, 5, 4, 4), 0)], [maps((2, 5, 2, 2), 0)])
    assert not list(method.parameters())
    assert method.reuses_classifier
    with pytest.raises(UsageError, match="the student's maps have 4 channels, the teacher's 5; give the student the"):
        ready(create("simkd"), [maps((2, 4, 4, 4), 0)], [maps((2, 5, 2, 2), 0)])
    assert create("at,simkd").reuses_classifier
    assert not create("at").reuses_classifier


def test_simkd_leaves_the_labels_alone():
    method = create("simkd")
    assert (dict(method.default_weights), method.default_label_weight) == ({"simkd": 1.0}, 0.0)


@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4])
def test_simkd_takes_extremes(value):
    s, t = [np.full((1, 3, 2, 2), value)], [np.full((1, 3, 2, 2), 1e4)]
    found, (gradient,) = evaluate(ready(create("simkd"), s, t), s, t, torch.float32)
    assert found == (value - 1e4) ** 2
    assert np.isfinite(gradient).all()
