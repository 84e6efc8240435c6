"""A run whose student ends in the teacher's classifier: what is measured, saved, resumed, and built again."""

import dataclasses

import pytest
import torch
from torch import nn

import model_compression as mc
from model_compression.cli.main import main
from model_compression.core.config import MethodConfig, ModelConfig
from model_compression.core.errors import Interrupted, UsageError
from model_compression.engine.runs import resume_run, start_run
from model_compression.models.loading import read_model
from model_compression.models.prediction import predict
from model_compression.models.weights import save_weights
from model_compression.tasks.image_classification.figures import figures


def test_what_is_measured_is_what_is_saved_and_built_again(tiny, tmp_path, watcher):
    seen = watcher()
    metrics = start_run(tiny.config("simkd", evaluate_every=1, optim={"lr": 1e-2}), tmp_path / "run", seen)
    # The trunk, three convolutions through half the teacher's 5 channels with their normalisation, the classifier.
    parameters = (108 + 8) + (4 * 2 + 4) + (4 * 9 + 4) + (2 * 5 + 10) + (5 * 3 + 3)
    assert seen.messages[:2] == [
        "features that are compared, student = teacher: drop1 = conv1",
        "what is trained and ships is tiny up to drop1, a projector and the teacher's classifier: "
        f"{parameters} parameters, where tiny alone has {108 + 8 + 145 * 3}",
    ]
    again, teacher = read_model(tmp_path / "run" / "student.safetensors"), read_model(tiny.teacher)
    assert metrics["parameters"] == parameters == sum(p.numel() for p in again.parameters())
    test_set = tiny.data()[1]
    logits = predict(again, test_set, torch.device("cpu"), torch.float32)
    measured = figures(logits, torch.from_numpy(test_set.labels))
    assert {f"test_{key}": value for key, value in measured.items()}.items() <= metrics.items()
    assert seen.events[-1]["test_accuracy"] == metrics["test_accuracy"]  # the curve is of the same network
    assert torch.equal(again.classifier.weight, teacher.ip1.weight)
    assert torch.equal(again.classifier.bias, teacher.ip1.bias)
    assert set(seen.events[0]["terms"]) == {"simkd"}
    assert seen.events[-1]["terms"]["simkd"] < seen.events[0]["terms"]["simkd"]


@pytest.mark.parametrize("step", [3, 5, 11])
def test_run_resumes_to_the_bit(tiny, tmp_path, watcher, step):
    method = MethodConfig(name="simkd", label_weight=0.5)
    config = tiny.config(method, optim={"optimizer": "sgd", "lr": 0.05}, ema=0.8, data={"augmentation": "flip_shift"})
    start_run(config, tmp_path / "whole", watcher())
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "part", watcher([step]))
    resume_run(tmp_path / "part", watcher())
    for name in ("student.safetensors", "predictions.safetensors", "events.jsonl"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_distill_returns_the_whole_network_of_own_modules(tiny, tmp_path):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    student = nn.Sequential(nn.Conv2d(3, 2, 5), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    run = {"epochs": 1, "config": tiny.config(), "run_dir": tmp_path / "run"}
    result = mc.distill(teacher, student, tiny.data(), method="simkd", **run)
    torch.testing.assert_close(result.student.classifier.weight, teacher[-1].weight.detach(), rtol=1e-5, atol=1e-7)
    assert result.student(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    assert sum(p.numel() for p in result.student.parameters()) == result.metrics["parameters"]


def test_run_combines_with_methods_that_tap_the_trunk(tiny, tmp_path, watcher):
    pairs = {"bn1": "conv1", "drop1": "conv1"}
    seen = watcher()
    start_run(tiny.config(MethodConfig(name="simkd,at", pairs=pairs), epochs=1), tmp_path / "run", seen)
    assert set(seen.events[0]["terms"]) == {"simkd", "at"}


def test_impossible_teacher_is_refused_before_there_is_a_folder(tiny, tmp_path):
    save_weights(tmp_path / "teacher.safetensors", mc.create_model("tiny", seed=0))
    config = dataclasses.replace(tiny.config("simkd"), teacher=ModelConfig(name=str(tmp_path / "teacher.safetensors")))
    with pytest.raises(UsageError, match="the teacher's classifier cannot be reused behind its layer 'drop1'"):
        start_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_student_of_ones_own_code_is_built_again(tiny, tmp_path, monkeypatch, watcher):
    source = (
        "from torch import nn\n\ndef build(width, num_classes=3):\n    return nn.Sequential(nn.Conv2d(3, width, 3), "
    )
    (tmp_path / "own_nets.py").write_text(source + "nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, num_classes))\n")
    monkeypatch.chdir(tmp_path)
    student = ModelConfig(name="own_nets:build", options={"width": 4})
    metrics = start_run(tiny.config("simkd", student=student, epochs=1), tmp_path / "run", watcher())
    again = read_model(tmp_path / "run" / "student.safetensors")
    logits = predict(again, tiny.data()[1], torch.device("cpu"), torch.float32)
    assert figures(logits, torch.from_numpy(tiny.data()[1].labels))["nll"] == metrics["test_nll"]


@pytest.mark.torch("2.9")  # before, ONNX has no largest value of a whole map
def test_student_that_is_no_chain_is_resumed_built_again_and_exported(tiny, tmp_path, monkeypatch, watcher):
    (tmp_path / "residual_nets.py").write_text(
        """
from torch import nn

class Residual(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.stem, self.branch, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(4, num_classes)

    def forward(self, images):
        maps = self.stem(images)
        return self.head(self.last(maps + self.branch(maps)).mean(dim=(2, 3)))
"""
    )
    monkeypatch.chdir(tmp_path)
    config = tiny.config(MethodConfig(name="simkd,at"), student=ModelConfig(name="residual_nets:Residual"), epochs=2)
    metrics = start_run(config, tmp_path / "whole", watcher())
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "part", watcher([7]))
    resume_run(tmp_path / "part", watcher())
    for name in ("student.safetensors", "predictions.safetensors", "events.jsonl"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = read_model(tmp_path / "whole" / "student.safetensors")
    test_set = tiny.data()[1]
    logits = predict(again, test_set, torch.device("cpu"), torch.float32)
    assert figures(logits, torch.from_numpy(test_set.labels))["nll"] == metrics["test_nll"]
    assert main(["export", str(tmp_path / "whole"), "--out", "student.onnx"]) == 0
