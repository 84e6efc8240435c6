"""Results that were changed or damaged are named by whoever reads them; what no result depends on ends no run."""

import json
import shutil

import pytest

from model_compression.cli.main import main
from model_compression.core.errors import FileFormatError, Interrupted, RunFolderError
from model_compression.core.manifest import FILE as MANIFEST
from model_compression.core.manifest import check_manifest
from model_compression.data.sources import DATASETS
from model_compression.engine import results, trackers
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import resume_run, start_run
from model_compression.engine.training import Training
from model_compression.reports.run_files import read_run
from model_compression.reports.run_states import run_states

RESULTS = ("config.json", "environment.json", "events.jsonl", "metrics.json", "predictions.safetensors",
           "student.safetensors", "timing.jsonl")  # fmt: skip


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "a bit": flipped,
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "bytes that are no text": lambda content: b"\xff\xfe" + content,
    "another type": lambda content: b"[]\n",
    "missing": None,
}


def damage(path, how):
    """Does to a file what `DAMAGES` names."""
    if DAMAGES[how] is None:
        path.unlink()
    else:
        path.write_bytes(DAMAGES[how](path.read_bytes()))


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    start_run(tiny.config("kd", evaluate_every=1), folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def test_manifest_lists_every_result_and_is_the_last_file(whole):
    listed = json.loads((whole / MANIFEST).read_text())["files"]
    assert sorted(listed) == list(RESULTS)
    assert check_manifest(whole)
    assert (whole / MANIFEST).stat().st_mtime_ns == max(
        path.stat().st_mtime_ns for path in whole.iterdir() if path.name != ".lock"
    )


@pytest.mark.parametrize("how", [name for name in DAMAGES if name != "missing"])
@pytest.mark.parametrize("name", [*RESULTS, MANIFEST])
def test_a_changed_result_is_named_by_all_readers(copy, name, how):
    damage(copy / name, how)
    with pytest.raises(FileFormatError, match=f"{name} (was changed after it|is damaged)"):
        read_run(copy)
    with pytest.raises(FileFormatError, match=f"{name} (was changed after it|is damaged)"):
        resume_run(copy)
    (listed,) = run_states(copy)
    assert (listed.state, name in listed.what) == ("damaged", True)


@pytest.mark.parametrize("command", ["report", "compare", "push", "pack", "test", "runs"])
def test_commands_name_an_accuracy_that_was_edited_or_a_student_that_was_swapped(
    copy, whole, tiny, tmp_path, capsys, command
):
    name = "student.safetensors" if command == "test" else "metrics.json"
    if name == "metrics.json":
        metrics = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps({**metrics, "test_accuracy": 0.99}))
    else:  # by one that is whole, too
        (copy / name).write_bytes(tiny.teacher.read_bytes())
    arguments = {
        "report": [copy, "--format", "md"],
        "compare": [copy, whole],
        "push": [copy, "me/tiny", "--dry-run"],
        "pack": [copy, "--out", tmp_path / "packed.safetensors", "--data", "tiny"],
        "test": ["--model", copy, "--data", "tiny"],
        "runs": [tmp_path],
    }[command]
    code = main([command, *map(str, arguments)])
    printed = capsys.readouterr()
    assert "99" not in printed.out
    if command == "runs":
        assert code == 0
        assert "damaged" in printed.out
    else:
        assert code == 1
        assert len(printed.err.splitlines()) == 1
        assert f"{name} was changed after it was finished (SHA-256 in manifest.json); put back" in printed.err


def test_a_run_of_before_there_were_manifests_is_read_and_its_figures_are_those_of_its_answers(copy, capsys):
    (copy / MANIFEST).unlink()
    assert not read_run(copy).sealed
    with pytest.raises(RunFolderError, match="is finished: there is nothing to resume"):
        resume_run(copy)
    assert main(["report", str(copy), "--format", "md"]) == 0
    assert "1 run without manifest.json" in capsys.readouterr().out
    metrics = json.loads((copy / "metrics.json").read_text())
    for key in ("test_accuracy", "teacher_test_accuracy", "teacher_agreement"):
        (copy / "metrics.json").write_text(json.dumps({**metrics, key: metrics[key] / 2 + 0.01}))
        with pytest.raises(FileFormatError, match=rf"states {key} .* and predictions.safetensors gives {metrics[key]}"):
            read_run(copy)


