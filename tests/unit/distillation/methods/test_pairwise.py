"""pairwise against the similarities of places in loops, with its gradient by central differences."""

import numpy as np
import pytest
import torch
from numerics import answers, pooled, ready, slope

from model_compression.core.errors import UsageError
from model_compression.distillation.methods import create

SHAPES = [((2, 3, 4, 4), (2, 5, 4, 4)), ((1, 2, 3, 5), (1, 4, 6, 4)), ((3, 2, 1, 2), (3, 2, 1, 2))]


def similarities(maps):
    places = maps.reshape(len(maps), maps.shape[1], -1)
    return np.array([[[a @ b / np.sqrt((a @ a) * (b @ b)) for a in sample.T] for b in sample.T] for sample in places])


def expected(student, teacher, places):
    size = tuple(min(places, *sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True))
    one, other = (similarities(pooled(maps, size)) for maps in (student, teacher))
    return ((one - other) ** 2).sum() / (size[0] * size[1]) ** 2 / len(student)


@pytest.mark.parametrize("places", [16, 2])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_pairwise_is_the_squared_difference_of_similarities_and_its_gradient(shapes, places):
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(size=shape) for shape in shapes)
    method = ready(create("pairwise", places=places), [student], [teacher])
    (s, inputs), (t, answered) = answers([student]), answers([teacher])
    term = method(s, t, torch.zeros(len(student)))["pairwise"]
    assert term.item() == pytest.approx(expected(student, teacher, places), rel=1e-9)
    term.backward()
    gradient = slope(lambda maps: expected(maps, teacher, places), student)
    np.testing.assert_allclose(inputs[0].grad.numpy(), gradient, rtol=1e-4, atol=1e-8)
    assert answered[0].grad is None


def test_pairwise_is_zero_for_features_turned_and_scaled():
    maps = np.random.default_rng(1).normal(size=(2, 3, 4, 4))
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    other = 7 * np.einsum("oc,bchw->bohw", turn, maps)
    method = ready(create("pairwise"), [maps], [other])
    (s, _), (t, _) = answers([maps]), answers([other])
    assert method(s, t, torch.zeros(2))["pairwise"].item() == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e6])
def test_pairwise_takes_extreme_maps(scale):
    maps = np.random.default_rng(1).normal(size=(2, 3, 2, 2))
    method = ready(create("pairwise"), [maps], [maps])
    (s, inputs), (t, _) = answers([scale * maps], torch.float32), answers([maps], torch.float32)
    term = method(s, t, torch.zeros(2))["pairwise"]
    term.backward()
    assert term.isfinite()
    assert inputs[0].grad.isfinite().all()


def test_pairwise_refuses_maps_of_one_place_and_impossible_numbers():
    with pytest.raises(UsageError, match="the pair of 'layer0' has a single one"):
        ready(create("pairwise"), [np.zeros((1, 3, 1, 1))], [np.zeros((1, 3, 4, 4))])
    for places in (0, 65, 1.5, "all"):
        with pytest.raises(UsageError, match="pairwise: places must be a whole number from 1 to 64, got"):
            create("pairwise", places=places)
