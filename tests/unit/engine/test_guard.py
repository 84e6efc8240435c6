"""The guard: what stops a run, what does not, and what the message names."""

import pytest
import torch

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.errors import NumericalError
from model_compression.data.batches import Batch
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.engine.guard import ANSWERS, EXPLOSION, INPUTS, PATIENCE, Guard
from model_compression.engine.runtime import Runtime
from model_compression.engine.trainer import Trainer
from model_compression.models import create_model
from model_compression.models.loading import read_model

CPU = torch.device("cpu")
RUNTIME = Runtime(device=CPU, precision=torch.float32)


def seen(losses, *, guard=None, **weights):
    """The guard, once it has watched these losses of a single term from step 1 on, each looked at."""
    guard = guard or Guard(weights or {"label": 1.0}, 0.1, CPU)
    for step, loss in enumerate(losses, start=1):
        guard.watch(step, torch.tensor(loss), {"label": torch.tensor(loss)}, {})
        guard.check()
    return guard


def stopped(losses, **options):
    with pytest.raises(NumericalError) as caught:
        seen(losses, **options)
    return str(caught.value)


HUGE = EXPLOSION * 2.3 * 1.01


@pytest.mark.parametrize(
    "losses",
    [
        [2.3] * 50,
        [2.3, *[HUGE] * (PATIENCE - 1), 2.3, *[HUGE] * (PATIENCE - 1), 2.3],  # finds back in time
        [2.3, *[0.99 * EXPLOSION * 2.3] * 50],  # grows, and stays below
        [1e-6, *[90.0] * 50],  # a student that begins as good as its teacher
        [-3.0, *[290.0] * 50, -1e9],  # likelihoods are below zero
        [500.0, *[2.3] * 20, *[9000.0] * 20],  # begins high, by a network without norms
    ],
)
def test_guard_leaves_what_is_no_explosion(losses):
    seen(losses)


def test_guard_stops_an_explosion_at_its_tenth_step():
    losses = [2.3, 2.0, *[HUGE] * (PATIENCE - 1)]
    guard = seen(losses)
    assert guard.alarmed
    assert not seen([*losses, 2.3]).alarmed
    message = stopped([*losses, 1e4])
    assert message == (
        "the loss exploded: it is 1e+04, of which label is 1e+04, and has been above 100 times the 2.3 that it began "
        "with for 10 steps; lower the learning rate (0.1 now), or the weight of label"
    )


@pytest.mark.parametrize(
    ("losses", "accuracy", "message"),
    [
        ([2.3, 3e7, 3e7], 0.9, r"^the loss exploded: it is 3e\+07, .* the 2.3 that it began with for 2 steps"),
        ([2.3, 3e7, 40.0, 3e7], 0.1, r"^the run diverged: its last loss is 3e\+07, .* accuracy of 10.0% is no better"),
        ([2.3] * 9 + [7.0], 0.1, r"^the run diverged: its last loss is 7, 3 times the 2.3 that it began with"),
        ([2.3, 3e7, 40.0], 0.3, ""),  # it does better than guessing
        ([2.3] * 8 + [7.0], 0.1, ""),  # Adam's first steps raise many losses, which fall again
        ([2.3] * 9 + [6.8], 0.1, ""),  # no larger loss than noise may make
        ([2.3, 3e7, 2.3], 0.1, ""),  # it found back
        ([2.3], 0.1, ""),
    ],
)
def test_run_that_ends_mad_is_named_however_short(losses, accuracy, message):
    guard = seen(losses)

    def fault():
        return f"its accuracy of {accuracy:.1%} is no better than guessing" if accuracy <= 0.15 else None

    if not message:
        return guard.check_end(len(losses), fault)
    with pytest.raises(NumericalError, match=message):
        guard.check_end(len(losses), fault)


def test_guard_names_the_term_that_weighs_most():
    guard = Guard({"label": 1.0, "at": 1000.0}, 0.1, CPU)
    for label, at in [(2.0, 0.001), *[(9.0, 5.0)] * PATIENCE]:
        terms = {"label": torch.tensor(label), "at": torch.tensor(at)}
        guard.watch(1, terms["label"] + 1000 * terms["at"], terms, {})
    with pytest.raises(NumericalError, match=r"it is 5\.01e\+03, of which at is 5e\+03, .* the weight of at$"):
        guard.check()


