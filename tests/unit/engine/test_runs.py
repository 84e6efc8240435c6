"""Runs: repeatable, in a folder of their own, checked before anything is written, honest about what was measured."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import from_json
from model_compression.core.errors import ModelCompressionError, RunFolderError, UsageError
from model_compression.data.hold_out import hold_out
from model_compression.engine import results, runs, trainer
from model_compression.engine.runs import start_run
from model_compression.engine.training import Training
from model_compression.models import create_model
from model_compression.models.loading import read_model
from model_compression.models.prediction import predict
from model_compression.models.weights import read_header, save_weights
from model_compression.tasks.image_classification.figures import figures

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path, watcher):
    """Function that runs a config into a folder of its own and returns (folder, metrics, observer)."""

    def start(config, name="run"):
        seen = watcher()
        return tmp_path / name, start_run(config, tmp_path / name, seen), seen

    return start


def test_run_leaves_what_its_folder_promises(tiny, run):
    config = tiny.config("kd", evaluate_every=2)
    folder, metrics, seen = run(config)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", ".started-in", "README.md", "config.json", "environment.json", "events.jsonl", "manifest.json",
        "metrics.json", "predictions.safetensors", "student.safetensors", "timing.jsonl",
    ]  # fmt: skip
    assert from_json(TrainConfig, (folder / "config.json").read_text()) == config
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert events == seen.events
    assert ["test_accuracy" in event for event in events] == [False, True, True]
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert seen.steps == list(range(1, 16))


def test_run_reports_the_network_that_it_saved(tiny, run):
    folder, metrics, _ = run(tiny.config("kd", ema=0.9))
    _, test = tiny.data()
    tensors = load_file(folder / "predictions.safetensors")
    logits = predict(read_model(folder / "student.safetensors"), test, CPU, torch.float32)
    answers = predict(read_model(tiny.teacher), test, CPU, torch.float32)
    torch.testing.assert_close(tensors["student_logits"], logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tensors["teacher_logits"], answers, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(tensors["targets"], test.labels)
    rows = tensors["thumbnail_rows"].numpy()
    np.testing.assert_array_equal(rows, np.arange(len(test)))
    np.testing.assert_array_equal(tensors["thumbnails"], test.images[rows])
    expected = figures(logits, torch.from_numpy(test.labels))
    assert {key: metrics[f"test_{key}"] for key in expected} == pytest.approx(expected)
    assert metrics["teacher_test_accuracy"] == (answers.argmax(1).numpy() == test.labels).mean()
    assert metrics["teacher_agreement"] == (answers.argmax(1) == logits.argmax(1)).double().mean()
    facts = read_header(folder / "student.safetensors")["facts"]
    own = {"class_names": list("abc"), "image_shape": [3, 8, 8]}
    assert facts == {key: value for key, value in metrics.items() if key != "seconds"} | own


def test_run_keeps_the_pictures_of_the_surest_mistakes(tiny, run, monkeypatch):
    monkeypatch.setattr(results, "_FIRST_SHOWN", 2)
    monkeypatch.setattr(results, "_MISTAKES_SHOWN", 3)
    folder, _, _ = run(tiny.config())
    tensors = load_file(folder / "predictions.safetensors")
    confidence, chosen = tensors["student_logits"].softmax(dim=1).max(dim=1)
    wrong = [row for row in confidence.argsort(descending=True).tolist() if chosen[row] != tensors["targets"][row]]
    assert len(wrong) > 3
    rows = tensors["thumbnail_rows"].tolist()
    assert rows == sorted({0, 1, *wrong[:3]})
    np.testing.assert_array_equal(tensors["thumbnails"], tiny.data()[1].images[rows])


def test_run_is_repeated_to_the_byte_and_another_seed_differs(tiny, run):
    config = tiny.config("noisy_teacher", data={"augmentation": "flip_shift"})
    first, second = run(config, "a")[0], run(config, "b")[0]
    other = run(dataclasses.replace(config, seed=1), "c")[0]
    for name in ("student.safetensors", "predictions.safetensors", "events.jsonl"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
        assert (first / name).read_bytes() != (other / name).read_bytes()


def test_cached_and_live_teachers_train_alike(tiny, run):
    config = tiny.config("kd", data={"augmentation": "flip_shift", "views": 2})
    cached, _, seen = run(config, "cached")
    live, _, other = run(dataclasses.replace(config, teacher_cache="off"), "live")
    assert seen.answered == [(22, 22), (22, 22)]
    assert other.answered == []
    first, second = (load_file(folder / "predictions.safetensors")["student_logits"] for folder in (cached, live))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def test_plain_answers_are_those_to_the_images_as_they_are(tiny, run):
    config = tiny.config("kd", data={"augmentation": "flip_shift"}, teacher_view="plain")
    cached, _, seen = run(config, "cached")
    live, _, other = run(dataclasses.replace(config, teacher_cache="off"), "live")
    same, _, _ = run(dataclasses.replace(config, teacher_view="same"), "same")
    assert seen.answered == [(22, 22)]  # of all epochs
    assert other.answered == []
    first, second, third = (
        load_file(folder / "predictions.safetensors")["student_logits"] for folder in (cached, live, same)
    )
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)
    assert (first - third).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("method", "data", "message"),
    [
        ("kd", {}, "teacher_view plain needs augmentation without mixup and cutmix: all images are plain"),
        ("kd", {"augmentation": "flip", "mixup": 0.2}, "a mixed image has no answer to the plain one"),
        ("fitnet", {"augmentation": "flip"}, "teacher_view plain is for methods that compare logits or embeddings"),
    ],
)
def test_plain_answers_are_refused_where_they_cannot_be(tiny, run, method, data, message):
    with pytest.raises(UsageError, match=message):
        run(tiny.config(method, data=data, teacher_view="plain"))


def test_answers_that_are_too_many_are_asked_live_and_it_is_said(tiny, run, monkeypatch):
    config = tiny.config("kd", data={"augmentation": "flip"})
    _, _, seen = run(config, "stored")
    assert seen.answered == [(22, 22)] * 3  # a view an epoch
    monkeypatch.setattr("model_compression.engine.teachers._AUTO_BYTES", 3 * 22 * 3 * 2 - 1)
    monkeypatch.setattr("model_compression.engine.teachers.store_for", None)
    _, _, seen = run(config, "live")
    assert seen.answered == []
    assert "the answers to 3 views would take 0.0 GiB: the teacher answers live; name a folder" in seen.messages[0]


def test_teachers_with_a_comma_answer_together(tiny, run, tmp_path):
    save_weights(tmp_path / "b.safetensors", create_model("tiny-teacher", seed=3))
    config = tiny.config("kd", teacher_tta="flip")
    both = f"{tiny.teacher}, {tmp_path / 'b.safetensors'}"
    folder, _, _ = run(dataclasses.replace(config, teacher=ModelConfig(name=both)))
    _, test = tiny.data()
    images = torch.from_numpy(test.images)
    with torch.no_grad():
        answers = [
            model.eval()(model.preprocessing(shown))
            for model in (read_model(tiny.teacher), read_model(tmp_path / "b.safetensors"))
            for shown in (images, images.flip(3))
        ]
    found = load_file(folder / "predictions.safetensors")["teacher_logits"]
    torch.testing.assert_close(found, sum(answers) / 4, rtol=1e-5, atol=1e-6)


def test_validation_trains_on_the_rest_and_never_looks_at_the_test_set(tiny, run, monkeypatch):
    looked = []
    original = trainer.predict
    monkeypatch.setattr(
        trainer,
        "predict",
        lambda model, dataset, *_, **rows: looked.append(dataset) or original(model, dataset, *_, **rows),
    )
    folder, metrics, seen = run(tiny.config("kd", data={"validation": 6}, evaluate_every=1))
    train, test = tiny.data()
    rest, held_out = hold_out(train, 6, seed=0)
    rehearsed, *looked = looked
    assert set(map(bytes, rehearsed.images)) <= set(map(bytes, held_out.images))
    assert len(looked) == 4  # three epochs, then the student
    answers = predict(read_model(tiny.teacher), held_out, CPU, torch.float32)
    torch.testing.assert_close(load_file(folder / "predictions.safetensors")["teacher_logits"], answers)
    assert {dataset.digest for dataset in looked} == {held_out.digest}
    np.testing.assert_array_equal(seen.trainer.loader.images, rest.images)
    assert not {image.tobytes() for image in rest.images} & {image.tobytes() for image in held_out.images}
    assert "validation_accuracy" in metrics
    assert not any(key.startswith("test") for key in metrics)
    assert all("validation_accuracy" in event and "test_accuracy" not in event for event in seen.events)
    assert len(load_file(folder / "predictions.safetensors")["targets"]) == 6
    assert test.digest not in {dataset.digest for dataset in looked}


def test_final_run_trains_on_all_images(tiny, run):
    _, metrics, seen = run(tiny.config(epochs=1))
    assert len(seen.trainer.loader) == 22
    assert "test_accuracy" in metrics


def test_kept_weights_are_those_of_their_epoch(tiny, run):
    folder, _, _ = run(tiny.config(keep_every=1))
    for epoch in (1, 2, 3):
        assert read_model(folder / f"student-{epoch}.safetensors").name == "tiny"
    last = read_model(folder / "student.safetensors").state_dict()
    kept = read_model(folder / "student-3.safetensors").state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in last.items())


def test_run_goes_on_from_a_weights_file_as_it_is(tiny, run, tmp_path):
    model = create_model("whitening-cnn", seed=3, widths=[24, 24, 24], num_classes=10)
    save_weights(tmp_path / "start.safetensors", model)
    config = tiny.config(
        student=ModelConfig(name=str(tmp_path / "start.safetensors")),
        data={"name": "synthetic", "validation": 990},
        optim={"optimizer": "sgd", "lr": 1e-9, "momentum": 0.0},
        epochs=1,
    )
    folder, _, _ = run(config)
    found = read_model(folder / "student.safetensors").state_dict()
    for name, tensor in model.state_dict().items():  # the whitening filters too: they belong to the other weights
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": ModelConfig(name="tniy")}, "unknown model 'tniy'; did you mean 'tiny'"),
        ({"student": ModelConfig(name="tiny", options={"drop": 1})}, "unknown option of model 'tiny': 'drop'"),
        (
            {"student": ModelConfig(name="tiny", options={"num_classes": 7})},
            "the student answers with 7 classes, but the data .tiny. have 3",
        ),
        ({"data": {"name": "synthetic"}}, r"the student cannot take images of \(3, 32, 32\), as synthetic has"),
        ({"data": {"name": "tinny"}}, "unknown dataset 'tinny'; did you mean 'tiny'"),
        ({"data": {"validation": 22}}, "cannot hold out 22 of 22 images"),
        ({"data": {"augmentation": "flip_shift", "shift": 8}}, "shift must be below the images' 8 pixels"),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or mps"),
    ],
    ids=str,
)
def test_wrong_usage_leaves_nothing_behind(tiny, run, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        run(tiny.config(**change))
    assert list(tmp_path.iterdir()) == []


def test_wrong_method_leaves_nothing_behind(tiny, run, tmp_path):
    config = tiny.config("kd")
    wrongs = (
        ({"name": "kdd"}, "unknown method 'kdd'"),
        ({"params": {"temperature": -1}}, "kd: temperature must be"),
        ({"weights": {"kl": 1.0}}, "unknown term of method 'kd': 'kl'"),
    )
    for change, message in wrongs:
        method = dataclasses.replace(config.method, **change)
        with pytest.raises(UsageError, match=message):
            run(dataclasses.replace(config, method=method))
    assert list(tmp_path.iterdir()) == []


def test_run_into_a_taken_folder_is_refused_before_any_work(tiny, run, monkeypatch):
    folder, _, _ = run(tiny.config(epochs=1))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(runs, "prepare", None)
    with pytest.raises(RunFolderError, match="that run is finished; choose another folder"):
        run(tiny.config(epochs=1))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_finish_run_returns_or_refuses_what_is_there(tiny, run, watcher):
    config = tiny.config(epochs=1)
    folder, metrics, _ = run(config)
    assert Training(config, folder, watcher()).finish() == metrics
    with pytest.raises(RunFolderError, match="holds a run of another configuration"):
        Training(dataclasses.replace(config, seed=9), folder, watcher()).finish()


def test_disk_that_fills_during_a_run_is_one_clear_error(tiny, run, tmp_path, monkeypatch):
    import model_compression.core.files as files

    original, writes = files.os.fsync, []

    def fsync(descriptor):
        writes.append(descriptor)
        if len(writes) > 12:
            raise OSError(28, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(ModelCompressionError, match=r"cannot write .*run/.*: the disk is full \(.*\); free some space"):
        run(tiny.config())
    assert not list((tmp_path / "run").glob("*.tmp"))
    assert not list((tmp_path / "run").glob(".*.tmp"))
    monkeypatch.undo()


LIMITED = """
import resource, sys
from model_compression.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.exit(main(["train", "--student", "lenet-caffe", "--data", "synthetic", "--epochs", "1", "--out", sys.argv[1]]))
"""


@pytest.mark.slow
def test_file_size_limit_is_one_clear_line(tmp_path):
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("model-compression train: error: cannot write ")
    assert "student.safetensors: the file is larger than files may be here (2.63 MB are needed, 200 kB at most)" in last
    assert not (tmp_path / "run").exists()  # it was seen before the first step


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"optim": {"optimizer": "muon"}}, {}])
def test_bfloat16_on_a_processor_without_it_is_said(tiny, run, monkeypatch, options, own):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: own)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    _, _, seen = run(tiny.config(epochs=1, **options))
    said = [message for message in seen.messages if "no bfloat16" in message]
    assert len(said) == (bool(options) and not own)
