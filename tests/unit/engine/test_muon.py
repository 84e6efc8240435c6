"""Muon against its formula in float64, PyTorch's own, and a singular value decomposition."""

import copy
import math

import pytest
import torch
from torch import nn

from model_compression.engine.checkpoint import optimizer_tensors, restore_optimizer
from model_compression.engine.muon import MuonWithAdamW

pytestmark = pytest.mark.torch("2.9")


def stepped(model, optimizer, gradients):
    """The parameters by name after steps with the given gradients, one dict of them a step."""
    for step in gradients:
        for name, parameter in model.named_parameters():
            parameter.grad = step[name].clone()
        optimizer.step()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def gradients_of(model, steps=3):
    generator = torch.Generator().manual_seed(1)
    return [
        {name: torch.randn(parameter.shape, generator=generator) for name, parameter in model.named_parameters()}
        for _ in range(steps)
    ]


def muon(parameters, lr=0.01, weight_decay=0.1, momentum=0.9):
    return MuonWithAdamW([{"params": list(parameters), "lr": lr, "weight_decay": weight_decay}], momentum=momentum)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (6, 2, 3, 3), (3, 8, 3, 3)], ids=str)
def test_step_orthogonalises_the_momentum_of_the_matrix(shape):
    """The five iterations of the quintic, in float64, on Nesterov's momentum; the step's size is that of AdamW."""
    model = nn.ParameterDict({"weight": torch.randn(shape, generator=torch.Generator().manual_seed(0))})
    start, gradients = model["weight"].detach().double().flatten(1), gradients_of(model)
    found = stepped(model, muon(model.parameters()), gradients)["weight"].double().flatten(1)
    weight, speed = start, torch.zeros_like(start)
    for step in gradients:
        gradient = step["weight"].double().flatten(1)
        speed = 0.9 * speed + 0.1 * gradient
        update = 0.9 * speed + 0.1 * gradient
        update = update / update.norm()
        for _ in range(5):
            u, s, v = torch.linalg.svd(update, full_matrices=False)  # a polynomial of the singular values
            update = u @ torch.diag(3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5) @ v
        weight = weight * (1 - 0.01 * 0.1) - 0.01 * 0.2 * math.sqrt(max(update.shape)) * update
    torch.testing.assert_close(found, weight, rtol=0, atol=4e-4)  # its iterations are in bfloat16
    assert (found - start).abs().max() > 1e-2


def test_matrices_are_stepped_on_as_by_pytorch_and_all_others_as_by_adamw():
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 2))

    model, other = network(), network()
    other.register_parameter("token", nn.Parameter(torch.ones(1, 1, 5)))  # a vector, whatever its shape
    model.register_parameter("token", nn.Parameter(torch.ones(1, 1, 5)))
    gradients = gradients_of(model)
    found = stepped(model, muon(model.parameters()), gradients)

    named = dict(other.named_parameters())
    linear = [named["3.weight"], named["4.weight"]]
    vectors = [parameter for name, parameter in named.items() if parameter.ndim == 1 or name == "token"]
    theirs = torch.optim.Muon(linear, 0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    stepped(other, theirs, gradients)
    stepped(other, torch.optim.AdamW(vectors, lr=0.01, weight_decay=0.1), gradients)
    for name, parameter in named.items():
        if name != "0.weight":
            torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-6, atol=1e-7)
    assert len(linear) + len(vectors) == len(named) - 1


def test_layout_in_memory_does_not_matter():
    plain = nn.Conv2d(8, 6, 3)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    assert last.weight.stride() != plain.weight.stride()
    gradients = gradients_of(plain)
    found = stepped(plain, muon(plain.parameters()), gradients)
    again = stepped(last, muon(last.parameters()), gradients)
    assert torch.equal(found["weight"], again["weight"])


def test_weights_changed_from_outside_are_stepped_on_as_they_are():
    model = nn.Conv2d(3, 4, 3)
    gradients = gradients_of(model)
    optimizer = muon(model.parameters(), weight_decay=0.0)
    stepped(model, optimizer, gradients[:1])
    with torch.no_grad():
        model.weight.zero_()
    found = stepped(model, optimizer, gradients[1:2])["weight"]
    assert 0 < found.abs().max() < 0.02 * math.sqrt(27)


def test_a_parameter_without_a_gradient_stays():
    model = nn.Conv2d(3, 4, 3)
    before = model.weight.detach().clone()
    optimizer = muon(model.parameters())
    model.bias.grad = torch.ones(4)
    optimizer.step()
    assert torch.equal(model.weight, before)
    assert set(optimizer_tensors(optimizer)) == {"1.exp_avg", "1.exp_avg_sq", "1.step"}


def test_it_learns_and_goes_on_from_its_state():
    """A badly scaled problem, stopped in the middle."""
    torch.manual_seed(0)
    inputs = torch.randn(64, 6) * torch.logspace(0, -2, 6)
    targets = inputs @ torch.randn(6, 3)

    def losses(steps, state=None):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 3))
        optimizer = muon(model.parameters(), lr=0.03, weight_decay=0.0)
        if state is not None:
            model.load_state_dict(state[0])
            restore_optimizer(optimizer, state[1])
        found = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (model(inputs) - targets).square().mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found, (model.state_dict(), {k: v.clone() for k, v in optimizer_tensors(optimizer).items()})

    whole, _ = losses(60)
    first, state = losses(25)
    rest, _ = losses(35, state)
    assert first + rest == whole
    assert whole[-1] < whole[0] / 10
