"""From a run to a file in fewer bits: proven, trained on where it must be, and resumed to the same bytes."""

import dataclasses
import json
import os
import signal
from collections import OrderedDict

import pytest
from torch import nn

from model_compression.cli.main import main
from model_compression.compression.config import QuantizeConfig
from model_compression.compression.quantize import Quantisation, quantize
from model_compression.compression.repair import repair_config
from model_compression.core.config import ModelConfig
from model_compression.core.errors import (
    Interrupted,
    NotVerifiedError,
    RunFolderError,
    UsageError,
)
from model_compression.engine.runs import start_run
from model_compression.exporting.runtimes import open_file
from model_compression.exporting.verify import Verification
from model_compression.models import create_model
from model_compression.models.base import MODELS, Network
from model_compression.models.loading import read_model
from model_compression.models.weights import save_weights


@pytest.fixture
def trained(tiny, tmp_path):
    start_run(tiny.config("kd", student=ModelConfig(name="tiny", options={"dropout": 0.1})), tmp_path / "trained")
    return tmp_path / "trained"


def settings(trained, **changes):
    given = {"max_drop": 99, **({"images": 10} if changes.get("to", "int8") == "int8" else {}), **changes}
    return QuantizeConfig(model=str(trained), run=repair_config(str(trained)), **given)


def refusing(monkeypatch, count):
    """Files are found wanting ``count`` times."""
    left = [count]

    def fault(self, max_drop):
        left[0] -= 1
        return "it loses too much" if left[0] >= 0 else None

    monkeypatch.setattr(Verification, "drop_fault", fault)


@pytest.mark.parametrize(
    "to", ["int8", pytest.param("half", marks=pytest.mark.slow), pytest.param("int8-weights", marks=pytest.mark.slow)]
)
def test_file_states_the_accuracy_that_was_measured_on_it(trained, tiny, tmp_path, to):
    report = quantize(settings(trained, to=to), tmp_path / "q")
    _, test = tiny.data()
    file = open_file(tmp_path / "q" / "student.onnx")
    right = float((file.run(test.images).argmax(axis=1) == test.labels).mean())
    assert (report["accuracy"], file.metadata.accuracy, file.metadata.precision) == (right, right, to)
    assert report["network_accuracy"] == json.loads((trained / "metrics.json").read_text())["test_accuracy"]
    assert report["drop"] == pytest.approx(100 * (report["network_accuracy"] - right))
    assert report["bytes"] == (tmp_path / "q" / "student.onnx").stat().st_size
    assert sorted(path.name for path in (tmp_path / "q").iterdir()) == [
        ".lock", ".started-in", "manifest.json", "quantize.json", "report.json", "student.onnx",
    ]  # fmt: skip


@pytest.mark.slow
def test_what_loses_too_much_is_trained_on_and_its_file_is_that_of_the_trained(trained, tmp_path, monkeypatch):
    refusing(monkeypatch, 1)
    report = quantize(settings(trained), tmp_path / "q")
    assert report["trained"]
    quantize(settings(tmp_path / "q" / "trained", calibration="auto"), tmp_path / "by-hand")
    assert read_model(tmp_path / "q" / "trained" / "student.safetensors").name == "tiny"  # not rounded, and ordinary
    one, other = (open_file(tmp_path / name / "student.onnx").metadata for name in ("q", "by-hand"))
    assert one.weights_sha256 == other.weights_sha256


@pytest.fixture
def deep(tiny, tmp_path, monkeypatch):
    """A trained network of three layers."""

    def build(num_classes=3):
        layers = OrderedDict(conv1=nn.Conv2d(3, 8, 3), conv2=nn.Conv2d(8, 16, 3), flatten=nn.Flatten())
        return Network(layers | {"head": nn.Linear(256, num_classes)})

    monkeypatch.setitem(MODELS._entries, "deep", build)
    start_run(tiny.config("kd", student=ModelConfig(name="deep")), tmp_path / "deep")
    return tmp_path / "deep"


def test_int4_is_trained_with_weights_of_four_bits_and_its_file_is_smaller(deep, tmp_path, monkeypatch):
    refusing(monkeypatch, 1)
    report = quantize(settings(deep, to="int4", images=10), tmp_path / "q")
    assert (report["precision"], report["trained"]) == ("int4", True)
    trained = tmp_path / "q" / "trained"
    assert json.loads((trained / "config.json").read_text())["student"]["options"]["weight_bits"] == 4
    file = tmp_path / "q" / "student.onnx"
    assert open_file(file).metadata.precision == "int4"
    quantize(settings(trained, to="int4", images=10), tmp_path / "again")
    digest = open_file(file).metadata.reference_sha256  # of what it was compared with, which "again" does not hold
    assert (tmp_path / "again" / "student.onnx").stat().st_size == file.stat().st_size - len(digest)
    quantize(settings(trained, images=10), tmp_path / "int8")
    saved = (tmp_path / "int8" / "student.onnx").stat().st_size - file.stat().st_size
    assert saved > 300  # 8 × 16 × 9 / 2 bytes of the middle layer, less a node


