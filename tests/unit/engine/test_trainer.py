"""The trainer: its step against plain PyTorch, its averages against float64, and what stops it."""

import pytest
import torch
import torch.nn.functional as F

from model_compression.core.config import MethodConfig
from model_compression.core.errors import NumericalError, UsageError, WeightsMismatchError
from model_compression.data.loader import ResidentLoader
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.engine.checkpoint import State
from model_compression.engine.optim import rate_at
from model_compression.engine.runtime import Runtime
from model_compression.engine.trainer import Trainer
from model_compression.engine.trainer_state import restore, state_of
from model_compression.models import create_model
from model_compression.models.loading import read_model

CPU = torch.device("cpu")


@pytest.fixture
def built(tiny):
    def build(config, student=None, precision=torch.float32):
        teacher = LiveTeacher([read_model(tiny.teacher)], CPU, torch.float32) if config.teacher else None
        student = student or create_model("tiny", seed=config.seed)
        return Trainer(config, student, teacher, tiny.data()[0], Runtime(device=CPU, precision=precision))

    return build


def trained(trainer, epochs=3, watch=lambda progress: None):
    """The trainer's events after ``epochs`` more."""
    return [trainer.run_epoch(watch) for _ in range(epochs)]


def no_dropout():
    return create_model("tiny", seed=0, dropout=0.0)


