"""Plug-ins: a real distribution on the path adds a method, a network and a data set; a broken one harms nobody."""

import dataclasses
import sys
import textwrap

import pytest
import torch

from model_compression.cli.main import main
from model_compression.core.config import DataConfig, MethodConfig, ModelConfig, TrainConfig
from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.data.sources import DATASETS
from model_compression.distillation.methods import METHODS, create
from model_compression.engine.runs import start_run
from model_compression.models import MODELS
from model_compression.models.weights import load_model

MODULE = '''
import numpy as np
from torch import nn
from model_compression.data.dataset import Dataset
from model_compression.distillation.methods import Method


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
        name="theirs", images=images, labels=labels, class_names=tuple("abcd"), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    return one, one
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
    for registry in (METHODS, MODELS, DATASETS):
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
