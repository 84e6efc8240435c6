"""rkd against plain loops over pairs and triples, with gradients by central differences."""

import numpy as np
import pytest
import torch
from numerics import evaluate_embeddings, random_pair, slope

import model_compression.distillation.methods.relation  # noqa: F401  (registers)
from model_compression.core.errors import UnknownNameError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create

SHAPES = [(2, 3, 5), (3, 1, 4), (5, 4, 4), (7, 6, 2)]  # batch, width of student and teacher


def huber(difference):
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def psi_distance(e):
    batch = len(e)
    lengths = [[np.sqrt(((e[i] - e[j]) ** 2).sum()) for j in range(batch)] for i in range(batch)]
    positive = [length for row in lengths for length in row if length > 0]
    mean = sum(positive) / len(positive)
    return [length / mean for row in lengths for length in row]


def psi_angle(e):
    batch, angles = len(e), []
    for j in range(batch):
        for i in range(batch):
            for k in range(batch):
                if j in (i, k):
                    angles.append(0.0)
                    continue
                u, v = e[i] - e[j], e[k] - e[j]
                angles.append(u @ v / (np.sqrt(u @ u) * np.sqrt(v @ v)))
    return angles


def expected(term, student, teacher):
    psi = {"distance": psi_distance, "angle": psi_angle}[term]
    differences = [s - t for s, t in zip(psi(student), psi(teacher), strict=True)]
    return sum(map(huber, differences)) / len(differences)


def evaluated(student, teacher, dtype=torch.float64):
    """({term: value}, {term: gradient for the student's embedding})."""
    return evaluate_embeddings(create("rkd"), student, teacher, dtype)


@pytest.mark.parametrize("term", ["distance", "angle"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rkd_is_hubers_loss_of_distances_and_angles(shape, term):
    student, teacher = random_pair(*shape, scale=3.0)
    values, gradients = evaluated(student, teacher)
    assert list(values) == ["distance", "angle"]
    assert values[term] == pytest.approx(expected(term, student, teacher), rel=1e-10, abs=1e-14)
    by_differences = slope(lambda e: expected(term, e, teacher), student)
    np.testing.assert_allclose(gradients[term], by_differences, rtol=1e-5, atol=1e-8)


def test_rkd_is_linear_where_distances_differ_by_more_than_one():
    student, teacher = [[0.0], [1.0], [2.0], [100.0]], [[0.0], [100.0], [1.0], [2.0]]
    assert max(abs(np.subtract(psi_distance(np.array(student)), psi_distance(np.array(teacher))))) > 1
    values, _ = evaluated(student, teacher)
    assert values["distance"] == pytest.approx(expected("distance", np.array(student), np.array(teacher)), rel=1e-12)


def test_rkd_counts_only_positive_distances_into_the_mean():
    student, teacher = random_pair(4, 3, 3)
    student[1] = student[0]  # as two equal images
    values, gradients = evaluated(student, teacher)
    assert values["distance"] == pytest.approx(expected("distance", student, teacher), rel=1e-10)
    assert all(np.isfinite(gradient).all() and abs(gradient).max() < 10 for gradient in gradients.values())


def test_rkd_does_not_normalise_embeddings_first():
    # On one ray all embeddings have one direction; only their lengths, hence distances, differ.
    values, _ = evaluated([[1.0, 1], [2, 2], [4, 4]], [[1.0, 1], [3, 3], [4, 4]])
    assert values["distance"] > 1e-3


def test_rkd_is_zero_for_the_teachers_shape_moved_turned_and_scaled():
    teacher, _ = random_pair(6, 4, 4)
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))
    for student in (teacher, 7 * teacher @ turn + 3):
        values, gradients = evaluated(student, teacher)
        for term in ("distance", "angle"):
            assert values[term] == pytest.approx(0, abs=1e-20)
            np.testing.assert_allclose(gradients[term], 0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-8, 1e4, 1e18])
def test_rkd_takes_extremes(scale, dtype):
    student, teacher = random_pair(5, 3, 4, scale=scale)
    values, gradients = evaluated(student, teacher, dtype)
    for term in ("distance", "angle"):
        assert values[term] == pytest.approx(expected(term, student, teacher), rel=1e-3)
        assert np.isfinite(gradients[term]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e4, -1e4])
def test_rkd_takes_identical_embeddings(value, dtype):
    _, teacher = random_pair(5, 3, 4)
    for pair in ((np.full((5, 3), value), teacher), (teacher, np.full((5, 3), value))):
        values, gradients = evaluated(*pair, dtype)
        assert all(np.isfinite(found) and found > 0 for found in values.values())
        assert all(np.isfinite(gradient).all() and abs(gradient).max() < 10 for gradient in gradients.values())


@pytest.mark.parametrize("student", [[[0.0, 0]], [[1e4, -1e4]]])
def test_rkd_of_one_sample_is_an_attached_zero(student):
    values, gradients = evaluated(student, [[1.0, 2, 3]])
    assert values == {"distance": 0, "angle": 0}
    assert not any(gradient.any() for gradient in gradients.values())


def test_rkd_of_half_precision_equals_its_float32_value():
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(32, 16, generator=generator) for _ in range(2))
    logits, targets, method = torch.zeros(32, 2), torch.zeros(32, dtype=torch.int64), create("rkd")
    exact, half = (
        method(Outputs(logits=logits, embedding=s.to(dtype)), Outputs(logits=logits, embedding=t), targets)
        for dtype in (torch.float32, torch.bfloat16)
    )
    for term in ("distance", "angle"):
        assert half[term].dtype == torch.float32
        assert half[term].item() == pytest.approx(exact[term].item(), rel=1e-2)


def test_rkd_has_the_weights_of_the_paper_and_no_options():
    method = create("rkd")
    assert (dict(method.default_weights), method.default_label_weight) == ({"distance": 25.0, "angle": 50.0}, 1.0)
    with pytest.raises(UnknownNameError, match="unknown option of method 'rkd': 'delta'; known: none"):
        create("rkd", delta=1.0)