def test_trainer_steps_are_those_of_plain_pytorch(tiny, built):
    config = tiny.config(optim={"optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "schedule": "one_cycle"})
    trainer = built(config, no_dropout())
    events = trained(trainer)

    model, train_set = no_dropout(), tiny.data()[0]
    loader = ResidentLoader(train_set, config.data, CPU)
    step, losses = 0, []
    for epoch in range(3):
        for batch in loader.epoch(epoch=epoch, seed=0, batch_size=5):
            loss = F.cross_entropy(model(model.preprocessing(batch.inputs)), batch.targets)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            rate = rate_at(config.optim, step=step, steps_per_epoch=5, epochs=3)
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.data -= rate * gradient
            losses.append((loss.item() * len(batch.targets), epoch))
            step += 1
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trainer.student.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    for epoch, event in enumerate(events):
        mean = sum(loss for loss, of in losses if of == epoch) / 22
        assert event["train_loss"] == pytest.approx(mean, rel=1e-5)
        assert event["terms"] == {"label": pytest.approx(mean, rel=1e-5)}
        assert (event["epoch"], event["step"]) == (epoch + 1, 5 * (epoch + 1))
        assert event["rate"] == rate_at(config.optim, step=5 * epoch, steps_per_epoch=5, epochs=3)
        assert 0 <= event["train_accuracy"] <= 1
        assert event["train_accuracy"] * 22 == pytest.approx(round(event["train_accuracy"] * 22))


def test_clipped_steps_are_those_of_plain_pytorch(tiny, built):
    limit = 0.2
    config = tiny.config(optim={"optimizer": "sgd", "lr": 0.1, "momentum": 0.0, "clip_grad_norm": limit})
    trainer = built(config, no_dropout())
    trained(trainer, 1)

    model, train_set = no_dropout(), tiny.data()[0]
    clipped = 0
    for batch in ResidentLoader(train_set, config.data, CPU).epoch(epoch=0, seed=0, batch_size=5):
        loss = F.cross_entropy(model(model.preprocessing(batch.inputs)), batch.targets)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = sum(float(gradient.double().square().sum()) for gradient in gradients) ** 0.5
        clipped += norm > limit
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.data -= 0.1 * gradient * min(1.0, limit / norm)
    assert clipped
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trainer.student.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_frozen_layers_and_their_statistics_stay_until_the_last_one_has_learned(tiny, built):
    trainer = built(tiny.config(epochs=2, optim={"lr": 0.01, "freeze_epochs": 1, "backbone_lr_scale": 0.5}))
    before = {name: tensor.clone() for name, tensor in trainer.student.state_dict().items()}
    trained(trainer, 1)
    moved = {name for name, tensor in trainer.student.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"ip1.weight", "ip1.bias"}
    assert all(
        parameter.requires_grad != name.startswith("conv1")
        for name, parameter in trainer.student.named_parameters()
        if name.startswith(("conv1", "ip1"))
    )
    trained(trainer, 1)
    assert not any(torch.equal(tensor, before[name]) for name, tensor in trainer.student.state_dict().items())
    rates = {p: group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert rates[trainer.student.ip1.weight] == 0.01
    assert rates[trainer.student.conv1.weight] == rates[trainer.student.bn1.bias] == 0.005


def test_a_method_of_features_alone_teaches_no_last_layer(tiny, built):
    with pytest.raises(UsageError, match="freeze_epochs needs a loss of the student's answers, and sp has one of its"):
        built(tiny.config(MethodConfig(name="sp", label_weight=0.0), optim={"freeze_epochs": 1}))


def test_trainer_distils_with_teacher_and_label_terms(tiny, built):
    trainer = built(tiny.config("kd"))
    (event,) = trained(trainer, 1)
    assert event["terms"].keys() == {"label", "kd"}
    assert event["train_loss"] == pytest.approx(0.1 * event["terms"]["label"] + 0.9 * event["terms"]["kd"], rel=1e-6)


@pytest.mark.parametrize("method", ["kd", "logits", "noisy_teacher"])
def test_trainer_never_changes_the_teacher(tiny, built, method):
    trainer = built(tiny.config(method))
    (model,) = trainer.teacher.models
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained(trainer)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not optimised & {id(parameter) for parameter in model.parameters()}


def test_moving_average_is_that_of_float64_with_its_batch_norm_statistics(tiny, built):
    decay, trainer = 0.8, built(tiny.config(ema=0.8, optim={"lr": 0.05}))
    seen = []
    trained(trainer, watch=lambda _: seen.append({k: v.clone() for k, v in trainer.student.state_dict().items()}))
    expected = {name: tensor.double() for name, tensor in seen[0].items()}
    for state in seen[1:]:
        expected = {name: decay * expected[name] + (1 - decay) * state[name].double() for name in expected}
    for name, tensor in trainer.network.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-7)
            moved = (tensor.double() - seen[-1][name].double()).abs().max()
            assert moved > 0, f"{name} is not averaged"
    assert trainer.network is not trainer.student
    assert trainer.network.bn1.running_var.min() > 0


def test_without_a_moving_average_the_student_is_what_is_saved(tiny, built):
    trainer = built(tiny.config())
    assert trainer.network is trainer.student


def test_trainer_does_not_touch_the_global_generator(tiny, built):
    trainer = built(tiny.config("noisy_teacher", data={"augmentation": "flip_shift"}))
    before = torch.get_rng_state()
    trained(trainer)
    assert torch.equal(torch.get_rng_state(), before)


def test_trainer_is_deterministic_for_a_seed_whatever_was_drawn_before(tiny, built):
    states = []
    for seed in (0, 0, 1):
        torch.rand(3)
        trainer = built(tiny.config(seed=seed, data={"augmentation": "flip_shift"}))
        events = trained(trainer)
        states.append((state_of(trainer), events))
    assert all(torch.equal(tensor, states[1][0][name]) for name, tensor in states[0][0].items())
    assert states[0][1] == states[1][1] != states[2][1]
    assert not torch.equal(states[0][0]["modules.0.ip1.weight"], states[2][0]["modules.0.ip1.weight"])


class Drawing(torch.nn.Module):
    """Draws a number in each step, as dropout draws its mask."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def forward(self, maps):
        self.drawn.append(torch.rand(()).item())
        return maps


def test_trainer_draws_other_numbers_in_each_step_and_for_each_seed(tiny, built):
    drawn = []
    for seed in (0, 0, 1):
        trainer = built(tiny.config(seed=seed))
        trainer.student.drop1 = Drawing()
        trained(trainer)
        drawn.append(trainer.student.drop1.drawn)
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 30


@pytest.mark.parametrize(("method", "rate", "steps"), [("kd", 1e30, 1), ("logits", 30.0, 4), (None, 1e38, 1)])
def test_trainer_stops_at_the_step_in_which_a_term_became_nan(tiny, built, method, rate, steps):
    trainer = built(tiny.config(method, optim={"optimizer": "sgd", "lr": rate}))
    seen = []
    term = "(label|kd)" if method == "kd" else method or "label"
    with pytest.raises(NumericalError, match=rf"^{term} became NaN or infinite at step \d+; lower the learning rate"):
        trained(trainer, watch=lambda progress: seen.append(progress.loss))
    assert steps <= len(seen) == trainer.step - 1 < 15  # the very step, not the epoch's end
    assert all(abs(loss) < float("inf") for loss in seen)


def test_trainer_gives_no_state_with_a_weight_that_is_not_finite(tiny, built):
    trainer = built(tiny.config())
    trained(trainer, 1)
    trainer.student.ip1.bias.data[0] = float("nan")
    with pytest.raises(NumericalError, match=r"0.ip1.bias became NaN or infinite by step 5"):
        state_of(trainer)


def test_trainer_refuses_the_state_of_another_network_by_name(tiny, built):
    trainer = built(tiny.config())
    trained(trainer, 1)
    tensors = state_of(trainer)
    tensors["modules.0.ip1.weight"] = torch.zeros(7, 144)
    del tensors["modules.0.bn1.bias"]
    with pytest.raises(WeightsMismatchError) as caught:
        restore(built(tiny.config()), State(tensors=tensors, progress={"step": 5}))
    assert "0.bn1.bias: missing" in str(caught.value)
    assert "0.ip1.weight: found (7, 144), expected (3, 144)" in str(caught.value)


def test_trainer_computes_losses_in_float32_under_mixed_precision(tiny):
    kinds = []
    for precision in (torch.float32, torch.bfloat16):
        trainer = Trainer(tiny.config(), no_dropout(), None, tiny.data()[0], Runtime(device=CPU, precision=precision))
        (event,) = trained(trainer, 1)
        kinds.append(event["train_loss"])
        assert all(parameter.dtype == torch.float32 for parameter in trainer.student.parameters())
    assert kinds[0] != kinds[1]
    assert kinds[1] == pytest.approx(kinds[0], rel=1e-2)


def test_half_precision_scales_the_loss_and_skips_steps_that_overflow(tiny, built):
    trainer = built(tiny.config(precision="fp16"), precision=torch.float16)
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 2.0**40})
    before = {name: tensor.clone() for name, tensor in trainer.student.named_parameters()}
    scales = []
    trainer.run_epoch(lambda progress: scales.append(trainer.scaler.get_scale()))
    assert scales == [2.0 ** (39 - number) for number in range(5)]  # each step overflowed, and halved the scale
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.student.named_parameters())
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 2.0**10})
    trained(trainer)
    assert trainer.scaler.get_scale() == 2.0**10
    exact = built(tiny.config())
    trained(exact)
    assert trainer.evaluate(tiny.data()[1]) == pytest.approx(exact.evaluate(tiny.data()[1]), abs=0.3)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script_method:DeprecationWarning"
)  # torch's own, as it imports its compiler
def test_compiled_training_is_plain_training(tiny, built):
    plain, compiled = (built(tiny.config(compile=how, epochs=1)) for how in ("off", "on"))
    assert (plain.compiled, compiled.compiled) == (False, True)
    for trainer in (plain, compiled):
        trainer.student.drop1.p = 0.0  # compiled code draws other numbers
        trained(trainer)
    weights = compiled.student.state_dict()
    for name, tensor in plain.student.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5)