def test_what_may_be_deleted_to_save_space_leaves_a_run_whole(copy):
    for name in ("predictions.safetensors", "events.jsonl"):
        (copy / name).unlink()
    assert read_run(copy).result is not None
    (copy / "student.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"student\.safetensors is missing"):
        read_run(copy)


def test_files_of_the_user_and_a_card_that_is_rewritten_change_nothing(copy):
    (copy / "README.md").write_text("my own words")
    (copy / "notes.txt").write_text("mine")
    assert read_run(copy).sealed


@pytest.fixture(scope="module")
def stopped(tiny, tmp_path_factory, watcher):
    """(folder of a run that was stopped in its third epoch, its student when nothing stops it)."""
    config, folder = tiny.config(evaluate_every=1), tmp_path_factory.mktemp("stopped")
    start_run(config, folder / "whole")
    with pytest.raises(Interrupted):
        start_run(config, folder / "run", watcher([12]))
    return folder / "run", folder / "whole"


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["events.jsonl", "timing.jsonl", "environment.json", "metrics.json", MANIFEST])
def test_a_damaged_file_that_no_state_needs_ends_no_run(stopped, tmp_path, watcher, name, how):
    folder, whole = shutil.copytree(stopped[0], tmp_path / "run"), stopped[1]
    if name in ("metrics.json", MANIFEST):  # as if the process had been killed when it wrote its last files
        (folder / name).write_bytes((whole / name).read_bytes())
    damage(folder / name, how)
    seen = watcher()
    resume_run(folder, seen)
    for same in ("student.safetensors", "events.jsonl", "predictions.safetensors", "environment.json"):
        assert (folder / same).read_bytes() == (whole / same).read_bytes(), same
    assert read_run(folder).sealed
    assert len((folder / "timing.jsonl").read_text().splitlines()) == 3
    warned = [message for message in seen.messages if "environment.json" in message]
    assert len(warned) == (name == "environment.json" and how != "missing")


@pytest.mark.parametrize("how", DAMAGES)
def test_metrics_that_are_not_whole_are_no_finished_run(copy, whole, stopped, tmp_path, how):
    """Without manifest and states nothing brings the run back, and nobody calls it finished."""
    (copy / MANIFEST).unlink()
    damage(copy / "metrics.json", how)
    if how == "a bit":  # of an accuracy, as a number it may still be one
        (copy / "metrics.json").write_text('{"test_accuracy": 7}')
    with pytest.raises((FileFormatError, RunFolderError)) as caught:
        resume_run(copy)
    assert "is finished" not in str(caught.value)


def test_a_state_is_deleted_only_when_all_results_are_whole(whole, stopped, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    shutil.copy(stopped[0] / "state.safetensors", folder)
    (folder / "student.safetensors").write_bytes(b"")
    (folder / "config.json").write_bytes((stopped[0] / "config.json").read_bytes())
    (folder / MANIFEST).unlink()
    assert resume_run(folder)["epochs"] == 3
    assert (folder / "student.safetensors").read_bytes() == (stopped[1] / "student.safetensors").read_bytes()


def test_one_of_several_runs_that_is_damaged_is_made_again_or_named_never_counted(copy, tiny):
    config = tiny.config("kd", evaluate_every=1)
    assert Training(config, copy, None).finish() == json.loads((copy / "metrics.json").read_text())
    (copy / "metrics.json").write_text("{}")
    with pytest.raises(FileFormatError, match=r"metrics\.json was changed"):
        Training(config, copy, None).finish()


class Failing:
    """A tracker that nothing reaches."""

    def epoch(self, event):
        raise OSError("no space\nfor logs")

    def close(self, metrics):
        raise RuntimeError("gone")


def test_card_and_trackers_that_fail_are_said_in_a_line_and_the_run_is_finished(
    tiny, tmp_path, watcher, monkeypatch, stopped
):
    def no_card(run):
        raise KeyError("a class")

    monkeypatch.setattr(results, "model_card", no_card)
    monkeypatch.setattr(trackers, "TensorBoard", lambda folder, first_epoch: Failing())
    monkeypatch.setattr(trackers, "check_trackers", lambda config: None)
    seen = watcher()
    start_run(tiny.config(evaluate_every=1, tensorboard=True), tmp_path / "run", seen)
    assert (tmp_path / "run" / "student.safetensors").read_bytes()
    assert read_run(tmp_path / "run").sealed
    said = [message for message in seen.messages if "left out" in message or "goes on" in message]
    assert "TensorBoard did not take the numbers, the run goes on: no space" in said
    assert any("README.md is left out: " in message for message in said)


def test_a_data_set_whose_name_is_no_text_has_a_run_and_a_card(tiny, tmp_path, watcher, monkeypatch):
    name = "tiny-\udcff"  # as Python gives a folder's name that is not UTF-8
    monkeypatch.setitem(DATASETS._entries, name, tiny.data)
    seen = watcher()
    start_run(tiny.config(data={"name": name}, epochs=1), tmp_path / "run", seen)
    assert "tiny-" in (tmp_path / "run" / "README.md").read_text()
    assert RunFolder(tmp_path / "run").is_finished()
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
