"""What is wrong with a teacher and cheap to see is said before a run, converted where it was asked for, and no more."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import model_compression as mc
from model_compression.cli.main import main
from model_compression.core.errors import UsageError
from model_compression.data.dataset import Dataset
from model_compression.distillation.teachers.live import as_logits
from model_compression.models.external import External
from model_compression.models.preprocessing import Preprocessing
from model_compression.tasks.image_classification.answer_kinds import answer_kind

OPTIONS = {"epochs": 1, "batch_size": 20, "device": "cpu", "precision": "fp32"}
ENDS = {
    "softmax": (lambda logits: logits.softmax(dim=1), "probabilities"),
    "sigmoid": (lambda logits: logits.sigmoid(), "sigmoid"),
    "log-softmax": (lambda logits: logits.log_softmax(dim=1), "logits"),
    "none": (lambda logits: logits, "logits"),
    "zeros": (lambda logits: 0 * logits, "logits"),
    "ReLU": (lambda logits: 0.1 * logits.relu(), "logits"),
}


class Grey(nn.Module):
    """Knows the class of an image by its mean, as pixels of that mean and deviation have it, and ends in ``end``."""

    def __init__(self, end="none", mean=0.5, std=0.25):
        super().__init__()
        self.scale, self.end = nn.Parameter(torch.tensor(4.0)), end
        self.register_buffer("levels", (torch.tensor([40.0, 80.0, 120.0, 160.0]) / 255 - mean) / std)

    def forward(self, images):
        return ENDS[self.end][0](-self.scale * (images.mean(dim=(1, 2, 3))[:, None] - self.levels).square())


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    images = (40 * (labels + 1)[:, None, None, None] + rng.integers(-9, 10, (200, 3, 6, 6))).astype(np.uint8)
    return tuple(
        Dataset(name=name, samples=images[rows], labels=labels[rows], class_names=tuple("abcd"), mean=(0.5,) * 3,
                std=(0.25,) * 3)
        for name, rows in (("grey", slice(0, 120)), ("grey-test", slice(120, 200)))
    )  # fmt: skip


def small(end="none"):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4), End(end))


class End(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.end = end

    def forward(self, logits):
        return ENDS[self.end][0](logits)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("build", [Grey, small])
def test_answers_that_are_no_logits_are_recognised(data, end, build):
    network = External(build(end), Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3))
    assert answer_kind(network, torch.from_numpy(data[0].images[:8])) == ENDS[end][1]


def test_answers_become_the_logits_that_they_were_made_of():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(as_logits(logits.sigmoid(), "sigmoid"), logits, rtol=1e-4, atol=1e-4)
    found = as_logits(logits.softmax(dim=1), "probabilities")
    torch.testing.assert_close(found - found[:, :1], logits - logits[:, :1], rtol=1e-4, atol=1e-4)
    assert torch.equal(as_logits(logits, "logits"), logits)


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
def test_teacher_that_ends_in_probabilities_is_refused_or_teaches_as_its_logits_would(data, tmp_path, end):
    kind = ENDS[end][1]
    with pytest.raises(UsageError, match=rf"leave its {end} out, or give teacher_answers='{kind}'"):
        mc.distill(Grey(end), small(), data, run_dir=tmp_path / "refused", **OPTIONS)
    runs = [
        mc.distill(Grey(which), small(), data, run_dir=tmp_path / which, teacher_answers=answers, **OPTIONS)
        for which, answers in ((end, kind), ("none", "logits"))
    ]
    # The student learns the same but for rounding: softmax takes a constant away, and kd adds none.
    assert runs[0].metrics["test_nll"] == pytest.approx(runs[1].metrics["test_nll"], rel=1e-3)
    with pytest.raises(UsageError, match=r"answers with logits: leave teacher_answers 'sigmoid' out"):
        mc.distill(Grey(), small(), data, teacher_answers="sigmoid", run_dir=tmp_path / "x", **OPTIONS)


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
def test_student_that_ends_in_probabilities_is_refused(data, tmp_path, end):
    with pytest.raises(UsageError, match=rf"the student answers with .*: leave its {end} out, the loss needs logits"):
        mc.distill(Grey(), small(end), data, run_dir=tmp_path / "run", **OPTIONS)


def test_teacher_of_another_normalisation_is_named_with_the_one_it_wants(data, tmp_path, watcher):
    watch, teacher = watcher(), Grey(mean=0.0, std=1.0)
    options = {**OPTIONS, "allow_weak_teacher": True}
    mc.distill(teacher, small(), data, run_dir=tmp_path / "wrong", observer=watch, **options)
    line = next(line for line in watch.messages if "teacher_mean" in line)
    assert line.startswith("with 0 to 1 100.0% are right, with its own (mean 0.5, 0.5, 0.5; std 0.25, 0.25, 0.25) ")
    assert line.endswith("; teacher_mean=[0.0, 0.0, 0.0], teacher_std=[1.0, 1.0, 1.0]")
    with pytest.raises(UsageError, match=r"with 0 to 1 100\.0% are right"):
        mc.distill(teacher, small(), data, run_dir=tmp_path / "strict", strict=True, **options)
    assert not (tmp_path / "strict").exists()
    watch = watcher()
    run = mc.distill(
        teacher, small(), data, run_dir=tmp_path / "right", observer=watch, strict=True, teacher_mean=[0, 0, 0],
        teacher_std=(1, 1, 1), teacher_size=12, **OPTIONS,
    )  # fmt: skip
    assert run.metrics["teacher_test_accuracy"] == 1
    assert not any("teacher_mean" in line for line in watch.messages)
    assert run.preprocessing.mean == (0.5,) * 3  # the student's own


def test_pixels_of_no_teacher_are_refused(data):
    with pytest.raises(UsageError, match="teacher_size has no effect without a teacher"):
        mc.distill(None, small(), data, method="tf_kd", teacher_size=8)


class Draws(Grey):
    def forward(self, images):
        return super().forward(images) + torch.rand(len(images), 4)


def test_teacher_that_answers_otherwise_each_time_is_said_and_not_stored(data, tmp_path, watcher):
    watch = watcher()
    mc.distill(Draws(), small(), data, run_dir=tmp_path / "run", observer=watch, **OPTIONS)
    assert any("answers differently each time" in line for line in watch.messages)
    assert any("are not stored" in line for line in watch.messages)
    assert watch.answered == []


def test_data_that_are_odd_are_said_by_every_run_and_stop_a_strict_one(data, tmp_path, watcher):
    train = data[0].subset(np.flatnonzero(data[0].labels != 3))
    watch = watcher()
    mc.distill(Grey(), small(), (train, data[1]), run_dir=tmp_path / "run", observer=watch, **OPTIONS)
    assert [line for line in watch.messages if "no training images of d" in line]
    with pytest.raises(UsageError, match="no training images of d"):
        mc.distill(Grey(), small(), (train, data[1]), run_dir=tmp_path / "strict", strict=True, **OPTIONS)


def test_strict_option_stops_a_command_and_leaves_no_trace(tiny, tmp_path, monkeypatch, capsys):
    from model_compression.data.sources import DATASETS

    def odd(*arguments, **options):
        train, test = tiny.data()
        return train, dataclasses.replace(test, samples=train.images[:13], labels=train.labels[:13], digest="")

    monkeypatch.setitem(DATASETS._entries, "tiny", odd)
    command = ["train", "--student", "tiny", "--data", "tiny", "--epochs", "1", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "strict"), "--strict"]) == 2
    assert "13 of 13 test images are training images too" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert "13 of 13 test images are training images too" in capsys.readouterr().err
