"""Optimisers and schedules against their formulas, written out independently."""

import math

import pytest
import torch
from torch import nn

from model_compression.core.errors import UsageError
from model_compression.core.optim_config import OptimConfig
from model_compression.engine.optim import build_optimizer, rate_at, set_rate
from model_compression.engine.runs import start_run
from model_compression.models import create_model


def rates(epochs, steps_per_epoch, **options):
    config = OptimConfig(**options)
    return [
        rate_at(config, step=step, steps_per_epoch=steps_per_epoch, epochs=epochs)
        for step in range(epochs * steps_per_epoch)
    ]


def test_a_network_that_is_frozen_has_nothing_to_train():
    network = create_model("lenet").requires_grad_(False)
    with pytest.raises(UsageError, match="there is nothing to train: each parameter has requires_grad=False"):
        build_optimizer(network, OptimConfig())
    network.ip2.bias.requires_grad_(True)
    assert len(build_optimizer(network, OptimConfig()).param_groups) == 1


def test_rate_is_constant():
    assert rates(3, 4, lr=0.1) == [0.1] * 12


@pytest.mark.parametrize(
    ("epochs", "step_at", "high"), [(10, 0.8, 8), (100, 0.8, 80), (7, 0.8, 5), (3, 0.5, 1), (2, 1.0, 2)]
)
def test_step_schedule_falls_after_the_integer_part_of_its_share(epochs, step_at, high):
    found = rates(epochs, 3, lr=1.0, schedule="step", step_at=step_at, step_factor=0.1)
    assert found == [1.0] * (3 * high) + [0.1] * (3 * (epochs - high))


def test_step_schedule_of_one_epoch_keeps_its_rate():
    assert rates(1, 5, lr=1e-3, schedule="step") == [1e-3] * 5


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(1, 1), (1, 7), (8, 5), (3, 196)])
def test_one_cycle_rises_and_falls_in_straight_lines(epochs, steps_per_epoch, warmup):
    total = epochs * steps_per_epoch
    found = rates(epochs, steps_per_epoch, lr=2.0, schedule="one_cycle", warmup=warmup)
    for step, rate in enumerate(found):
        share = (step + 0.5) / total
        expected = 2.0 * min(
            share / warmup if warmup else math.inf, (1 - share) / (1 - warmup) if warmup < 1 else math.inf
        )
        assert rate == pytest.approx(expected, rel=1e-12)
        assert 0 < rate <= 2.0
    if total > 100:
        assert sum(found) / total == pytest.approx(1.0, rel=1e-2)


