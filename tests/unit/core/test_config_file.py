"""Configurations that people write, and that runs write."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from model_compression.cli.main import main
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.config_file import read_config
from model_compression.core.config_json import to_json
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import FileFormatError, NotThereError, UsageError
from model_compression.core.optim_config import OptimConfig

WHOLE = """
student = "timm:resnet18"
epochs = 12
teacher_cache = "off"

[teacher]
name = "runs/teacher"
size = [224, 224]

[method]
name = "kd"
params = { temperature = 2 }

[data]
name = "folder:photos"
augmentation = "flip"

[optim]
lr = 1e-3
schedule = "cosine"
"""


def written(tmp_path, text, name="run.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_toml_file_is_the_configuration_that_it_says(tmp_path):
    assert read_config(written(tmp_path, WHOLE), "run.toml") == TrainConfig(
        student=ModelConfig(name="timm:resnet18"),
        teacher=ModelConfig(name="runs/teacher", size=[224, 224]),
        method=MethodConfig(name="kd", params={"temperature": 2}),
        data=DataConfig(name="folder:photos", augmentation="flip"),
        optim=OptimConfig(lr=1e-3, schedule="cosine"),
        epochs=12,
        teacher_cache="off",
        left_open=[
            "optim.optimizer", "optim.weight_decay", "batch_size", "data.shift", "data.color_jitter", "data.views",
        ],
    )  # fmt: skip


def test_what_a_run_writes_is_read_as_it_was(tmp_path):
    config = TrainConfig(student=ModelConfig(name="lenet"), optim=OptimConfig(lr=0.25), epochs=3, ema=0.5)
    assert read_config(written(tmp_path, to_json(config), "config.json"), "config.json") == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('student = "lenet"\nlr = 1', r"run.toml: lr stands in the table \[optim\]$"),
        ('student = "lenet"\n[optim]\nepochs = 3', r"run.toml: epochs stands before all tables, not in \[optim\]"),
        ('student = "lenet"\nepoch = 3', "run.toml: unknown key 'epoch'; did you mean 'epochs'"),
        ('student = "lenet"\n[optim]\nlearnrate = 3', "unknown key 'learnrate'; .*known: backbone_lr_scale"),
        ('student = "lenet"\nepochs = "3"', "run.toml.epochs must be an integer, got '3'"),
        ("epochs = 3", "run.toml: the key 'student' is missing"),
        ("student: lenet", "run.toml is not TOML: .*line 1"),
        ('student = "lenet"\nepochs = ' + "9" * 5000, "run.toml is not TOML: "),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(tmp_path, text, expected):
    with pytest.raises(UsageError, match=expected):
        read_config(written(tmp_path, text), "run.toml")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"run\.yaml is YAML, which reads off as false and 1e-3 as text; write TOML"):
        read_config(written(tmp_path, "student: lenet", "run.yaml"), "run.yaml")
    with pytest.raises(NotThereError, match=r"the config no\.toml is not there; expected a \.toml file"):
        read_config(tmp_path / "no.toml", "no.toml")
    with pytest.raises(FileFormatError, match="cannot read the config folder"):
        read_config(tmp_path, "folder")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"x\.toml is not TOML: 'utf-8' codec"):
        read_config(tmp_path / "x.toml", "x.toml")


def test_a_command_starts_from_a_file_and_its_run_gives_the_same_again(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = 'student = "tiny"\nepochs = 2\nprecision = "fp32"\ndevice = "cpu"\n[data]\nname = "tiny"\n'
    text += 'augmentation = "none"\n[optim]\nlr = 1e-2\noptimizer = "adam"\nschedule = "constant"\nweight_decay = 0'
    written(tmp_path, text)
    assert main(["train", "--config", "run.toml", "--batch-size", "5", "--out", "a"]) == 0
    assert main(["train", "--config", "a/config.json", "--out", "b"]) == 0
    expected = tiny.config(epochs=2, optim={"lr": 1e-2})
    expected = dataclasses.replace(expected, data=dataclasses.replace(expected.data, shift=4))
    assert json.loads((tmp_path / "a" / "config.json").read_text()) == json.loads(to_json(expected))
    first, again = ((tmp_path / run / "student.safetensors").read_bytes() for run in ("a", "b"))
    assert first == again


def test_the_file_in_the_guide_is_one(tmp_path):
    guide = (Path(__file__).parents[3] / "docs" / "guide.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", guide, flags=re.DOTALL)
    config = read_config(written(tmp_path, text), "run.toml")
    assert (config.data.name, config.optim.schedule) == ("folder:photos", "cosine")


def test_a_student_of_the_command_stands_for_one_that_the_file_lacks(tmp_path):
    path = tmp_path / "some.toml"
    path.write_text("epochs = 3\n", encoding="utf-8-sig")  # as Windows writes it
    found = read_config(path, "some.toml", "resnet8")
    assert (found.student.name, found.epochs) == ("resnet8", 3)
    with pytest.raises(UsageError, match="the key 'student' is missing"):
        read_config(path, "some.toml")
    path.write_text("student = 'lenet'\n")
    assert read_config(path, "some.toml", "resnet8").student.name == "lenet"
