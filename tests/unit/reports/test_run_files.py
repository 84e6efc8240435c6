"""Run folders are read as they are found: finished, going on, of schemes, damaged."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from written_runs import CLASSES, measured, write_run

from model_compression.core.errors import FileFormatError, RunFolderError, UsageError
from model_compression.reports.run_files import find_runs, read_run


def test_a_finished_run_has_its_results(tmp_path):
    run = read_run(write_run(tmp_path / "r", seed=5))
    assert (run.seed, run.eval_set, len(run.events), run.student_bytes) == (5, "test", 4, 5000)
    assert run.predictions.class_names == CLASSES
    assert run.result == np.mean(run.predictions.student.argmax(1) == run.predictions.targets)


def test_a_run_that_goes_on_has_its_whole_lines(tmp_path):
    folder = write_run(tmp_path / "r", done=2)
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train_lo')
    run = read_run(folder)
    assert [event["epoch"] for event in run.events] == [1, 2]
    assert (run.metrics, run.predictions, run.result, run.student_bytes) == (None, None, None, None)


def test_a_run_before_its_first_epoch_is_one(tmp_path):
    folder = write_run(tmp_path / "r", done=0)
    for name in ("events.jsonl", "environment.json"):
        (folder / name).unlink()
    assert read_run(folder).events == []


def test_a_folder_of_runs_stands_for_them_each_once(tmp_path):
    for number in (10, 9, 1):
        write_run(tmp_path / "s" / f"generation-{number}", seed=number)
    (tmp_path / "s" / "scheme.json").write_text("{}")
    found = find_runs([tmp_path / "s", tmp_path / "s" / "generation-9"])
    assert [run.path.name for run in found] == ["generation-1", "generation-9", "generation-10"]
    write_run(tmp_path / "t" / "distilled", seed=3)
    (tmp_path / "empty").mkdir()
    found = find_runs([tmp_path])  # of folders with runs in them
    assert [run.seed for run in found] == [1, 9, 10, 3]


def test_validation_accuracy_is_that_of_runs_that_hold_images_out(tmp_path):
    folder = write_run(tmp_path / "r")
    config = json.loads((folder / "config.json").read_text())
    config["data"]["validation"] = 50
    (folder / "config.json").write_text(json.dumps(config))
    metrics = json.loads((folder / "metrics.json").read_text())
    share = metrics.pop("test_accuracy")
    (folder / "metrics.json").write_text(json.dumps({**metrics, "validation_accuracy": share}))
    assert (read_run(folder).eval_set, read_run(folder).result) == ("validation", share)


def test_paths_without_a_run_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path, said in ((tmp_path / "none", "is not there"), (tmp_path / "file", "is a file")):
        with pytest.raises(UsageError, match=said):
            find_runs([path])
    with pytest.raises(RunFolderError, match=r"no run folder: it has no config\.json"):
        find_runs([tmp_path])
    (tmp_path / "kd-seed0.json").write_text("{}")
    with pytest.raises(RunFolderError, match="has records of runs, not the runs"):
        find_runs([tmp_path])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "[]", "config.json is damaged: expected an object"),
        ("config.json", "{}", "the key 'student' is missing"),
        ("config.json", '{"student": 1, "data": {}, "epochs": 1, "seed": 0}', "student must be a ModelConfig"),
        (
            "config.json",
            '{"student": {"name": "a"}, "data": {"name": "b"}, "epochs": "1", "seed": 0}',
            "epochs must be an integer",
        ),
        ("config.json", b"\xff\xfe", "config.json is damaged"),
        ("environment.json", "nonsense", "environment.json is damaged"),
        ("metrics.json", "{}", "metrics.json is damaged: test_accuracy is None"),
        ("metrics.json", '{"test_accuracy": NaN}', "test_accuracy is nan"),
        ("events.jsonl", "{}\n", "a line is not the record of an epoch"),
        ("events.jsonl", "{\n", "events.jsonl is damaged"),
        ("measure.json", "{}", "is not what `model-compression measure RUN --json` prints"),
        ("predictions.safetensors", b"\0" * 40, "predictions.safetensors is damaged"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, said):
    folder = write_run(tmp_path / "r")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileFormatError, match=said):
        read_run(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"targets": None}, "it has no targets"),
        ({"targets": np.zeros(3, dtype=np.int64)}, "targets"),
        ({"targets": np.full(200, 4)}, "targets are not class numbers from 0 to 3"),
        ({"student_logits": np.full((200, 4), np.nan, dtype=np.float32)}, "a logit is not finite"),
        ({"teacher_logits": np.zeros((200, 5), dtype=np.float32)}, r"teacher's logits are \(200, 5\)"),
        ({"thumbnails": np.zeros((3, 4), dtype=np.uint8)}, "thumbnails are"),
        ({"thumbnail_rows": np.arange(49)}, "thumbnail_rows are not 50 rows of 200 images"),
        ({"thumbnail_rows": np.arange(151, 201)}, "thumbnail_rows are not 50 rows of 200 images"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path, change, said):
    path = write_run(tmp_path / "r") / "predictions.safetensors"
    tensors = {key: value for key, value in {**load_file(path), **change}.items() if value is not None}
    save_file(tensors, path, {"class_names": json.dumps(CLASSES)})
    with pytest.raises(FileFormatError, match=said):
        read_run(path.parent)


def test_class_names_must_fit(tmp_path):
    path = write_run(tmp_path / "r") / "predictions.safetensors"
    tensors = load_file(path)
    save_file(tensors, path, {"class_names": '["a"]'})
    with pytest.raises(FileFormatError, match="1 class names for 4 classes"):
        read_run(path.parent)
    save_file(tensors, path)
    assert read_run(path.parent).predictions.name_of(2) == "class 2"


def test_what_was_measured_is_read(tmp_path):
    folder = write_run(tmp_path / "r")
    (folder / "measure.json").write_text(measured(0.5))
    assert [entry["median_ms"] for entry in read_run(folder).measured["latency"]] == [1.0, 0.5]
