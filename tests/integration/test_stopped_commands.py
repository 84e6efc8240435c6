"""Every command ends at a signal outside of a training: one line, its exit code, nothing in part."""

import importlib
import json
import os
import signal
import time
from types import SimpleNamespace

import pytest

from model_compression.classic import command_line as classic
from model_compression.cli import main as command
from model_compression.cli.main import COMMANDS, main
from model_compression.compression import prune as pruning
from model_compression.compression import quantize as quantising
from model_compression.compression.prune import Pruning, prune
from model_compression.compression.repair import repair_config
from model_compression.core.config_json import to_json
from model_compression.engine import runs
from model_compression.engine.runs import start_run
from model_compression.exporting import verify as verification
from model_compression.exporting import write

SIGNALS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}


def long(number, moment="in the middle"):
    """Something long, which the signal arrives in; it does not come to its end."""

    def work(*_, **__):
        os.kill(os.getpid(), number)
        time.sleep(60)
        raise AssertionError(moment)

    return work


def only_line(capsys):
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return captured.err.splitlines()[-1]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_ends_with_a_line(monkeypatch, capsys, name, number):
    before = {one: signal.getsignal(one) for one in SIGNALS}
    parser = command.Parser()
    monkeypatch.setattr(command, "parser_of", lambda _: (SimpleNamespace(run=long(number)), parser))
    assert main([name]) == SIGNALS[number]
    words = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    line = only_line(capsys)
    assert line.startswith(f"model-compression {name}: {words}; ")
    assert "repeat the command" in line or "the same command goes on" in line
    assert {one: signal.getsignal(one) for one in SIGNALS} == before


@pytest.mark.parametrize("number", SIGNALS)
def test_historic_script_ends_with_a_line(monkeypatch, capsys, number):
    monkeypatch.setattr(classic, "_run", long(number))
    assert classic.main(["--task", "test"]) == SIGNALS[number]
    assert ("interrupted" if number == signal.SIGINT else "stopped by SIG") in only_line(capsys)


@pytest.fixture
def trained(tiny, tmp_path):
    start_run(tiny.config("kd"), tmp_path / "trained")
    return tmp_path / "trained"


def ends(arguments, capsys, advice, number=signal.SIGTERM):
    assert main([*map(str, arguments)]) == SIGNALS[number]
    line = only_line(capsys)
    assert f"stopped by {signal.Signals(number).name}; " in line
    assert line.endswith(advice)


@pytest.mark.parametrize(
    ("place", "name", "is_begun"),
    [
        (runs, "prepare", False),
        (runs, "rehearse", False),
        (runs.RunLoop, "__init__", True),
        (runs, "write_results", True),
    ],
)
def test_training_before_its_first_step_and_behind_its_last_one(
    tiny, tmp_path, monkeypatch, capsys, place, name, is_begun
):
    (tmp_path / "config.json").write_text(to_json(tiny.config("kd")))
    folder, was = tmp_path / "r", getattr(place, name)

    def noted(*arguments, **named):  # a training notes a signal, and ends by itself
        if folder.exists():  # else it is the rehearsal
            os.kill(os.getpid(), signal.SIGTERM)
        return was(*arguments, **named)

    in_training = name in ("__init__", "write_results")
    monkeypatch.setattr(place, name, noted if in_training else long(signal.SIGTERM))
    code = main(["distill", "--config", str(tmp_path / "config.json"), "--out", str(folder)])
    if name == "write_results":
        assert code == 0  # all was done
        return
    assert code == 143
    line = only_line(capsys)
    assert line.endswith(
        f"continue with: model-compression resume {folder}"
        if is_begun
        else "nothing was written yet: repeat the command"
    )
    assert (folder / "config.json").exists() == is_begun


def test_quantisation_ends_in_its_calibration_and_resumes(trained, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "q"
    with monkeypatch.context() as patch:
        patch.setattr(quantising, "best_calibration", long(signal.SIGTERM))
        ends(
            ["quantize", trained, "--max-drop", "90", "--out", folder],
            capsys,
            f"continue with: model-compression resume {folder}",
        )
    assert main(["resume", str(folder)]) == 0


def test_pruning_ends_in_its_search_and_nothing_was_written(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pruning, "check_reachable", long(signal.SIGHUP))
    arguments = ["prune", trained, "--params", "0.6", "--out", tmp_path / "p"]
    ends(arguments, capsys, "nothing was written yet: repeat the command", signal.SIGHUP)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("arguments", "place", "name"),
    [
        (["export", "RUN", "--out", "y.onnx"], write, "export"),
        (["verify", "x.onnx", "--model", "RUN"], verification, "verify"),
        (["predict", "x.onnx", "x.onnx"], "model_compression.api.prediction", "open_file"),
        (["measure", "RUN"], "model_compression.api.measuring", "in_pytorch"),
    ],
)
def test_commands_that_write_a_file_or_none_end_in_the_middle(
    trained, tmp_path, monkeypatch, capsys, arguments, place, name
):
    monkeypatch.chdir(tmp_path)
    if arguments[1] == "x.onnx":
        assert main(["export", str(trained), "--out", "x.onnx"]) == 0
    before = sorted(tmp_path.iterdir())
    capsys.readouterr()
    monkeypatch.setattr(importlib.import_module(place) if isinstance(place, str) else place, name, long(signal.SIGTERM))
    arguments = [str(trained) if one == "RUN" else one for one in arguments]
    ends(arguments, capsys, "no file was left in part: repeat the command")
    assert sorted(tmp_path.iterdir()) == before


def test_signal_behind_the_last_run_of_several_is_no_loss_and_resume_says_finished(
    trained, tmp_path, watcher, monkeypatch, capsys
):
    write, folder = runs.write_results, tmp_path / "p"

    def written(*arguments):
        if (folder / "final" / "config.json").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return write(*arguments)

    monkeypatch.setattr(runs, "write_results", written)
    config = pruning.PruneConfig(
        model=str(trained), run=repair_config(str(trained)), resource="weights", share=0.5, steps=2, step_epochs=1
    )
    assert [*prune(config, folder, watcher())] == ["step-1", "final"]
    monkeypatch.undo()
    assert Pruning.at(folder).is_done()
    for done in (folder, folder / "final"):
        assert main(["resume", str(done)]) == 0
        captured = capsys.readouterr()
        assert "is finished: there is nothing to resume" in captured.out
        assert captured.err == ""
        assert main(["resume", str(done), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["finished"] is True
    assert main(["resume", str(folder / "final"), "--lr", "0.1"]) == 1
