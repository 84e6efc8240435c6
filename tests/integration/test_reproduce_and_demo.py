"""The two commands that run several trainings, whole, on the synthetic data."""

import json
import signal
from pathlib import Path

import pytest
import torch

from model_compression.cli.main import main
from model_compression.reports.records import read_record


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    """A LeNet trained on the synthetic data for a moment."""
    folder = tmp_path / "teacher"
    assert (
        main(["train", "--data", "synthetic", "--student", "lenet-caffe", "--epochs", "3", "--out", str(folder)]) == 0
    )
    return str(folder / "student.safetensors")


def test_reproduce_skips_what_has_a_record_and_goes_on(
    tmp_path: Path, teacher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, runs = tmp_path / "results", tmp_path / "runs"
    common = ["reproduce", "views", "--data", "synthetic", "--teacher", teacher, "--epochs", "1", "--out", str(out)]
    assert main([*common, "--runs", str(runs), "--arms", "labels"]) == 0
    first = (out / "labels-seed0.json").read_bytes()
    assert main([*common, "--runs", str(runs), "--arms", "labels", "views_1"]) == 0
    assert (out / "labels-seed0.json").read_bytes() == first
    labels, kd = (json.loads((out / f"{arm}-seed0.json").read_text()) for arm in ("labels", "views_1"))
    assert labels["config"]["student"] == kd["config"]["student"]
    assert labels["config"]["optim"] == kd["config"]["optim"]
    assert kd["metrics"]["teacher_test_accuracy"] > 0.2
    assert len(kd["events"]) == 1
    table = capsys.readouterr().out
    assert "labels only" in table
    assert "1 view" in table


def test_reproduce_refuses_a_record_of_another_configuration(
    tmp_path: Path, teacher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["reproduce", "views", "--data", "synthetic", "--teacher", teacher, "--out", str(tmp_path / "results")]
    common += ["--runs", str(tmp_path / "runs"), "--arms", "labels"]
    assert main([*common, "--epochs", "1"]) == 0
    assert main([*common, "--epochs", "2"]) == 1
    assert "was made with another epochs" in capsys.readouterr().err


def test_reproduce_names_near_matches_of_an_arm(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--arms", "label"]) == 2
    assert "did you mean 'labels'" in capsys.readouterr().err


def test_demo_shows_both_students_and_again_without_training(
    tmp_path: Path, teacher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["demo", "--data", "synthetic", "--teacher", teacher, "--epochs", "1", "--out", str(tmp_path / "demo")]
    assert main(command) == 0
    first = capsys.readouterr()
    assert "LeNet, trained on labels only" in first.out
    assert "LeNet, distilled" in first.out
    assert (tmp_path / "demo" / "curves.png").read_bytes().startswith(b"\x89PNG")
    weights = (tmp_path / "demo" / "distilled" / "student.safetensors").read_bytes()
    assert main(command) == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert "epoch" not in second.err
    assert (tmp_path / "demo" / "distilled" / "student.safetensors").read_bytes() == weights


def test_interrupted_demo_says_what_its_help_says(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from model_compression.engine.console_observer import ConsoleObserver

    command = ["demo", "--data", "synthetic", "--teacher", teacher, "--epochs", "2", "--out", str(tmp_path / "demo")]
    with monkeypatch.context() as patch:
        patch.setattr(ConsoleObserver, "epoch_done", lambda self, event: signal.raise_signal(signal.SIGINT))
        assert main(command) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("state saved; the same command resumes it")
    assert "model-compression resume" not in last
    assert main(command) == 0


@pytest.mark.slow
def test_runs_made_at_once_have_the_records_of_runs_made_in_turn(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the processes, and of this one:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for jobs in ("1", "2"):
            folders = ["--out", str(tmp_path / f"jobs{jobs}"), "--runs", str(tmp_path / "runs"), "--jobs", jobs]
            assert (
                main(
                    [
                        "reproduce",
                        "views",
                        "--data",
                        "synthetic",
                        "--epochs",
                        "1",
                        "--seeds",
                        "2",
                        "--arms",
                        "labels",
                        *folders,
                    ]
                )
                == 0
            )
    finally:
        torch.set_num_threads(threads)
    for seed in (0, 1):
        one, other = (read_record(tmp_path / f"jobs{jobs}" / f"labels-seed{seed}.json") for jobs in (1, 2))
        for place in ("arm", "config", "events", "environment"):
            assert one[place] == other[place]
        assert one["metrics"]["test_accuracy"] == other["metrics"]["test_accuracy"]
        assert one.keys() == other.keys()
        assert one["metrics"].keys() == other["metrics"].keys()
