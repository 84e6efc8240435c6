"""The command line itself: pipes that are closed, and what is refused before anything is trained."""

import subprocess
import sys

import pytest

from model_compression.cli.main import COMMANDS, main


@pytest.mark.parametrize("arguments", [["--help"], ["data", "synthetic"]], ids=" ".join)
def test_a_closed_pipe_ends_in_silence(arguments):
    code = "import sys; from model_compression.cli.main import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 1)
    process.stderr.close()


@pytest.mark.parametrize("command", [["demo"], ["reproduce"]], ids=" ".join)
def test_unknown_teacher_is_refused_before_anything_is_trained(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--data", "synthetic", "--teacher", "nin-cifar11"]) == 2
    assert "did you mean 'nin-cifar10'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["test", "--model"], ["distill", "--out", "run", "--teacher"]], ids=" ".join)
def test_network_without_weights_is_no_teacher_and_has_no_accuracy(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "lenet", "--data", "synthetic"]) == 2
    assert "network 'lenet' has no weights; give a weights file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_train_with_a_teacher_names_distill(capsys):
    assert main(["train", "--teacher", "nin-cifar10"]) == 2
    assert "model-compression distill" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["num_classes=1000000000000", f"num_classes={10**30}", "init=x"])
def test_impossible_network_is_one_line(option, capsys):
    assert main(["train", "--data", "synthetic", "--student", "lenet-caffe", "--student-option", option]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000, "9" * 400], ids=["digits", "depth", "large"])
def test_monstrous_parameter_is_one_line(text, capsys):
    assert main(["distill", "--data", "synthetic", "--param", f"temperature={text}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_description_in_help_fits_80_columns(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    help_text = capsys.readouterr().out.partition("\nexamples:")[0]
    assert max(map(len, help_text.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_usage_leaves_what_may_be_left_out_to_the_list(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    usage = capsys.readouterr().out.partition("\n\n")[0]
    assert usage.startswith(f"usage: model-compression {command}")
    assert len(usage.splitlines()) <= 5