@pytest.mark.parametrize("warmup", [{}, {"warmup_steps": 3}, {"warmup_epochs": 2}], ids=str)
def test_cosine_falls_by_half_a_period_after_the_warm_up(warmup):
    found = rates(5, 4, lr=2.0, schedule="cosine", **warmup)
    rising = {"warmup_steps": 3, "warmup_epochs": 8}[next(iter(warmup))] if warmup else 0
    for step, rate in enumerate(found):
        middle = step + 0.5
        share = (middle - rising) / (20 - rising)
        expected = 2.0 * middle / rising if middle < rising else 1.0 + math.cos(math.pi * share)
        assert rate == pytest.approx(expected, rel=1e-12)
    plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)  # PyTorch's own, which takes the step's beginning
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(plain, T_max=2 * (20 - rising))
    for step in range(2 * (20 - rising)):
        if step % 2:  # its odd half steps are the middles of ours
            assert found[rising + step // 2] == pytest.approx(plain.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
        plain.step()
        theirs.step()


def test_the_other_schedules_rise_first_too():
    assert rates(2, 4, lr=8.0, warmup_epochs=1) == [1.0, 3.0, 5.0, 7.0] + [8.0] * 4
    stepped = rates(4, 2, lr=4.0, schedule="step", step_at=0.5, step_factor=0.25, warmup_steps=2)
    assert stepped == [1.0, 3.0, 4.0, 4.0] + [1.0] * 4


@pytest.mark.parametrize(
    ("optim", "expected"),
    [
        ({"warmup_epochs": 1, "warmup_steps": 2}, "warmup_epochs and warmup_steps both say how long; give one"),
        ({"backbone_lr_scale": 0.1, "layer_decay": 0.7}, "backbone_lr_scale and layer_decay both set the rates"),
        ({"warmup_epochs": 3}, "warmup_epochs 3 must be below the run's 3 epochs"),
        ({"freeze_epochs": 4}, "freeze_epochs must be at most the run's 3 epochs: 4"),
        ({"layer_decay": 0.7}, "layer_decay needs a network that is a row of blocks, and tiny is none: leave it out"),
    ],
)
def test_options_that_cannot_be_are_refused_before_the_run(tiny, tmp_path, optim, expected):
    with pytest.raises(UsageError, match=expected):
        start_run(tiny.config(optim=optim), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_that_goes_on_is_not_begun_with_again():
    optim = OptimConfig(lr=0.5, freeze_epochs=2, warmup_steps=9, clip_grad_norm=1.0)
    assert optim.going_on() == OptimConfig(lr=0.5, clip_grad_norm=1.0)


class Mixed(nn.Module):
    """One of each kind of parameter."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.norm = nn.LayerNorm(4)
        self.fc = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)


def settings_of(model, optimizer):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", pytest.param("muon", marks=pytest.mark.torch("2.9"))])
def test_weights_decay_and_biases_and_norms_do_not(kind):
    model = Mixed()
    config = OptimConfig(optimizer=kind, lr=0.1, weight_decay=0.01, bias_lr_scale=64.0)
    optimizer = build_optimizer(model, config)
    plain, fast = (0.0, 0.1), (0.0, pytest.approx(6.4))
    assert settings_of(model, optimizer) == {
        "conv.weight": (0.01, 0.1), "fc.weight": (0.01, 0.1), "conv.bias": plain, "fc.bias": plain, "scale": plain,
        "bn.weight": plain, "norm.weight": plain, "bn.bias": fast, "norm.bias": fast,
    }  # fmt: skip
    set_rate(optimizer, 0.5)
    assert {rate for _, rate in settings_of(model, optimizer).values()} == {0.5, 32.0}


def test_whitening_cnn_optimizer_leaves_frozen_weights_out():
    model = create_model("whitening-cnn", seed=0, widths=(24, 24, 24))
    settings = settings_of(model, build_optimizer(model, OptimConfig(weight_decay=1e-3, bias_lr_scale=64.0)))
    assert "whiten.weight" not in settings
    assert not any(name.endswith("bn1.weight") for name in settings)
    assert settings["block1.bn1.bias"] == (0.0, pytest.approx(0.064))
    assert settings["block1.conv1.weight"] == (1e-3, 1e-3)


def test_muon_needs_a_torch_that_has_it(monkeypatch, tiny, tmp_path):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(
        UsageError, match=r"optimizer='muon' needs torch 2\.9 or newer, got torch 2\.\d+\S*; .* optimizer='adamw'"
    ):
        start_run(tiny.config(optim={"optimizer": "muon"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def stepped(config, start, gradients):
    """A parameter (3, 1) after steps with the given gradients."""
    layer = nn.Linear(1, 3, bias=False).double()
    layer.weight.data.copy_(torch.tensor(start)[:, None])
    optimizer = build_optimizer(layer, config)
    for gradient in gradients:
        layer.weight.grad = torch.tensor(gradient, dtype=torch.float64)[:, None]
        optimizer.step()
    return layer.weight.detach().flatten().tolist()


GRADIENTS = [[0.5, -1.0, 0.1], [0.2, 0.3, -0.4], [-0.1, 0.0, 0.6]]


def test_sgd_is_nesterovs_with_decay():
    config = OptimConfig(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01)
    found = stepped(config, [1.0, -2.0, 0.5], GRADIENTS)
    for number, start in enumerate([1.0, -2.0, 0.5]):
        weight, speed = start, 0.0
        for gradients in GRADIENTS:
            gradient = gradients[number] + 0.01 * weight
            speed = 0.9 * speed + gradient
            weight -= 0.1 * (gradient + 0.9 * speed)
        assert found[number] == pytest.approx(weight, rel=1e-12)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_complex_parameters_move_as_their_real_and_imaginary_parts(kind):
    start, pull = torch.randn(2, 3, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    moved = []
    for of in (lambda value: value, torch.view_as_real):
        model = nn.ParameterDict({"w": nn.Parameter(of(start.clone()).clone())})
        optimizer = build_optimizer(model, OptimConfig(optimizer=kind, lr=0.1, weight_decay=0.01))
        for _ in range(3):
            model["w"].grad = of(pull).clone()
            optimizer.step()
        moved.append(model["w"].detach())
    torch.testing.assert_close(torch.view_as_real(moved[0]), moved[1])
    assert not torch.equal(moved[0], start)
    with pytest.raises(UsageError, match="takes no complex parameters"):
        build_optimizer(nn.ParameterDict({"w": start}), OptimConfig(optimizer="muon"))


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adam_is_the_papers_and_adamw_decays_apart(kind):
    config = OptimConfig(optimizer=kind, lr=0.01, weight_decay=0.1)
    found = stepped(config, [1.0, -2.0, 0.5], GRADIENTS)
    for number, start in enumerate([1.0, -2.0, 0.5]):
        weight, mean, square = start, 0.0, 0.0
        for time, gradients in enumerate(GRADIENTS, start=1):
            gradient = gradients[number] + (0.1 * weight if kind == "adam" else 0)
            weight -= 0.01 * 0.1 * weight if kind == "adamw" else 0
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            weight -= 0.01 * (mean / (1 - 0.9**time)) / (math.sqrt(square / (1 - 0.999**time)) + 1e-8)
        assert found[number] == pytest.approx(weight, rel=1e-9)
