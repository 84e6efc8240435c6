"""Pruning in steps, each a run: what is left, who teaches it, and that an interruption changes nothing."""

import argparse
import dataclasses
import json
import shutil
from collections import OrderedDict

import pytest
import torch
from torch import nn

from model_compression.cli.compression_reports import print_pruned
from model_compression.cli.main import main
from model_compression.cli.prune import add_repair_options, repaired
from model_compression.compression.config import PruneConfig
from model_compression.compression.prune import Pruning, prune, shares
from model_compression.compression.repair import repair_config
from model_compression.core.config import MethodConfig
from model_compression.core.errors import Interrupted, RunFolderError, UsageError
from model_compression.data.sources import DATASETS
from model_compression.engine.runs import start_run
from model_compression.models import factored
from model_compression.models.base import MODELS, Network
from model_compression.models.create import create_model
from model_compression.models.loading import read_model
from model_compression.models.sparse import density_of
from model_compression.models.weights import find_weights, save_weights


def wide(num_classes=3):
    layers = OrderedDict(conv1=nn.Conv2d(3, 12, 3, bias=False), bn1=nn.BatchNorm2d(12), relu1=nn.ReLU())
    layers |= {
        "flatten": nn.Flatten(),
        "ip1": nn.Linear(432, 16),
        "relu2": nn.ReLU(),
        "ip2": nn.Linear(16, num_classes),
    }
    return Network(layers)


@pytest.fixture
def trained(tiny, tmp_path, monkeypatch):
    """A run of "wide" that the tiny teacher taught."""
    from model_compression.core.config import ModelConfig

    monkeypatch.setitem(MODELS._entries, "wide", wide)
    start_run(tiny.config("kd", student=ModelConfig(name="wide"), ema=0.5), tmp_path / "trained")
    return tmp_path / "trained"


def settings(trained, **changes):
    given = {"resource": "params", "share": 0.5, "steps": 2, "step_epochs": 1, **changes}
    return PruneConfig(model=str(trained), run=repair_config(str(trained)), **given)


def test_steps_spare_alike_and_the_last_is_what_was_asked_for(trained):
    assert shares(settings(trained, share=0.125, steps=3)) == pytest.approx(
        {"step-1": 0.5, "step-2": 0.25, "final": 0.125}
    )


def test_pruned_run_is_a_run_as_any_other(trained, tiny, tmp_path, watcher):
    seen = watcher()
    metrics = prune(settings(trained, round_to=1), tmp_path / "p", seen)
    whole = sum(parameter.numel() for parameter in read_model(trained / "student.safetensors").parameters())
    assert list(metrics) == ["step-1", "final"]
    for name, share in (("step-1", 0.5**0.5), ("final", 0.5)):
        network = read_model(tmp_path / "p" / name / "student.safetensors")
        count = sum(parameter.numel() for parameter in network.parameters())
        assert 0.85 * share * whole < count == metrics[name]["parameters"] <= share * whole
    config = json.loads((tmp_path / "p" / "final" / "config.json").read_text())
    assert (config["teacher"]["name"], config["method"]["name"], config["ema"]) == (str(tiny.teacher), "kd", 0.5)
    assert [config["epochs"], len(seen.steps)] == [3, 5 + 15]
    assert metrics["final"]["teacher_test_accuracy"] is not None
    again = prune(settings(tmp_path / "p", share=0.8, steps=1), tmp_path / "again")  # its folder is a network's name
    assert again["final"]["parameters"] < metrics["final"]["parameters"]


def test_pruning_on_another_device_is_the_same_and_one_to_another_size_is_not(trained, tmp_path):
    config = settings(trained, steps=1)
    metrics = prune(config, tmp_path / "p")
    run = dataclasses.replace(config.run, device="auto", teacher_cache="off", checkpoint_every=2)
    assert run != config.run
    assert Pruning(dataclasses.replace(config, run=run), tmp_path / "p").finish() == metrics
    with pytest.raises(RunFolderError, match="holds another pruning; choose another folder, or delete it"):
        Pruning(dataclasses.replace(config, share=0.4), tmp_path / "p").finish()


