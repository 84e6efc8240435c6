"""LightlyTrain's documented losses against the queue and the divergence written out in float64."""

import numpy as np
import pytest
import torch

from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import create

TARGETS = torch.zeros(4, 1, dtype=torch.int64)


def vectors(*shape, seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def built(variant="v1", **params):
    method = create("lightly", variant=variant, **params)
    maps = {"student": {"a": (1, 3, 2, 2)}, "teacher": {"b": (1, 5, 2, 2)}}
    sides = {side: {"logits": (1, width), "features": maps[side]} for side, width in (("student", 3), ("teacher", 5))}
    method.setup(sides, 10, 0)
    return method.double()


def units(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def divergence(method, s, t, queue, temperature):
    """Mean KL(p(t) ‖ p(s)) of softmaxes over the similarities with ``queue``."""
    p = s.numpy() @ method.projection.weight.detach().numpy().T + method.projection.bias.detach().numpy()
    found = []
    for own, taught in zip(units(p), units(t.numpy()), strict=True):
        logits = [np.array([one @ q for q in queue]) / temperature for one in (taught, own)]
        log_t, log_s = (one - np.log(np.exp(one).sum()) for one in logits)
        found.append((np.exp(log_t) * (log_t - log_s)).sum())
    return np.mean(found)


def test_classes_are_the_last_embeddings_of_the_teacher():
    method = built(queue_size=6, temperature=0.5)
    s, t = vectors(4, 3, seed=0), vectors(4, 5, seed=1)
    first = method(Outputs(logits=s), Outputs(logits=t), TARGETS)["classes"]
    assert first.item() == pytest.approx(divergence(method, s, t, units(t.numpy()), 0.5), rel=1e-10)
    s2, t2 = vectors(4, 3, seed=2), vectors(4, 5, seed=3)
    second = method(Outputs(logits=s2), Outputs(logits=t2), TARGETS)["classes"]
    queue = [*units(t2.numpy()), *units(t.numpy())[:2]]  # the oldest two of six went
    assert second.item() == pytest.approx(divergence(method, s2, t2, queue, 0.5), rel=1e-10)


def test_classes_vanish_at_equality_and_eval_mode_keeps_the_queue():
    method = built()
    t = vectors(4, 5, seed=1)
    method.projection = torch.nn.Identity()
    method.eval()
    assert method(Outputs(logits=2 * t), Outputs(logits=t), TARGETS)["classes"].item() == pytest.approx(0, abs=1e-12)
    assert int(method.filled) == 0


def test_patches_are_squared_distances_of_projected_maps():
    method = built("v3")
    s, t = vectors(4, 3, 2, 2, seed=4), vectors(4, 5, 2, 2, seed=5)
    logits = [Outputs(logits=vectors(4, width, seed=6), features={"a": one}) for width, one in ((3, s), (5, t))]
    terms = method(*logits, TARGETS)
    (layer,) = method.patch_projections
    found = np.einsum("oc,bchw->bohw", layer.weight.detach().numpy(), s.numpy())
    found += layer.bias.detach().numpy()[:, None, None]
    assert set(terms) == {"classes", "patches"}
    assert terms["patches"].item() == pytest.approx(((found - t.numpy()) ** 2).mean(), rel=1e-10)


@pytest.mark.parametrize(
    "params", [{"variant": "v4"}, {"queue_size": 1}, {"queue_size": 2.5}, {"temperature": 0.0}], ids=str
)
def test_impossible_parameters_are_refused(params):
    with pytest.raises(UsageError, match="must be"):
        create("lightly", **params)
