"""A task that is made up here trains, resumes, reports, exports and verifies without a change elsewhere."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from model_compression.cli.main import main
from model_compression.core.config import MethodConfig
from model_compression.core.errors import Interrupted, UsageError
from model_compression.core.metric import Metric
from model_compression.data.dataset import Dataset
from model_compression.data.sources import DATASETS
from model_compression.engine.runs import resume_run, start_run
from model_compression.tasks import TASKS, Task


class Colours(Task):
    """The mean colour of each image: a vector of three numbers."""

    name = "colours"
    answer = "real"
    metric = Metric(
        name="error", label="error", plural="errors", unit="mm", gain_unit="mm", digits=3, higher_is_better=False,
        lowest=0.0,
    )  # fmt: skip

    def label_loss(self, logits, targets, mixed, label_smoothing):
        return (logits - targets).square().mean()

    def score(self, logits, targets):
        return (logits - targets).norm(dim=1).sum()

    def as_targets(self, logits):
        return logits

    def mean_of(self, answers):
        return torch.stack([answer.detach() for answer in answers]).mean(dim=0)

    def figures(self, logits, targets):
        return {"error": float((logits - targets).norm(dim=1).double().mean())}

    def agreement(self, logits, others):
        return float(1 / (1 + (logits - others).norm(dim=1).mean()))

    def guessing_fault(self, value, dataset):
        return None

    def surest_mistakes(self, logits, others, targets):
        return (logits - targets).norm(dim=1).argsort(descending=True)

    def check_answer(self, role, model, dataset, answer):
        if answer.shape[1:] != (3,):
            raise UsageError(f"the {role} answers with {tuple(answer.shape)}; expected three numbers for each image")


def colours(data_dir=None, report=None, allow_download=True):
    rng = np.random.default_rng(3)
    sets = []
    for name, count in (("colours", 40), ("colours-test", 15)):
        images = rng.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
        targets = (images.mean(axis=(2, 3)) / 255).astype(np.float32)
        sets.append(
            Dataset(
                name=name,
                images=images,
                labels=targets,
                class_names=(),
                mean=(0.5,) * 3,
                std=(0.25,) * 3,
                task="colours",
            )
        )
    return tuple(sets)


@pytest.fixture(autouse=True)
def _task(monkeypatch):
    monkeypatch.setitem(TASKS._entries, "colours", Colours)
    monkeypatch.setitem(DATASETS._entries, "colours", colours)


def config_of(tiny, method="logits", **options):
    """A run on the colours, from a teacher that knows nothing of them."""
    config = tiny.config(method, data={"name": "colours"}, optim={"lr": 1e-2}, **options)
    return dataclasses.replace(config, epochs=6)


def error_of(answers, targets):
    return float(np.sqrt(((answers.astype(np.float64) - targets) ** 2).sum(axis=1)).mean())


def test_run_learns_vectors_and_records_its_metric(tiny, watcher, tmp_path):
    """The figures are those of NumPy, for student, teacher and training."""
    seen = watcher()
    metrics = start_run(config_of(tiny, None, evaluate_every=3), tmp_path / "run", seen)
    found = load_file(tmp_path / "run" / "predictions.safetensors")
    targets = colours()[1].labels
    assert np.array_equal(found["targets"], targets)
    assert metrics["test_error"] == pytest.approx(error_of(found["student_logits"], targets), rel=1e-6)
    assert metrics["primary_metric"]["higher_is_better"] is False
    assert seen.events[-1]["train_error"] < seen.events[0]["train_error"]
    assert seen.events[-1]["test_error"] == pytest.approx(metrics["test_error"], rel=1e-6)
    assert not [key for key in metrics if "accuracy" in key]
    assert " mm" in (tmp_path / "run" / "README.md").read_text()


def test_distilled_run_resumes_to_the_same_bits(tiny, watcher, tmp_path):
    config = config_of(tiny, MethodConfig(name="logits", label_weight=0.5))
    start_run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", watcher([7]))
    metrics = resume_run(tmp_path / "run")
    found = load_file(tmp_path / "run" / "predictions.safetensors")
    assert metrics["teacher_test_error"] == pytest.approx(
        error_of(found["teacher_logits"], colours()[1].labels), rel=1e-6
    )
    for name in ("student.safetensors", "events.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_method_for_classes_is_refused_by_name(tiny, tmp_path):
    with pytest.raises(UsageError, match="method 'kd' compares categorical answers, and those of the task 'colours'"):
        start_run(config_of(tiny, "kd"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_runs_are_reported_by_their_own_metric(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        start_run(config_of(tiny, "logits", seed=seed), tmp_path / "runs" / f"distilled-{seed}")
        start_run(config_of(tiny, None, seed=seed), tmp_path / "runs" / f"labels-{seed}")
    assert main(["runs", "runs"]) == 0
    assert "mm" in capsys.readouterr().out
    for kind in ("md", "html", "json"):
        assert main(["report", "runs", "--out", f"report.{kind}"]) == 0
        text = (tmp_path / f"report.{kind}").read_text()
        assert "error" in text
        assert "accuracy" not in text.lower()
    assert not capsys.readouterr().err
    assert main(["compare", "runs/distilled-0", "runs/labels-0"]) == 0
    assert " mm" in capsys.readouterr().out


def test_network_is_exported_and_verified(tiny, tmp_path, capsys):
    start_run(config_of(tiny, None), tmp_path / "run")
    file = tmp_path / "colours.onnx"
    assert main(["export", str(tmp_path / "run"), "--out", str(file)]) == 0, capsys.readouterr().err
    assert main(["verify", str(file), "--model", str(tmp_path / "run"), "--json"]) == 0, capsys.readouterr().err
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert found["error"] == pytest.approx(metrics["test_error"], rel=1e-4)


def test_network_is_pruned_and_quantised(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start_run(config_of(tiny, None), tmp_path / "run")
    learned = ["--method", "logits", "--epochs", "1"]
    assert main(["prune", "run", "--sparsity", "0.3", "--steps", "1", *learned, "--out", "pruned"]) == 0, (
        capsys.readouterr().err
    )
    assert " mm" in capsys.readouterr().out
    options = ["--max-drop", "100", "--calibration", "minmax", *learned, "--out", "small"]
    assert main(["quantize", "run", *options]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    report = json.loads((tmp_path / "small" / "report.json").read_text())
    assert report["drop"] == pytest.approx(report["error"] - report["network_error"], abs=1e-6)
    assert " mm" in shown
    assert "accuracy" not in shown
