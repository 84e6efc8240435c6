"""holistic against a critic written out from its weights, with penalties sample by sample, in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model_compression.core.counter_random import uniform
from model_compression.core.errors import UsageError
from model_compression.core.outputs import Outputs
from model_compression.distillation.methods import Context, create

SHAPES = [((3, 4, 20, 37), 16), ((2, 2, 7, 33), 32)]  # of maps (B, K, H, W), and the size of what the critic sees


def built(shape, size, **params):
    method = create("holistic", size=size, width=4, **params)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method.setup({"student": {"inputs": (1, 2, *shape[2:])}}, 9, shape[1])
        for parameter in method.parameters():  # γ of attention too, which starts at 0
            torch.nn.init.normal_(parameter, std=0.25)
    return method.double()


def drawn(shape):
    generator = torch.Generator().manual_seed(5)
    student, teacher = (3 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    images = torch.randn(shape[0], 2, *shape[2:], generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher.requires_grad_(), images


def terms_of(method, student, teacher, images, step=3):
    rows = torch.zeros(5, student.shape[1])
    context = Context(ids=torch.zeros(5, dtype=torch.int64), epoch=0, step=step, seed=8)
    own = Outputs(logits=rows, maps=student, inputs=images)
    return method(own, Outputs(logits=rows, maps=teacher), torch.zeros(5, dtype=torch.int64), context)


def attended(x, weights, name):
    """Self-attention, place by place."""
    flat = x.reshape(x.shape[0], -1)

    def projected(part):
        return weights[f"{name}.{part}.weight"][:, :, 0, 0] @ flat + weights[f"{name}.{part}.bias"][:, None]

    query, key, value = (projected(part) for part in ("query", "key", "value"))
    places = []
    for place in range(flat.shape[1]):
        scores = query[:, place] @ key
        likeness = torch.exp(scores - scores.max())
        places.append((value * likeness / likeness.sum()).sum(dim=1))
    return x + weights[f"{name}.gamma"] * torch.stack(places, dim=1).view_as(x)


def score(weights, maps, image):
    """Of one sample (K, H, W) with its image (C, H, W)."""
    x = torch.cat([maps, image])
    for number in (0, 2, 4, 7):
        x = F.conv2d(x[None], weights[f"{number}.weight"], weights[f"{number}.bias"], stride=2, padding=1)[0]
        x = torch.where(x > 0, x, 0.1 * x)
        if number > 2:
            x = attended(x, weights, str(number + 2))
    return F.conv2d(x[None], weights["10.weight"], weights["10.bias"], padding=1).mean()


def brought(maps, size):
    """Averaged, or linear from a side of 7, to multiples of 16."""
    height, width = (max(16, min(size, side) // 16 * 16) for side in maps.shape[2:])
    up = F.interpolate(maps, (max(height, maps.shape[2]), maps.shape[3]), mode="bilinear")
    return F.adaptive_avg_pool2d(up, (height, width))


def expected(method, student, teacher, images, step=3):
    """Both terms, each a mean of what single samples give."""
    weights = {name.removeprefix("critic.layers."): p for name, p in method.named_parameters()}
    images = brought(images, method.size)
    s, t = (brought(torch.exp(x) / torch.exp(x).sum(dim=1, keepdim=True), method.size) for x in (student, teacher))
    share = float(uniform(torch.zeros(1, dtype=torch.int64), 8, step))
    holistic, critic = [], []
    for own, taught, image in zip(s, t, images, strict=True):
        held = {name: weight.detach() for name, weight in weights.items()}
        holistic.append(score(held, taught.detach(), image) - score(held, own, image))
        between = (share * taught + (1 - share) * own).detach().requires_grad_()
        (slope,) = torch.autograd.grad(score(weights, between, image), between, create_graph=True)
        penalty = method.penalty * (slope.norm() - 1) ** 2
        critic.append(score(weights, own.detach(), image) - score(weights, taught.detach(), image) + penalty)
    return {"holistic": torch.stack(holistic).mean(), "critic": torch.stack(critic).mean()}


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_holistic_terms_and_their_gradients_are_those_of_single_samples(shape, size):
    method, (student, teacher, images) = built(shape, size, penalty=7.0), drawn(shape)
    found, wanted = (compute(method, student, teacher, images) for compute in (terms_of, expected))
    leaves = [student, teacher, *method.parameters()]
    for name, term in wanted.items():
        assert found[name].item() == pytest.approx(term.item(), rel=1e-9)
        gradients = [torch.autograd.grad(side, leaves, allow_unused=True) for side in (found[name], term)]
        for one, other in zip(*gradients, strict=True):
            assert (one is None) == (other is None)
            if other is not None:
                np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-12)
        # the student learns by one term, the critic by the other, and the teacher by none
        assert [gradient is None for gradient in gradients[0]][:3] == [name == "critic", True, name == "holistic"]


def test_holistic_draws_its_share_anew_at_each_step():
    method, given = built((2, 3, 16, 16), 16), drawn((2, 3, 16, 16))
    assert terms_of(method, *given, step=3)["critic"].item() != terms_of(method, *given, step=4)["critic"].item()


def test_descent_moves_the_student_to_the_teachers_maps():
    """The critic learns to tell them apart, and the student, which is its maps here, to be taken for the teacher."""
    method = create("holistic", size=16, width=4)
    torch.manual_seed(0)
    method.setup({"student": {"inputs": (1, 1, 16, 16)}}, 9, 2)
    halves = torch.where(torch.arange(16) < 8, 3.0, -3.0).expand(2, 16, 16)
    teacher, images = torch.stack([halves, -halves], dim=1), torch.zeros(2, 1, 16, 16)
    student = torch.zeros_like(teacher).requires_grad_()
    optimizer = torch.optim.Adam([student, *method.parameters()], lr=0.05)

    def distance():
        return float((student.detach().softmax(dim=1) - teacher.softmax(dim=1)).abs().mean())

    before = distance()
    for step in range(30):
        terms = terms_of(method, student, teacher, images, step)
        optimizer.zero_grad()
        sum(method.default_weights[name] * term for name, term in terms.items()).backward()
        optimizer.step()
    assert distance() < 0.5 * before


def test_holistic_refuses_answers_without_maps_or_images_and_impossible_numbers():
    method, (student, teacher, images) = built((2, 3, 16, 16), 16), drawn((2, 3, 16, 16))
    with pytest.raises(UsageError, match="holistic judges maps beside their images: give the student's Outputs"):
        terms_of(method, student, teacher, None)
    with pytest.raises(UsageError, match="holistic compares maps of class scores, which segmentation has"):
        terms_of(method, student, None, images)
    for params in ({"size": 65}, {"size": 0}, {"width": 0}, {"penalty": 0}, {"width": "all"}):
        with pytest.raises(UsageError, match=f"holistic: {next(iter(params))} must be"):
            create("holistic", **params)