def test_guard_that_is_looked_at_rarely_still_names_the_first_step_and_term():
    """As on a GPU, where a look waits: once one weight is NaN all terms are."""
    guard, nan = Guard({"label": 1.0, "kd": 1.0}, 0.1, CPU), torch.tensor(float("nan"))
    for step in range(1, 50):
        good = torch.tensor(1.0)
        kd = nan if step >= 7 else good
        guard.watch(step, good + kd, {"label": nan if step >= 8 else good, "kd": kd}, {})
    with pytest.raises(NumericalError, match=r"^kd became NaN or infinite at step 7; lower the learning rate \(0\.1 "):
        guard.check()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", [INPUTS, ANSWERS])
def test_guard_blames_what_came_from_outside_before_the_terms(name, bad):
    guard, nan = Guard({"label": 1.0}, 0.1, CPU), torch.tensor(float("nan"))
    guard.watch(
        3, nan, {"label": nan}, {INPUTS: torch.tensor(1.0), ANSWERS: torch.tensor(1.0), name: torch.tensor(bad)}
    )
    with pytest.raises(NumericalError, match=rf"^{name} became NaN or infinite at step 3; (look at|give another)"):
        guard.check()


def test_guard_goes_on_from_its_state_as_if_it_had_not_stopped():
    losses = [2.3, *[HUGE] * 6]
    other = Guard({"label": 1.0}, 0.1, CPU)
    other.restore(seen(losses).state())
    seen([HUGE] * (PATIENCE - 7), guard=other)
    assert "for 10 steps" in stopped([HUGE], guard=other)


class Poisoned:
    """A teacher whose answers turn bad at a step."""

    def __init__(self, teacher, step):
        self.teacher, self.left = teacher, step

    def answer(self, batch):
        self.left -= 1
        answer = self.teacher.answer(batch)
        if not self.left:
            answer.logits[1, 0] = float("inf")
        return answer


def test_trainer_names_the_step_in_which_the_teacher_answered_nan(tiny):
    config = tiny.config("kd")
    teacher = Poisoned(LiveTeacher([read_model(tiny.teacher)], CPU, torch.float32), step=4)
    trainer = Trainer(config, create_model("tiny", seed=0), teacher, tiny.data()[0], RUNTIME)
    with pytest.raises(NumericalError, match=r"^the teacher's answers became NaN or infinite at step 4; give another"):
        trainer.run_epoch(lambda progress: None)


def test_trainer_names_the_step_whose_images_hold_nan(tiny):
    trainer = Trainer(tiny.config(), create_model("tiny", seed=0), None, tiny.data()[0], RUNTIME)
    real, number = trainer.loader.epoch, [0]

    def poisoned(**options):
        for batch in real(**options):
            number[0] += 1
            images = batch.inputs.float() / 255
            images[2, 0, 1, 1] = float("nan") if number[0] == 3 else 0.0
            yield Batch(inputs=images, targets=batch.targets, ids=batch.ids, view=batch.view)

    trainer.loader.epoch = poisoned
    with pytest.raises(NumericalError, match=r"^the inputs became NaN or infinite at step 3; look at what makes them"):
        trainer.run_epoch(lambda progress: None)


def test_trainer_stops_a_real_explosion_before_it_becomes_nan(tiny):
    config = tiny.config(optim={"optimizer": "sgd", "lr": 1.0, "momentum": 0.0}, epochs=8)
    trainer = Trainer(config, create_model("tiny-teacher", seed=0), None, tiny.data()[0], RUNTIME)

    def train():
        for _ in range(8):
            trainer.run_epoch(lambda progress: None)

    with pytest.raises(NumericalError, match=r"^the loss exploded: it is .*, of which label is .* lower the learning"):
        train()


def test_a_high_rate_that_practitioners_use_is_no_explosion():
    """One cycle to a rate at which the loss first rises, on the networks that ship."""
    from model_compression.core.optim_config import OptimConfig
    from model_compression.data.synthetic import load_synthetic

    train, _ = load_synthetic(None, None, True)
    optim = OptimConfig(optimizer="sgd", lr=0.5, schedule="one_cycle")
    config = TrainConfig(student=ModelConfig(name="resnet8"), optim=optim, epochs=2, batch_size=16)
    trainer = Trainer(
        config,
        create_model("resnet8", seed=0),
        None,
        train.subset(range(96)),
        RUNTIME,
    )
    events = [trainer.run_epoch(lambda progress: None) for _ in range(2)]
    assert all(event["train_loss"] < 50 for event in events)
