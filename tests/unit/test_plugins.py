"""Plug-ins: a real distribution adds one of each that CONTRIBUTING.md says how to add; a broken one harms nobody."""

import dataclasses
import functools
import json
import sys
import textwrap

import pytest
import torch
from torch import nn

from model_compression.cli.main import main
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.data.sources import DATASETS
from model_compression.distillation.methods import METHODS, create
from model_compression.engine.runs import start_run
from model_compression.exporting.runtimes import RUNTIMES
from model_compression.models import MODELS
from model_compression.models.loading import load_model
from model_compression.reports.contents import make_report
from model_compression.reports.html import to_html
from model_compression.reports.sections import SECTIONS
from model_compression.tasks import TASKS

MODULE = '''
import numpy as np
from pathlib import Path
from torch import nn
from model_compression.data.dataset import Dataset
from model_compression.distillation.methods import Method
from model_compression.exporting.runtimes import ExportedFile, Runtime
from model_compression.exporting.metadata import from_json
from model_compression.tasks.image_classification.task import ImageClassification


class Agree(Method):
    """The mean squared difference of the logits."""

    default_weights = {"agree": 2.0}
    default_label_weight = 0.5

    def forward(self, student, teacher, targets, context=None):
        """agree."""
        return {"agree": (student.logits - teacher.logits).square().mean()}


def build(num_classes=3, width=2):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(36 * width, num_classes))


def load(data_dir=None, report=None, allow_download=True):
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    labels = np.arange(20, dtype=np.int64) % 4
    one = Dataset(
        name="theirs", samples=images, labels=labels, class_names=tuple("abcd"), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    return one, one


class Halves(ImageClassification):
    """Classes that count half as much."""

    name = "halves"

    def label_loss(self, logits, targets, mixed, label_smoothing):
        return 0.5 * super().label_loss(logits, targets, mixed, label_smoothing)


def load_halves(data_dir=None, report=None, allow_download=True):
    import dataclasses
    return tuple(dataclasses.replace(one, task="halves") for one in load())


class Slopes(Runtime):
    """A runtime for linear networks: the file holds the answer to a black image, and the slope of each pixel."""

    suffix = ".slopes"

    def check(self):
        pass

    def write(self, module, example, path, metadata):
        import torch
        black = torch.zeros(1, *example.shape[1:], dtype=example.dtype)
        bias = module(black).numpy()
        pixels = black[0].numel()
        white = (255 * torch.eye(pixels, dtype=torch.int64)).to(example.dtype)
        white = white.reshape(pixels, *example.shape[1:])
        with path.open("wb") as file:
            np.savez(file, bias=bias, slopes=(module(white).numpy() - bias) / 255, said=metadata.to_json())

    def open(self, path, threads):
        with np.load(path) as found:
            bias, slopes, said = found["bias"], found["slopes"], str(found["said"])

        def run(images):
            return (images.reshape(len(images), -1).astype(np.float32) @ slopes + bias).astype(np.float32)

        return ExportedFile(runtime="slopes", metadata=from_json(said, str(path)), run=run)


EXAMPLES = "examples:\\n  model-compression hello --name you"


def configure(parser):
    parser.add_argument("--name", default="world")


def run(args):
    print("hello", args.name)
'''
ENTRY_POINTS = """
[model_compression.methods]
agree = their_plugin:Agree
broken = their_plugin.gone:Gone
no_method = their_plugin:build
kd = their_plugin:Agree

[model_compression.models]
their_net = their_plugin:build

[model_compression.datasets]
theirs = their_plugin:load
halves = their_plugin:load_halves

[model_compression.tasks]
halves = their_plugin:Halves

[model_compression.report_sections]
halves = model_compression.reports.sections.classification:Classification

[model_compression.runtimes]
slopes = their_plugin:Slopes

[model_compression.commands]
hello = their_plugin
gone = their_plugin.gone
test = their_plugin
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The distribution "their-plugin", as pip leaves it, on the path; gone from all registries after the test."""
    (tmp_path / "their_plugin.py").write_text(MODULE)
    info = tmp_path / "their_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(ENTRY_POINTS))
    monkeypatch.syspath_prepend(str(tmp_path))
    for registry in (METHODS, MODELS, DATASETS, TASKS, RUNTIMES, SECTIONS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "broken", {})
    yield
    sys.modules.pop("their_plugin", None)


@pytest.mark.usefixtures("installed")
def test_plugin_is_loaded_when_its_name_is_asked_for_and_not_before():
    assert create("kd").default_weights == {"kd": 0.9}  # a built-in name stays what it is
    assert "their_plugin" not in sys.modules
    assert "agree" in METHODS
    assert "their_plugin" not in sys.modules
    assert create("agree").default_weights == {"agree": 2.0}


