"""The list of runs: each found, with its state as files and lock have it."""

import json
import os
import time

import pytest
from filelock import FileLock
from written_runs import write_run

from model_compression.cli.main import main
from model_compression.core.errors import UsageError
from model_compression.reports.run_states import run_states


@pytest.fixture
def folder(tmp_path):
    """Runs of all states, in folders of different depth; the older ones first."""
    runs = tmp_path / "runs"
    write_run(runs / "finished")
    write_run(runs / "scheme" / "generation-1", None, seed=3)
    write_run(runs / "stopped", done=2)
    (runs / "stopped" / "state.safetensors").write_bytes(b"state")
    write_run(runs / "begun", done=0)
    write_run(runs / "damaged")
    (runs / "damaged" / "metrics.json").write_text("{")
    write_run(runs / "running", done=3)
    (runs / "no run").mkdir()
    for age, name in enumerate(["running", "damaged", "begun", "stopped", "scheme/generation-1", "finished"]):
        for path in (runs / name).iterdir():
            os.utime(path, (time.time() - 4000 * age, time.time() - 4000 * age))
    return runs


def test_runs_are_listed_by_age_with_state_and_accuracy(folder):
    with FileLock(folder / "running" / ".lock"):
        found = run_states(folder)
    assert [(str(one.path.relative_to(folder)), one.state, one.done, one.resumable) for one in found] == [
        ("running", "running", 3, False),
        ("damaged", "damaged", 0, False),
        ("begun", "stopped", 0, False),
        ("stopped", "stopped", 2, True),
        ("scheme/generation-1", "finished", 4, False),
        ("finished", "finished", 4, False),
    ]
    assert [one.result for one in found[:4]] == [pytest.approx(0.45), None, None, pytest.approx(0.3)]
    assert found[-1].result == json.loads((folder / "finished" / "metrics.json").read_text())["test_accuracy"]
    assert found[3].age_s == pytest.approx(12000, abs=60)
    assert "metrics.json is damaged" in found[1].what
    assert found[4].seed == 3


def test_lock_that_nobody_holds_is_of_a_run_that_stopped_and_no_lock_is_made(folder):
    (folder / "running" / ".lock").touch()
    states = {one.path.name: one.state for one in run_states(folder)}
    assert (states["running"], states["stopped"]) == ("stopped", "stopped")
    assert not (folder / "stopped" / ".lock").exists()


def test_command_lists_runs_and_says_how_to_go_on(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["runs", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "stopped 2/4" in text
    assert f"model-compression resume {folder / 'stopped'}" in text
    assert max(map(len, text.split("\n\n")[0].splitlines())) <= 80
    assert main(["runs", str(folder), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 6
    assert main(["runs", str(folder / "no run")]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not there; expected a folder with runs in it"):
        run_states(tmp_path / "absent")
