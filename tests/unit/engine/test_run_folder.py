"""Run folders: one run each, taken by one process at a time."""

import json

import pytest

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.errors import ModelCompressionError, RunFolderError, UsageError
from model_compression.engine.run_folder import RunFolder, environment

CONFIG = TrainConfig(student=ModelConfig(name="lenet"), epochs=2)


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "runs" / "one")


def test_run_folder_is_made_with_config_and_environment(run):
    run.create(CONFIG)
    run.unlock()
    assert run.read_config() == CONFIG
    facts = json.loads(run.environment.read_text())
    assert facts == environment()
    assert {"torch", "python", "processor", "threads", "model_compression"} <= facts.keys()


def test_run_folder_may_exist_when_it_is_empty(run):
    run.path.mkdir(parents=True)
    run.create(CONFIG)
    run.unlock()
    assert run.read_config() == CONFIG


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (["config.json", "state.safetensors"], "continue that run with: model-compression resume {path}"),
        (
            ["config.json"],
            "that run stopped before its first save; choose another folder with run_dir, or start it "
            "again with: model-compression resume {path}",
        ),
        (["config.json", "metrics.json"], "that run is finished; choose another folder with run_dir"),
        (["photo.jpg"], "it holds something else; choose another folder with run_dir"),
    ],
)
def test_run_folder_that_is_taken_is_refused_with_the_remedy(run, names, remedy):
    run.path.mkdir(parents=True)
    for name in names:
        (run.path / name).write_text("mine")
    with pytest.raises(RunFolderError) as caught:
        run.create(CONFIG)
    assert str(caught.value) == f"{run.path} exists and is not empty: {remedy.format(path=run.path)}"
    assert sorted(path.name for path in run.path.iterdir()) == names
    assert all((run.path / name).read_text() == "mine" for name in names)


def test_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file, not a folder"):
        RunFolder(tmp_path / "file").create(CONFIG)
    with pytest.raises(ModelCompressionError, match=r"cannot write .*: a part of the path is a file"):
        RunFolder(tmp_path / "file" / "below").create(CONFIG)


def test_run_folder_in_use_is_refused_and_free_again_afterwards(run):
    run.create(CONFIG)
    other = RunFolder(run.path)
    with pytest.raises(RunFolderError, match="is in use by another process"):
        other.lock()
    with pytest.raises(RunFolderError, match=r"not empty: another process trains in it; choose another folder"):
        other.create(CONFIG)
    run.unlock()
    other.lock()
    other.unlock()


def test_run_folder_left_by_a_crash_before_its_config_can_be_used(run):
    run.path.mkdir(parents=True)
    (run.path / ".lock").write_text("")
    run.create(CONFIG)
    run.unlock()
    assert run.config.exists()


def test_run_folder_is_not_overwritten_by_one_who_looked_at_the_same_time(run):
    other = RunFolder(run.path)
    looked = []

    def look():  # both find it empty; the other one is faster
        if not looked:
            looked.append(True)
            other.create(CONFIG)
            other.unlock()
            return
        RunFolder.check_free(run)

    run.check_free = look
    with pytest.raises(RunFolderError, match="start it again"):
        run.create(TrainConfig(student=ModelConfig(name="nin")))
    assert run.read_config() == CONFIG
    other.lock()  # and the lock was given back
    other.unlock()


def test_run_folder_without_a_run_says_so(run, tmp_path):
    with pytest.raises(RunFolderError, match=r"is not there; expected the folder of a run"):
        run.read_config()
    run.path.mkdir(parents=True)
    with pytest.raises(RunFolderError, match=r"is not a run folder: it has no config.json"):
        run.read_config()
    with pytest.raises(RunFolderError, match=r"has no metrics.json: the run is not finished; resume it"):
        run.read_metrics()
    run.config.write_text("{}")
    with pytest.raises(UsageError, match=r"config.json: the key 'student' is missing"):
        run.read_config()
