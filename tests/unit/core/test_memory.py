"""Parts of a batch: their step against the whole batch's, what forbids them, and what is said."""

import dataclasses
from collections import OrderedDict

import pytest
import torch
from torch import nn

from model_compression.core.config import MethodConfig
from model_compression.core.errors import Interrupted, OutOfMemoryError
from model_compression.core.memory import in_parts, is_out_of_memory, named_out_of_memory
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.engine.runs import resume_run, start_run
from model_compression.engine.runtime import Runtime
from model_compression.engine.trainer import Trainer
from model_compression.engine.trainer_state import state_of
from model_compression.models import create_model
from model_compression.models.base import Network
from model_compression.models.loading import read_model

CPU = torch.device("cpu")
RUNTIME = Runtime(device=CPU, precision=torch.float32)
SAID = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
)


class Narrow(nn.Module):
    """Has no memory for more than ``room`` images: forward, or, a harder place, backward."""

    def __init__(self, room, where="forward"):
        super().__init__()
        self.room, self.where, self.refused = room, where, 0

    def forward(self, images):
        if self.training and len(images) > self.room:
            if self.where == "forward":
                self._refuse()
            images.register_hook(lambda gradient: self._refuse())
        return images

    def _refuse(self):
        self.refused += 1
        raise RuntimeError(SAID)


def narrow(name, room, where="forward", **options):
    """The network with a place where memory runs out, behind its first layer."""
    network = create_model(name, seed=0, **options)
    layers = [*network.named_children()]
    layers.insert(1, ("narrow", Narrow(room, where)))
    made = Network(OrderedDict(layers))
    made.name = name
    return made


def trainer_of(tiny, student, method="kd", **options):
    config = tiny.config(method, **options)
    teacher = LiveTeacher([read_model(tiny.teacher)], CPU, torch.float32)
    trainer = Trainer(config, student, teacher, tiny.data()[0], RUNTIME)
    said = []
    trainer.report = said.append
    return trainer, said


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(("room", "size"), [(4, 3), (2, 2), (1, 1)])
@pytest.mark.parametrize("method", ["kd", "noisy_teacher", "logits"])
def test_parts_of_a_batch_are_the_step_of_the_whole(tiny, where, room, size, method):
    options = {"batch_size": 5, "ema": 0.9, "optim": {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 0.1}}
    whole, _ = trainer_of(tiny, narrow("tiny-teacher", 99), method, **options)
    parts, said = trainer_of(tiny, narrow("tiny-teacher", room, where), method, **options)
    events = [[trainer.run_epoch(lambda progress: None) for _ in range(3)] for trainer in (whole, parts)]
    assert parts.micro_batch == size
    assert said[0].startswith("out of memory with 5 samples at once: from here on ")
    assert len(said) == 1
    state = state_of(parts)
    assert int(state.pop("micro_batch")) == size
    for name, tensor in state_of(whole).items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-5, atol=1e-5)
    for one, other in zip(*events, strict=True):
        assert other.pop("micro_batch") == size
        assert other["terms"] == pytest.approx(one["terms"], abs=1e-5)
        assert (other["train_loss"], other["train_accuracy"]) == pytest.approx(
            (one["train_loss"], one["train_accuracy"]), abs=1e-5
        )


def test_smaller_last_batch_is_its_own_measure(tiny):
    trainer, said = trainer_of(tiny, narrow("tiny-teacher", 8), batch_size=15)  # 15 and 7 of 22 images
    trainer.run_epoch(lambda progress: None)
    assert trainer.micro_batch == 8
    assert len(said) == 1


@pytest.mark.parametrize(
    ("student", "method", "obstacle"),
    [
        ("tiny", "kd", r"as BatchNorm \(bn1\) takes mean and deviation of the whole batch"),
        ("tiny-teacher", "dist", "as the method dist compares the samples of a batch"),
        ("tiny-teacher", "kd,mlkd", "as the method kd,mlkd compares the samples of a batch"),
    ],
)
def test_batch_that_is_looked_at_as_a_whole_is_not_split(tiny, student, method, obstacle):
    trainer, _ = trainer_of(tiny, narrow(student, 3), MethodConfig(name=method))
    with pytest.raises(
        OutOfMemoryError, match=f"^out of memory with 5 samples a step; 3 fit: batch_size=3. .*{obstacle}"
    ):
        trainer.run_epoch(lambda progress: None)
    assert trainer.step == 0


def test_image_that_does_not_fit_alone_stops_the_run(tiny):
    trainer, said = trainer_of(tiny, narrow("tiny-teacher", 0))
    with pytest.raises(OutOfMemoryError, match="with one sample a step; take a smaller student or smaller samples"):
        trainer.run_epoch(lambda progress: None)
    assert not said


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny):
    student = narrow("tiny-teacher", 3)
    student.narrow._refuse = lambda: (_ for _ in ()).throw(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    trainer, _ = trainer_of(tiny, student)
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2"):
        trainer.run_epoch(lambda progress: None)


def test_size_of_the_parts_is_resumed_to_the_bit(tiny, tmp_path, watcher, monkeypatch):
    """With dropout, whose masks are other ones in other parts, and a machine with more memory afterwards."""
    from model_compression.models.base import MODELS

    def built(room):
        def build(num_classes=3):
            network = narrow("tiny-teacher", room)
            layers = [*network.named_children()]
            layers.insert(3, ("drop", nn.Dropout(0.5)))
            return Network(OrderedDict(layers))

        return build

    config = tiny.config("kd", optim={"lr": 1e-2})
    config = dataclasses.replace(config, student=dataclasses.replace(config.student, name="narrow"))
    monkeypatch.setitem(MODELS._entries, "narrow", built(2))
    start_run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", watcher([7]))
    monkeypatch.setitem(MODELS._entries, "narrow", built(99))
    seen = watcher()
    resume_run(tmp_path / "run", seen)
    assert seen.trainer.micro_batch == 2
    for name in ("student.safetensors", "events.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_answers_come_in_halves_where_all_do_not_fit():
    sizes = []

    def answer(images):
        sizes.append(len(images))
        if len(images) > 3:
            raise MemoryError
        return images * 2

    images = torch.arange(10.0)[:, None]
    assert torch.equal(in_parts(answer, images), images * 2)
    assert sizes == [10, 5, 3, 2, 5, 3, 2]
    with pytest.raises(MemoryError):
        in_parts(lambda images: answer(torch.ones(9)), images)


def test_real_allocation_that_fails_is_named():
    with (
        pytest.raises(OutOfMemoryError, match=r"^out of memory \(.*allocate.*\); take less$"),
        named_out_of_memory("take less"),
    ):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(KeyError("can't allocate memory"))
