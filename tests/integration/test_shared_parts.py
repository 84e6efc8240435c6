"""What the runs of one process share: data are decoded once, and each teacher is loaded once."""

import dataclasses
from collections import Counter, OrderedDict

import pytest
from torch import nn

from model_compression.compression.config import Budget, CompressConfig
from model_compression.compression.pipeline import compress
from model_compression.core.config import ModelConfig
from model_compression.data.sources import DATASETS
from model_compression.engine import networks, parts
from model_compression.engine.observer import Silent
from model_compression.engine.training import Training
from model_compression.experiments.schemes import SchemeConfig, run_scheme
from model_compression.models.base import MODELS, Network


def wide(num_classes=3):
    layers = OrderedDict(conv1=nn.Conv2d(3, 16, 3), relu1=nn.ReLU(), flatten=nn.Flatten())
    return Network(layers | {"ip1": nn.Linear(576, 16), "relu2": nn.ReLU(), "ip2": nn.Linear(16, num_classes)})


@pytest.fixture
def seen(tiny, monkeypatch):
    """How often data were decoded, each teacher loaded, and what was found out about them."""
    counts = Counter()
    monkeypatch.setitem(MODELS._entries, "wide", wide)

    def decode(data_dir=None, report=None, allow_download=True):
        counts["data"] += 1
        return tiny.data()

    def counted(module, name, what):
        function = getattr(module, name)

        def call(*arguments, **options):
            counts[what(*arguments)] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    monkeypatch.setitem(DATASETS._entries, "tiny", decode)
    counted(networks, "load_trained", lambda config, data: ("teacher", config.name))
    counted(parts, "examine_data", lambda *_: "data examined")
    counted(parts, "examine_before_run", lambda *_: "teacher examined")
    counted(parts, "cached_teacher", lambda *_: "answers opened")
    return counts


@pytest.mark.slow
def test_compress_with_four_pruning_steps_decodes_and_loads_once(tiny, tmp_path, seen):
    run = tiny.config("kd", student=ModelConfig(name="wide"), epochs=1)
    settings = {"share": 0.5, "steps": 4, "step_epochs": 1, "quantize_epochs": 1, "max_drop": 99}
    compress(CompressConfig(run=run, budget=Budget(), **settings), tmp_path / "c")
    assert len([*(tmp_path / "c" / "pruned").glob("*/student.safetensors")]) == 4
    assert seen == {
        "data": 1,
        ("teacher", str(tiny.teacher)): 1,
        "data examined": 1,
        "teacher examined": 1,
        "answers opened": 1,
    }


def test_assistants_are_loaded_once_each(tiny, tmp_path, seen):
    scheme = SchemeConfig(scheme="takd", run=tiny.config("kd", epochs=1), assistants="tiny-teacher,tiny")
    run_scheme(scheme, tmp_path / "s")
    loaded = {
        ("teacher", str(name)): 1 for name in (tiny.teacher, tmp_path / "s/assistant-1", tmp_path / "s/assistant-2")
    }
    assert {key: count for key, count in seen.items() if key[0] == "teacher"} == loaded
    assert (seen["data"], seen["teacher examined"]) == (1, 5)  # the assistants before they are trained as well


@pytest.mark.parametrize("method", ["kd", "at"])
def test_generations_decode_once(tiny, tmp_path, seen, method):
    run = dataclasses.replace(tiny.config(method, epochs=1), teacher=None)
    run_scheme(SchemeConfig(scheme="self", run=run, generations=3), tmp_path / "s")
    loaded = {("teacher", str(tmp_path / "s" / f"generation-{number}")): 1 for number in (1, 2)}
    assert {key: count for key, count in seen.items() if key[0] == "teacher"} == loaded
    assert seen["data"] == 1


def test_runs_that_share_parts_end_as_runs_of_their_own(tiny, tmp_path):
    """Whatever the run before has tapped of the teacher, and in whichever precision it answered."""
    shared = parts.Parts()
    for number, (method, precision) in enumerate([("at", "fp32"), ("kd", "bf16"), ("kd", "fp32"), ("rkd", "fp32")]):
        config = tiny.config(method, epochs=1, precision=precision, teacher_cache="off")
        for folder, given in (("shared", shared), ("own", None)):
            Training(config, tmp_path / folder / str(number), Silent(), given).finish()
        one, other = (tmp_path / folder / str(number) / "student.safetensors" for folder in ("shared", "own"))
        assert one.read_bytes() == other.read_bytes(), method
