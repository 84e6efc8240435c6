"""Commands in several processes: what is asked for, and what cannot be."""

import pytest

from model_compression.cli.launch import num_processes
from model_compression.cli.main import main
from model_compression.core.errors import UsageError


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "4096", ""])
def test_a_number_of_processes_that_cannot_be_is_one_line(given):
    with pytest.raises(UsageError, match=r"--processes must be a number from 1 to 1024, or auto, got"):
        num_processes(given)


def test_processes_are_one_without_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert (num_processes(None), num_processes("auto"), num_processes("3")) == (1, 1, 3)


def test_a_command_of_one_process_says_so_under_torchrun(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["methods"]) == 2
    assert "methods runs in one process, and torchrun has started 2" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert main(["methods"]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--accumulate", "2", "--method", "rkd"],
            "accumulate must be 1 with the method rkd, which needs whole batches",
        ),
        (["--accumulate", "0"], "--accumulate must be at least 1, got 0"),
        (["--checkpoint-activations", "--student", "lenet"], "lenet is no row of blocks"),
        (
            ["--shard-teacher", "--teacher-cache-topk", "3", "--teacher-cache", "auto"],
            "--teacher-cache-topk has no effect with --shard-teacher",
        ),
        (["--method", "at", "--teacher-cache-topk", "3", "--teacher-cache", "auto"], "features, which are not stored"),
    ],
)
def test_what_saves_memory_is_refused_where_it_cannot(tmp_path, capsys, more, said):
    base = ["distill", "--teacher", "nin-cifar10", "--student", "resnet8", "--data", "synthetic", "--epochs", "1"]
    assert main([*base, "--allow-weak-teacher", "--teacher-cache", "off", "--out", str(tmp_path / "x"), *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
