"""distill --scheme as a person types it: what it runs, prints and resumes, and what it says to mistakes."""

import json
import os
import signal

import pytest

from model_compression.cli.distill import configure, distill_config
from model_compression.cli.main import main
from model_compression.engine.console_observer import ConsoleObserver

FAST = ["--data", "tiny", "--epochs", "1", "--batch-size", "8", "--precision", "fp32", "--device", "cpu"]
DISTILL = ["distill", "--student", "tiny", *FAST]


@pytest.fixture
def command(tiny, tmp_path, monkeypatch, capsys):
    """Function that runs a command in a folder of its own and returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(tiny.teacher) if argument == "TEACHER" else str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


def config_of(*arguments):
    import argparse

    parser = argparse.ArgumentParser()
    configure(parser)
    return distill_config(parser.parse_args(list(arguments)))


def accuracy(folder, name="test_accuracy"):
    return json.loads((folder / "metrics.json").read_text())[name]


def test_generations_are_printed_in_order_and_the_last_is_the_result(command, tmp_path):
    code, out, err = command(*DISTILL, "--scheme", "self", "--generations", 2)
    assert code == 0
    folder = tmp_path / "runs" / "tiny-tiny-kd-self-seed0"
    assert out.splitlines()[0] == f"generation-1    {accuracy(folder / 'generation-1'):.2%}"
    assert out.splitlines()[1].startswith(f"test accuracy   {accuracy(folder / 'generation-2'):.2%}")
    assert out.splitlines()[-1] == "run folder      runs/tiny-tiny-kd-self-seed0/generation-2"
    assert "generation-1, stage 1 of 2: tiny from labels" in err
    code, out, _ = command("test", "--model", folder / "generation-2", "--data", "tiny")
    assert code == 0


def test_assistants_are_reported_as_json(command):
    code, out, _ = command(
        *DISTILL, "--scheme", "takd", "--assistants", "tiny", "--teacher", "TEACHER", "--json", "--out", "s"
    )
    assert code == 0
    values = json.loads(out)
    assert values["run"] == "s/student"
    assert list(values["stages"]) == ["assistant-1", "student"]
    assert values["stages"]["student"] == values["test_accuracy"]


def test_peers_are_printed_beside_the_student(command, tmp_path):
    code, out, err = command(*DISTILL, "--scheme", "dml", "--peers", "tiny-teacher,tiny")
    assert code == 0
    folder = tmp_path / "runs" / "tiny-tiny-kd-dml-seed0"
    assert out.splitlines()[1:3] == [
        f"peer {number}          {accuracy(folder, f'peer_{number}_test_accuracy'):.2%}" for number in (1, 2)
    ]
    assert "tiny beside tiny-teacher,tiny: 22 images" in err


def test_interrupted_scheme_says_how_to_go_on_and_resume_does(command, tmp_path, monkeypatch):
    stepped = ConsoleObserver.stepped

    def interrupting(self, progress):
        stepped(self, progress)
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ConsoleObserver, "stepped", interrupting)
        code, out, err = command(*DISTILL, "--scheme", "self", "--out", "s")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == (
        "model-compression distill: generation-1: stopped at step 2 of 3, state saved; "
        "continue with: model-compression resume s"
    )
    code, out, _ = command("resume", "s", "--json")
    assert code == 0
    assert list(json.loads(out)["stages"]) == ["generation-1", "generation-2", "generation-3"]


def test_scheme_options_reach_the_configuration():
    config = config_of("--scheme", "dml", "--student", "lenet")
    assert (config.teacher, config.peers.name, config.student.name) == (None, "lenet", "lenet")
    assert (config.method.name, config.method.params) == ("kd", {"temperature": 1.0})
    assert (config.method.weights, config.method.label_weight) == ({"kd": 1.0}, 1.0)
    config = config_of("--scheme", "dml", "--peers", "nin,lenet", "--method", "dkd", "--label-weight", "0.5")
    assert (config.peers.name, config.method.name, config.method.label_weight) == ("nin,lenet", "dkd", 0.5)
    assert config_of("--scheme", "self").teacher is None
    assert config_of("--scheme", "self", "--teacher", "nin-cifar10").teacher.name == "nin-cifar10"
    config = config_of("--scheme", "self", "--recipe", "lenet-cifar10")  # of labels only
    assert (config.teacher, config.method.name, config.epochs) == (None, "kd", 12)
    assert config_of("--scheme", "takd", "--assistants", "lenet").teacher.name == "nin-cifar10"
    assert config_of("--method", "tf_kd").teacher is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scheme", "takdd"], "unknown scheme 'takdd'; did you mean 'takd'"),
        (["--scheme", "takd"], "--scheme takd needs --assistants, networks between teacher and student, as resnet20"),
        (
            ["--scheme", "takd", "--assistants", "resnt8", "--teacher", "nin-cifar10"],
            "unknown model 'resnt8'; did you mean 'resnet8'",
        ),
        (["--scheme", "self", "--generations", "1"], "scheme 'self' needs at least 2 generations"),
        (["--generations", "3"], "--generations has no effect here: it needs --scheme self"),
        (["--assistants", "tiny"], "--assistants has no effect here: it needs --scheme takd"),
        (["--scheme", "self", "--peers", "tiny"], "--peers has no effect here: it needs --scheme dml"),
        (["--scheme", "dml", "--peers", "lenett"], "unknown model 'lenett'; did you mean 'lenet'"),
        (["--scheme", "dml", "--teacher", "TEACHER"], "peers teach each other: they need a method, and no teacher"),
        (["--scheme", "dml", "--teacher-tta", "flip"], "--teacher-tta has no effect here: there is no teacher"),
        (["--method", "tf_kd", "--teacher", "TEACHER"], "method 'tf_kd' makes up its own teacher"),
        (["--method", "tf_kd", "--teacher-cache", "off"], "--teacher-cache has no effect here: there is no teacher"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(command, tmp_path, arguments, message):
    code, out, err = command(*DISTILL, *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert message in err
    assert not list(tmp_path.glob("*"))


def test_cache_is_built_for_one_run_only(command):
    code, _, err = command("cache", "build", "--scheme", "self")
    assert code == 2
    assert "--scheme has no effect here" in err


def test_what_each_stage_finds_again_is_said_once(capsys):
    observer = ConsoleObserver()
    for stage in (1, 2):
        observer.message(f"stage {stage} of 2")
        observer.message("photos: the test is on test/; val/ is not used")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["stage 1 of 2", "photos: the test is on test/; val/ is not used", "stage 2 of 2"]