def test_low_rank_pruning_cuts_the_rank_too_to_the_size_of_the_network_itself(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(factored, "_LEAST_RANK", 4)
    whole = sum(parameter.numel() for parameter in read_model(trained / "student.safetensors").parameters())
    prune(settings(trained, low_rank=True, share=0.3), tmp_path / "p")
    for name, share in (("step-1", 0.3**0.5), ("final", 0.3)):
        network = read_model(tmp_path / "p" / name / "student.safetensors")
        assert sum(parameter.numel() for parameter in network.parameters()) <= share * whole
        assert network.ip1.first.out_features == network.ip1.second.in_features < 16
    with pytest.raises(UsageError, match="low_rank has no effect on single weights"):
        settings(trained, resource="weights", low_rank=True)


def test_widths_are_multiples_of_what_is_asked_for(trained, tmp_path):
    prune(settings(trained, share=0.5, round_to=8), tmp_path / "p")
    cut, whole = (read_model(find_weights(str(place))) for place in (tmp_path / "p", trained))
    before = [layer.out_channels for layer in whole.modules() if isinstance(layer, torch.nn.Conv2d)]
    widths = [layer.out_channels for layer in cut.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert widths != before
    assert all(width in (old, 8 * (width // 8)) for width, old in zip(widths, before, strict=True))
    with pytest.raises(UsageError, match="round_to must be at least 1, got 0"):
        settings(trained, round_to=0)
    with pytest.raises(UsageError, match="round_to has no effect on single weights"):
        settings(trained, resource="weights", round_to=8)


def test_table_of_a_pruning_begins_with_what_it_was(trained, tmp_path, capsys):
    metrics = prune(settings(trained, steps=1), tmp_path / "p")
    own = json.loads((trained / "metrics.json").read_text())
    assert print_pruned(metrics, tmp_path / "p", as_json=True) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert list(stages) == ["before", "final"]
    assert stages["before"]["test_accuracy"] == own["test_accuracy"]
    assert (stages["before"]["parameters"], stages["before"]["share"]) == (own["parameters"], 1)
    assert print_pruned(metrics, tmp_path / "p", as_json=False) == 0
    before = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("before"))
    assert before.split()[1:] == ["100.0%", f"{own['parameters']:,}", "100.0%", f"{own['test_accuracy']:.2%}"]


def test_accuracy_on_other_data_is_none_of_a_pruning(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(DATASETS._entries, "other", DATASETS.get("tiny"))
    config = settings(trained, steps=1)
    run = dataclasses.replace(config.run, data=dataclasses.replace(config.run.data, name="other"))
    metrics = prune(dataclasses.replace(config, run=run), tmp_path / "p")
    assert print_pruned(metrics, tmp_path / "p", as_json=False) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["before"].endswith("not stated")
    assert lines["final"].endswith(f"{metrics['final']['test_accuracy']:.2%}")


def test_accuracy_of_before_the_test_data_changed_is_none_of_a_pruning(trained, tmp_path, capsys):
    own = shutil.copytree(trained, tmp_path / "run")
    metrics = prune(settings(own, steps=1), tmp_path / "p")
    for digest, said in ((None, True), ("0" * 64, False)):  # an older run has none
        place = own / "environment.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), "test_data_sha256": digest}))
        print_pruned(metrics, tmp_path / "p", as_json=False)
        before = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("before"))
        assert before.endswith("not stated") != said


@pytest.mark.parametrize("stop", [2, 5, 7, 19])
def test_interrupted_pruning_ends_with_the_same_bytes(trained, tmp_path, watcher, stop, monkeypatch):
    for folder in ("whole", "part"):
        (tmp_path / folder).mkdir()
    config = settings(trained)
    prune(config, tmp_path / "whole" / "p")

    class Stopping(watcher):
        def stepped(self, progress):
            super().stepped(progress)
            if len(self.steps) == stop:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGTERM)

    folder = tmp_path / "part" / "p"
    with pytest.raises(
        Interrupted, match=f"(step-1|final): stopped at .*continue with: model-compression resume {folder}"
    ):
        prune(config, folder, Stopping())
    with pytest.raises(RunFolderError, match=f"is begun already: continue it with: model-compression resume {folder}"):
        prune(config, folder)
    folder = folder.rename(tmp_path / "moved")
    damaged = folder / ("final.safetensors" if stop > 5 else "step-1.safetensors")
    if damaged.exists() and stop in (2, 7):  # what a step began with is cut again
        damaged.write_bytes(damaged.read_bytes()[:-9])
    seen = watcher()
    Pruning.at(folder, seen).resume()
    assert len(seen.steps) == 20 - stop
    for name in (
        "step-1.safetensors",
        "final.safetensors",
        "final/student.safetensors",
        "final/predictions.safetensors",
    ):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / "p" / name).read_bytes(), name
    with pytest.raises(RunFolderError, match="is finished: there is nothing to resume; its result is "):
        Pruning.at(folder).resume()


def test_zeros_stay_through_every_repair(trained, tmp_path):
    metrics = prune(settings(trained, resource="weights", share=0.1), tmp_path / "p")
    assert metrics["final"]["density"] == pytest.approx(0.1, abs=1e-3)
    network = read_model(tmp_path / "p" / "final" / "student.safetensors")
    assert density_of(network) == pytest.approx(0.1, abs=1e-3)
    zeros = [weight == 0 for weight in read_model(tmp_path / "p" / "final.safetensors").parameters() if weight.ndim > 1]
    after = [weight == 0 for weight in network.parameters() if weight.ndim > 1]
    assert all(torch.equal(one, other) for one, other in zip(zeros, after, strict=True))


def test_network_without_a_teacher_learns_from_what_it_was(tiny, tmp_path):
    start_run(tiny.config(), tmp_path / "labels")
    config = repair_config(str(tmp_path / "labels"))
    assert (config.teacher.name, config.method.name) == (str(tmp_path / "labels"), "kd")
    start_run(dataclasses.replace(tiny.config("kd"), method=MethodConfig(name="fitnet")), tmp_path / "features")
    assert repair_config(str(tmp_path / "features")).method == MethodConfig(name="kd")
    assert repair_config("lenet-cifar10").teacher.name == "lenet-cifar10"
    save_weights(tmp_path / "numbers.safetensors", create_model("tiny", seed=0), facts={"task": "regression"})
    assert repair_config(str(tmp_path / "numbers.safetensors")).method == MethodConfig(name="logits")  # kd refuses it


def test_data_of_other_classes_are_not_blamed_on_the_student(trained, tiny, tmp_path, monkeypatch):
    two = [
        dataclasses.replace(one, name="two", labels=one.labels % 2, class_names=("a", "b"), digest="")
        for one in tiny.data()
    ]
    monkeypatch.setattr("model_compression.engine.parts.load_data", lambda *_: two)
    with pytest.raises(
        UsageError, match=r"the model answers with 3 classes, but the data \(two\) have 2; choose another model or an"
    ):
        prune(settings(trained), tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_smoothing_of_the_run_goes_where_the_method_has_no_label_loss(tiny, tmp_path, capsys):
    start_run(dataclasses.replace(tiny.config("kd"), label_smoothing=0.1, epochs=1), tmp_path / "smooth")
    (parser := argparse.ArgumentParser()).add_argument("model")
    add_repair_options(parser, "repair")

    def smoothing(*arguments):
        args = parser.parse_args([str(tmp_path / "smooth"), *arguments])
        return repaired(args.model, args).label_smoothing

    assert smoothing() == 0.1
    assert smoothing("--method", "logits") == smoothing("--label-weight", "0") == 0
    assert smoothing("--method", "logits", "--label-weight", "0.5") == 0.1
    given = ["--params", "0.5", "--method", "logits", "--label-smoothing", "0.2", "--out", str(tmp_path / "p")]
    assert main(["prune", str(tmp_path / "smooth"), *given]) == 2
    assert "label_smoothing 0.2 has no effect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.0}, "share must be above 0 and below 1, got 1.0; 0.5 leaves half"),
        ({"share": 0.001}, "cannot be cut to 7 parameters: with 4 channels in every layer that can be cut it has"),
        ({"steps": 0}, "steps must be at least 1 and at most 1,000, got 0"),
        ({"resource": "mac"}, "unknown resource 'mac'; did you mean 'macs'"),
    ],
)
def test_wrong_pruning_is_refused_before_anything_is_written(trained, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        prune(settings(trained, **change), tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_command_says_what_was_left(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = ["prune", str(trained), "--params", "0.5", "--steps", "2", "--step-epochs", "1", "--epochs", "1"]
    assert main([*base, "--out", str(tmp_path / "p")]) == 0
    out, err = capsys.readouterr()
    assert "each channel of trained/student.safetensors\n" in err
    assert "\np/step-1.safetensors: " in err
    out = out.splitlines()
    assert [line.split()[:2] for line in out[2:5]] == [
        ["before", "100.0%"],
        ["step-1", "70.7%"],
        ["final", "50.0%"],
    ]
    assert out[-1] == f"run folder {tmp_path / 'p' / 'final'}"
    assert (
        main(
            ["prune", str(trained), "--sparsity", "0.9", "--steps", "1", "--epochs", "1", "--out", str(tmp_path / "s")]
        )
        == 0
    )
    out = capsys.readouterr().out.splitlines()
    size = (tmp_path / "s" / "final" / "student.safetensors").stat().st_size
    assert out[-2].startswith(
        f"The file keeps its {size:,} bytes, and neither PyTorch nor ONNX Runtime computes faster"
    )
    for arguments, message in (
        (["--params", "1.5"], "--params must be above 0 and below 1, got 1.5"),
        (["--params", "0.5", "--method", "fitnet"], "method 'fitnet' compares features"),
        (["--params", "0.5", "--method", "kdd"], "unknown method 'kdd'; did you mean 'kd'"),
    ):
        assert main(["prune", str(trained), *arguments, "--out", str(tmp_path / "none")]) == 2
        assert message in capsys.readouterr().err
    assert main(["prune", "lenet", "--params", "0.5"]) == 2
    error = capsys.readouterr().err
    assert "network 'lenet' has no weights; give a weights file, a run folder or a shipped one" in error
    assert "--weights" not in error
    assert main(["prune", str(trained), "--params", "0.5", "--data", "synthetic"]) == 2
    error = capsys.readouterr().err
    assert "the model cannot take images of (3, 32, 32)" in error
    assert error.endswith("; give data like those that it has learnt from\n")
    assert not (tmp_path / "none").exists()
