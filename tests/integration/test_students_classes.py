"""A student that begins with weights of other classes, or of the same in another order, is no silent matter."""

import dataclasses
import re
import shlex

import pytest

from model_compression.api.training import distill
from model_compression.cli.main import COMMANDS, main, parser_of
from model_compression.core.config import ModelConfig
from model_compression.core.config_json import to_json
from model_compression.core.errors import UsageError
from model_compression.data.sources import DATASETS
from model_compression.engine.runs import start_run
from model_compression.models.loading import load_model

ORDER, OTHERS = (
    "has its classes in another order than tiny: its class 0 is 'a', the data's ",
    "learned other classes than",
)


@pytest.fixture
def trained(tiny, tmp_path):
    start_run(tiny.config(), tmp_path / "trained")
    return tmp_path / "trained"


def named(tiny, monkeypatch, *names):
    """From here on "tiny" has these classes."""
    monkeypatch.setitem(
        DATASETS._entries,
        "tiny",
        lambda *_, **__: tuple(dataclasses.replace(one, class_names=names) for one in tiny.data()),
    )


@pytest.mark.parametrize(
    ("names", "said"), [(("c", "a", "b"), ORDER), (("x", "y", "z"), OTHERS), (("a", "b", "c"), None)]
)
@pytest.mark.parametrize("by", ["name", "weights"])
def test_students_weights_of_other_classes_are_said(trained, tiny, tmp_path, watcher, monkeypatch, names, said, by):
    file = str(trained / "student.safetensors")
    student = ModelConfig(name=str(trained)) if by == "name" else ModelConfig(name="tiny", weights=file)
    named(tiny, monkeypatch, *names)
    config, seen = tiny.config(student=student, epochs=1), watcher()
    start_run(config, tmp_path / "run", seen)
    lines = [line for line in seen.messages if ORDER in line or OTHERS in line]
    assert [said in line for line in lines] == ([] if said is None else [True])
    assert all("has to learn the data's classes anew" in line for line in lines)
    if said is not None:
        with pytest.raises(UsageError, match="an error as you asked for strict checks"):
            start_run(config, tmp_path / "strict", watcher(), strict=True)
        assert not (tmp_path / "strict").exists()


def test_networks_that_are_given_from_python_keep_their_classes(trained, tiny, tmp_path, watcher, monkeypatch):
    network, seen = load_model(trained), watcher()
    named(tiny, monkeypatch, "c", "a", "b")
    common = {"epochs": 1, "batch_size": 5, "device": "cpu", "method": "kd"}
    with pytest.raises(UsageError, match=r"the teacher .*has its classes in another order"):
        distill(network, "tiny", "tiny", **common, run_dir=tmp_path / "a")
    teacher = load_model(str(tiny.teacher))
    distill(teacher, network, "tiny", **common, run_dir=tmp_path / "b", observer=seen)
    assert any("in another order" in line for line in seen.messages)


@pytest.mark.parametrize(
    "line",
    [
        "test --model resnet20",
        "test --model timm:resnet18",
        "export resnet20 --out x.onnx",
        "verify --model resnet20 FILE",
        "distill --teacher resnet20 --student lenet --data synthetic",
        "distill --teacher PT --student lenet --data synthetic",
        "test --model PT",
        "measure PT",
        "quantize PT",
        "demo --teacher resnet20",
        "reproduce --teacher resnet20",
        "compress --teacher resnet20 --student lenet --data synthetic",
        "compare-methods --teacher resnet20 --student lenet --data synthetic",
        "doctor --teacher resnet20",
        "quantize resnet20",
        "prune resnet20 --macs 0.5",
        "cache build --teacher resnet20 --student lenet --data synthetic",
    ],
)
def test_advice_names_options_that_the_command_has(tmp_path, capsys, line, trained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import torch

    torch.save({"w": torch.zeros(3)}, tmp_path / "net.pt")
    if "FILE" in line:
        assert main(["export", str(trained), "--out", "x.onnx"]) == 0
    capsys.readouterr()
    arguments = shlex.split(line.replace("PT", "net.pt").replace("FILE", "x.onnx"))
    assert main(arguments) in (1, 2)
    said = capsys.readouterr().err
    assert "weights" in said
    _, parser = parser_of(arguments[0])
    assert arguments[0] in COMMANDS
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", said)) <= parser.flags


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"{", b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}", b"[]"])
def test_unreadable_configuration_is_wrong_usage(tmp_path, capsys, content):
    (tmp_path / "config.json").write_bytes(content)
    assert main(["train", "--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "r")]) == 2
    assert "config.json" in capsys.readouterr().err


def test_readable_configuration_is_taken(tiny, tmp_path):
    (tmp_path / "config.json").write_text(to_json(tiny.config(epochs=1)))
    assert main(["train", "--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "r")]) == 0
