"""Alignment of embeddings and tokens against cosines and squares written out."""

import numpy as np
import pytest
import torch
from torch import nn

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create

TARGETS = torch.zeros(5, 1, dtype=torch.int64)


def vectors(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def aligned(student, teacher, **params):
    method = create("align", **params)
    sides = {"student": {"logits": (1, student.shape[1])}, "teacher": {"logits": (1, teacher.shape[1])}}
    method.setup(sides, 10, 0)
    method.double()
    term = method(Outputs(logits=student), Outputs(logits=teacher), TARGETS)["align"]
    return method, term


def projected(method, student):
    layers = [method.projection] if isinstance(method.projection, nn.Linear) else list(method.projection)
    found = student.numpy()
    for layer in layers:
        if isinstance(layer, nn.Linear):
            found = found @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        else:
            found = torch.nn.functional.gelu(torch.from_numpy(found)).numpy()
    return found


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_align_is_one_minus_the_mean_cosine_of_the_projection(kind):
    s, t = vectors(5, 3), vectors(5, 4, seed=1)
    method, term = aligned(s, t, projector=kind)
    p, q = projected(method, s), t.numpy()
    cosines = [p[i] @ q[i] / np.sqrt((p[i] @ p[i]) * (q[i] @ q[i])) for i in range(5)]
    assert term.item() == pytest.approx(1 - np.mean(cosines), rel=1e-10)


def whitened(t):
    return (t - t.mean(axis=-1, keepdims=True)) / np.sqrt(t.var(axis=-1, keepdims=True) + 1e-5)


def test_align_compares_whitened_embeddings_by_squares_or_huber():
    s, t = vectors(5, 3), 3 * vectors(5, 4, seed=1)
    method, squares = aligned(s, t, distance="mse")
    gaps = projected(method, s) - whitened(t.numpy())
    assert squares.item() == pytest.approx((gaps**2).mean(), rel=1e-10)
    method, huber = aligned(s, t, distance="smooth_l1")
    gaps = np.abs(projected(method, s) - whitened(t.numpy()))
    assert huber.item() == pytest.approx(np.where(gaps < 1, gaps**2 / 2, gaps - 0.5).mean(), rel=1e-10)


@pytest.mark.parametrize("teacher", [(5, 4, 2, 2), (5, 5, 4)], ids=["maps", "tokens behind a class token"])
def test_align_tokens_matches_each_position_and_no_class_token(teacher):
    s, t = vectors(5, 3, 4, 4), vectors(*teacher, seed=1)
    method = create("align_tokens", distance="mse")
    sides = {side: {"features": {"a": (1, *one.shape[1:])}} for side, one in (("student", s), ("teacher", t))}
    method.setup(sides, 10, 0)
    method.double()
    logits = torch.zeros(5, 2, dtype=torch.float64)
    term = method(Outputs(logits=logits, features={"a": s}), Outputs(logits=logits, features={"a": t}), TARGETS)
    # Half as many positions, corners not aligned: each is the mean of the four in its middle.
    smaller = s.numpy().reshape(5, 3, 2, 2, 2, 2).mean(axis=(3, 5)).transpose(0, 2, 3, 1)
    wanted = t.numpy().transpose(0, 2, 3, 1) if t.ndim == 4 else t.numpy()[:, 1:].reshape(5, 2, 2, 4)
    (layer,) = method.projections
    found = smaller @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    assert term["tokens"].item() == pytest.approx(((found - whitened(wanted)) ** 2).mean(), rel=1e-10)


def test_align_vanishes_where_the_student_is_a_rotation_of_the_teacher():
    t = vectors(5, 4)
    rotation = torch.linalg.qr(vectors(4, 4, seed=2))[0]
    method = create("align")
    method.setup({side: {"logits": (1, 4)} for side in ("student", "teacher")}, 10, 0)
    method.double()
    with torch.no_grad():
        method.projection.weight.copy_(rotation)
        method.projection.bias.zero_()
    student = 7 * t @ rotation
    assert method(Outputs(logits=student), Outputs(logits=t), TARGETS)["align"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("params", [{"distance": "l2"}, {"projector": "deep"}])
def test_align_names_what_it_knows(params):
    with pytest.raises(UsageError, match=r"must be .* or "):
        create("align", **params)
