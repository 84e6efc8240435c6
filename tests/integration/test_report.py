"""The report on runs that were trained: its figures are those that training wrote."""

import json

import pytest

from model_compression.cli.main import main
from model_compression.core.errors import Interrupted
from model_compression.engine.runs import start_run
from model_compression.experiments.schemes import SchemeConfig, run_scheme
from model_compression.reports.contents import make_report


def test_report_has_the_figures_of_training(tiny, tmp_path, capsys):
    for seed in range(2):
        for method in ("kd", None):
            start_run(tiny.config(method, seed=seed, evaluate_every=1), tmp_path / "runs" / f"{method}-{seed}")
    assert main(["report", str(tmp_path / "runs"), "--format", "json"]) == 0
    groups = {group["name"]: group for group in json.loads(capsys.readouterr().out)["groups"]}
    assert list(groups) == ["labels only", "kd"]
    for name, method in (("kd", "kd"), ("labels only", None)):
        metrics = json.loads((tmp_path / "runs" / f"{method}-0" / "metrics.json").read_text())
        detail = groups[name]["detail"]
        assert detail["accuracy"]["share"] == pytest.approx(metrics["test_accuracy"])
        assert detail["calibration"]["ece"] == pytest.approx(metrics["test_ece"], abs=1e-9)
        assert detail["calibration"]["nll"] == pytest.approx(metrics["test_nll"])
        assert [row["name"] for row in detail["classes"]] == ["a", "b", "c"]
        if method:
            same = detail["agreement"]["same"]
            assert same["count"] / same["total"] == pytest.approx(metrics["teacher_agreement"])
            assert detail["teacher_accuracy"]["share"] == pytest.approx(metrics["teacher_test_accuracy"])


def test_report_shows_an_interrupted_run_and_all_of_a_scheme(tiny, watcher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Interrupted):
        start_run(tiny.config("kd"), tmp_path / "stopped", watcher(stop_after=[7]))
    assert main(["report", "stopped"]) == 0
    assert "1 of 3 epochs are done" in (tmp_path / "report.html").read_text()
    run_scheme(SchemeConfig(scheme="self", run=tiny.config("kd", epochs=1), generations=2), tmp_path / "scheme")
    report = make_report(["scheme"])
    assert [run.path.name for run in report.runs] == ["generation-1", "generation-2"]
    assert all(group.summary is not None for group in report.groups)


def test_command_in_the_report_repeats_the_run(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start_run(tiny.config("kd"), tmp_path / "a run")
    assert main(["report", "a run", "--format", "md"]) == 0
    shown = capsys.readouterr().out
    assert "model-compression distill --config 'a run/config.json' --out 'a run-again'" in shown
    assert main(["distill", "--config", "a run/config.json", "--out", "a run-again"]) == 0
    weights = [(tmp_path / folder / "student.safetensors").read_bytes() for folder in ("a run", "a run-again")]
    assert weights[0] == weights[1]
