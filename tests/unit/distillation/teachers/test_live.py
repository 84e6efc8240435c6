"""The live teacher: in eval mode, without gradient, whatever state its network comes in."""

import pytest
import torch

from model_compression.core.data_config import DataConfig
from model_compression.data.loader import ResidentLoader
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.models import Preprocessing, create_model

CPU = torch.device("cpu")


@pytest.fixture
def loader(tiny):
    return ResidentLoader(tiny.data()[0], DataConfig(augmentation="flip_shift", shift=2), CPU)


@pytest.mark.usefixtures("tiny")
def test_live_teacher_answers_in_eval_mode_without_gradient(loader):
    model = create_model("tiny", seed=0, dropout=0.9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    teacher = LiveTeacher([model.train()], CPU, torch.float32)
    batch = loader.batch(torch.arange(5), view=0)
    first, second = teacher.answer(batch).logits, teacher.answer(batch).logits
    assert torch.equal(first, second)  # no dropout
    assert not first.requires_grad
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())  # BatchNorm's too
    expected = create_model("tiny", seed=0, dropout=0.9).eval()
    torch.testing.assert_close(first, expected(expected.preprocessing(batch.inputs)).detach())


@pytest.mark.usefixtures("tiny")
def test_live_teacher_answers_in_float32_under_mixed_precision(loader):
    batch = loader.batch(torch.arange(22), view=1)
    answers = [
        LiveTeacher([create_model("tiny", seed=0)], CPU, kind).answer(batch).logits
        for kind in (torch.float32, torch.bfloat16)
    ]
    assert answers[1].dtype == torch.float32
    assert not torch.equal(*answers)
    assert (answers[0] - answers[1]).abs().max() < 0.02 * (answers[0].max() - answers[0].min())


@pytest.mark.usefixtures("tiny")
def test_live_teacher_stops_when_someone_turns_its_training_mode_on(loader):
    teacher = LiveTeacher([create_model("tiny", seed=0)], CPU, torch.float32)
    teacher.models[0].drop1.train()
    with pytest.raises(AssertionError):
        teacher.answer(loader.batch(torch.arange(2), view=0))


@pytest.mark.usefixtures("tiny")
def test_teachers_together_answer_the_mean_of_their_logits_to_the_image_and_its_mirror_image(loader):
    models = [create_model("tiny", seed=seed) for seed in (0, 1)]
    models[1].preprocessing = Preprocessing(mean=(0.3, 0.2, 0.1), channel_order="bgr")
    batch = loader.batch(torch.arange(9), view=0)
    for tta, shown in (("none", [batch.inputs]), ("flip", [batch.inputs, torch.flip(batch.inputs, dims=[3])])):
        found = LiveTeacher(models, CPU, torch.float32, tta).answer(batch).logits
        with torch.no_grad():
            answers = [model.eval()(model.preprocessing(images)) for images in shown for model in models]
        torch.testing.assert_close(found, sum(answers) / len(answers))