@pytest.mark.slow
def test_what_loses_too_much_even_then_is_not_kept(trained, tmp_path, monkeypatch):
    refusing(monkeypatch, 2)
    with pytest.raises(NotVerifiedError, match="loses too much, after quantisation-aware training; train longer"):
        quantize(settings(trained), tmp_path / "q")
    assert not list((tmp_path / "q").glob("*.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 5, 13])
def test_interrupted_training_ends_with_the_same_bytes(trained, tmp_path, watcher, stop, monkeypatch):
    refusing(monkeypatch, 1)
    quantize(settings(trained), tmp_path / "whole")
    refusing(monkeypatch, 1)
    with pytest.raises(Interrupted, match=f"continue with: model-compression resume {tmp_path / 'part'}"):
        quantize(settings(trained), tmp_path / "part", watcher([stop]))
    with pytest.raises(RunFolderError, match="is begun already: continue it with"):
        quantize(settings(trained), tmp_path / "part")
    seen = watcher()
    Quantisation.at(tmp_path / "part", seen).resume()
    assert len(seen.steps) == 15 - stop
    for name in ("student.onnx", "report.json", "trained/student.safetensors"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    with pytest.raises(RunFolderError, match="is finished"):
        Quantisation.at(tmp_path / "part").resume()


def test_file_that_is_refused_leaves_no_folder_and_can_be_asked_for_again(trained, tmp_path, monkeypatch):
    refusing(monkeypatch, 1)
    with pytest.raises(NotVerifiedError, match=r"student\.onnx is not written.*it loses too much$"):
        quantize(settings(trained, to="half"), tmp_path / "q")
    assert not (tmp_path / "q").exists()
    quantize(settings(trained, to="half"), tmp_path / "q")
    assert (tmp_path / "q" / "student.onnx").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"to": "int16"}, "unknown precision 'int16'; did you mean 'int8'"),
        ({"to": "int4"}, "int4 stores the layers between the first and the last in 4 bits, and tiny has 2 in all"),
        ({"calibration": "max"}, "unknown calibration 'max'"),
        ({"to": "half", "images": 5}, "calibration and images have no effect for half"),
        ({"images": 0}, "images must be at least 1, got 0"),
        ({"max_drop": -1}, "max_drop must be at least 0 and at most 100, got -1.0; 0.5 is usual"),
        ({"model": "lenet"}, "network 'lenet' has no weights"),
        ({"model": "lenet-cifar10"}, "answers with 10 classes, but the data .tiny-test. have 3|cannot take images"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(trained, tmp_path, change, message):
    def start():
        quantize(QuantizeConfig(**{**vars(settings(trained)), **change}), tmp_path / "q")

    with pytest.raises(UsageError, match=message):
        start()
    assert not (tmp_path / "q").exists()


def test_training_that_may_be_needed_is_tried_before_anything_is_written(trained, tiny, tmp_path):
    config = settings(trained)
    save_weights(tmp_path / "other.safetensors", create_model("tiny", seed=0, num_classes=5))
    for teacher, message in (
        ("nowhere", "unknown model 'nowhere'"),
        (tmp_path / "other.safetensors", "with 5 classes"),
    ):
        run = dataclasses.replace(config.run, teacher=ModelConfig(name=str(teacher)))
        with pytest.raises(UsageError, match=message):
            quantize(dataclasses.replace(config, run=run), tmp_path / "q")
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize(
    "option", [["--calibration", "percentile"], ["--images", "5"], ["--epochs", "3"], ["--teacher", "nin-cifar10"]]
)
@pytest.mark.parametrize("to", ["half", "int8-weights"])
def test_options_of_int8_are_refused_for_what_does_without(tmp_path, capsys, to, option):
    assert main(["quantize", "lenet-cifar10", "--to", to, *option, "--out", str(tmp_path / "q")]) == 2
    assert f"{option[0]} has no effect here: --to {to} finds no ranges and trains nothing" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()


def test_command_says_what_was_lost_and_resume_goes_on(trained, tiny, tmp_path, capsys, monkeypatch):
    from model_compression.engine.console_observer import ConsoleObserver

    stepped = ConsoleObserver.stepped

    def interrupting(self, progress):
        stepped(self, progress)
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    command = [
        "quantize",
        str(trained),
        "--max-drop",
        "50",
        "--images",
        "10",
        "--epochs",
        "1",
        "--out",
        str(tmp_path / "q"),
    ]
    with monkeypatch.context() as patch:
        refusing(patch, 1)
        patch.setattr(ConsoleObserver, "stepped", interrupting)
        assert main(command) == 128 + signal.SIGTERM
    assert "fine-tuning with its rounding" in capsys.readouterr().err
    assert main(["resume", str(tmp_path / "q")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{tmp_path / 'q' / 'student.onnx'}   ")
    assert out[0].endswith("int8, trained with its roundings")
    assert [line.split()[0] for line in out[1:]] == ["test", "network", "agreement"]
    verify = ["verify", str(tmp_path / "q" / "student.onnx"), "--model", str(trained), "--data", "tiny"]
    assert main([*verify, "--max-drop", "100"]) == 0
    assert "ties" not in capsys.readouterr().out  # any two classes may be within what 8 bits turn
    own = ["verify", verify[1], "--model", str(tmp_path / "q" / "trained"), "--data", "tiny", "--max-drop", "100"]
    assert main(own) == 0
    assert main([*verify[:3], str(tiny.teacher), *verify[4:], "--max-drop", "100"]) == 1
    assert "it was made of other weights" in capsys.readouterr().err
    assert main([*verify, "--bound", "1e-3"]) == 2
    assert "--bound has no effect on a file of int8" in capsys.readouterr().err
    assert json.loads((tmp_path / "q" / "trained" / "config.json").read_text())["epochs"] == 1


def test_data_of_classes_of_other_names_are_said(trained, tiny, tmp_path, monkeypatch, watcher):
    other = [dataclasses.replace(one, class_names=("a", "b", "x"), digest="") for one in tiny.data()]
    monkeypatch.setattr("model_compression.engine.parts.load_data", lambda *_: other)
    seen = watcher()
    quantize(settings(trained, to="half"), tmp_path / "q", seen)
    assert [line for line in seen.messages if "its class 2 is 'c', the data's 'x'" in line]