@pytest.mark.usefixtures("installed")
def test_run_with_method_network_and_data_of_a_plugin(tmp_path):
    config = TrainConfig(
        student=ModelConfig(name="their_net", options={"width": 3}),
        data=DataConfig(name="theirs"),
        epochs=1,
        device="cpu",
        precision="fp32",
    )
    start_run(config, tmp_path / "teacher")
    student = load_model(str(tmp_path / "teacher"))
    assert (student.name, student.options) == ("their_net", {"width": 3, "num_classes": 4})
    teacher = ModelConfig(name=str(tmp_path / "teacher"))
    config = dataclasses.replace(config, teacher=teacher, method=MethodConfig(name="agree,kd"))
    metrics = start_run(config, tmp_path / "student")
    assert 0 <= metrics["teacher_agreement"] <= 1
    with torch.no_grad():
        assert load_model(str(tmp_path / "student"))(torch.zeros(1, 3, 8, 8)).shape == (1, 4)


@pytest.mark.usefixtures("installed")
def test_names_list_plugins_and_leave_broken_ones_out():
    assert "agree" in METHODS.names()
    assert "broken" not in METHODS.names()
    assert METHODS.broken.keys() == {"broken", "no_method"}
    assert METHODS.broken["broken"].startswith(
        "method 'broken', a plug-in of their-plugin, cannot be loaded from their_plugin.gone:Gone: ModuleNotFoundError"
    )
    assert "theirs" in DATASETS.names()
    assert "their_net" in MODELS.names()


@pytest.mark.usefixtures("installed")
def test_broken_plugin_is_an_error_only_for_those_who_ask_for_it():
    with pytest.raises(UsageError, match="method 'broken', a plug-in of their-plugin, cannot be loaded"):
        create("broken")
    with pytest.raises(UsageError, match=r"method 'no_method', a plug-in of their-plugin, is .*expected a subclass"):
        create("no_method")
    with pytest.raises(UnknownNameError, match="unknown method 'agre'; did you mean 'agree'"):
        create("agre")


@pytest.mark.usefixtures("installed")
def test_methods_command_shows_a_plugin_and_names_a_broken_one(capsys):
    assert main(["methods"]) == 0
    shown = capsys.readouterr()
    assert "\n  agree " in f"\n{shown.out}"
    assert "method 'broken', a plug-in of their-plugin, cannot be loaded" in shown.err
    assert main(["methods", "agree"]) == 0
    assert "The mean squared difference of the logits." in capsys.readouterr().out
    assert main(["methods", "--markdown"]) == 0
    assert "\n| `agree` |" in capsys.readouterr().out


@pytest.mark.usefixtures("installed")
def test_command_of_a_plugin_is_called_as_any_other(capsys):
    assert main(["hello", "--name", "you"]) == 0
    assert capsys.readouterr().out == "hello you\n"
    with pytest.raises(SystemExit, match="2"):
        main(["hello", "--nam", "you"])
    assert "did you mean --name" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "\n  hello " in capsys.readouterr().out
    assert main(["gone"]) == 2
    assert "the command 'gone', a plug-in, cannot be loaded from their_plugin.gone: " in capsys.readouterr().err


@pytest.mark.usefixtures("installed")
def test_task_of_a_plugin_is_that_of_its_data(tmp_path):
    """The loss of the first epoch, of one step, is half of that of the same images with classes."""
    losses = {}
    for data in ("theirs", "halves"):
        config = TrainConfig(
            student=ModelConfig(name="their_net"), data=DataConfig(name=data), epochs=1, device="cpu", precision="fp32"
        )
        start_run(config, tmp_path / data)
        losses[data] = json.loads((tmp_path / data / "events.jsonl").read_text())["train_loss"]
    assert losses["halves"] == pytest.approx(losses["theirs"] / 2, rel=1e-6)
    page, other = (to_html(make_report([tmp_path / data])) for data in ("theirs", "halves"))
    assert "Confusion matrix" in page
    assert "Confusion matrix" in other


@pytest.mark.usefixtures("installed")
def test_runtime_of_a_plugin_is_written_and_proven(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    linear = TrainConfig(
        student=ModelConfig(name="linear"), data=DataConfig(name="theirs"), epochs=1, device="cpu", precision="fp32"
    )
    monkeypatch.setitem(MODELS._entries, "linear", build_linear)
    start_run(linear, tmp_path / "run")
    assert main(["export", "run", "--to", "slopes", "--out", "a.slopes"]) == 0, capsys.readouterr().err
    assert main(["verify", "a.slopes", "--model", "run"]) == 0, capsys.readouterr().err
    monkeypatch.setitem(MODELS._entries, "linear", functools.partial(build_linear, bend=True))
    assert main(["export", "run", "--to", "slopes", "--out", "b.slopes"]) == 1
    assert "does not answer as the network does" in capsys.readouterr().err
    assert not (tmp_path / "b.slopes").exists()


def build_linear(num_classes=4, bend=False):
    layers = [nn.Flatten(), nn.Linear(192, num_classes), *([nn.Tanh()] if bend else [])]
    return nn.Sequential(*layers)
