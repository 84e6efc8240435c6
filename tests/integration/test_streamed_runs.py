"""Runs on a folder of images: held in memory or streamed, with any number of workers, the weights are the same bits."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import model_compression as mc
from model_compression.cli.main import main
from model_compression.core.config import ModelConfig
from model_compression.core.errors import Interrupted, RunFolderError
from model_compression.core.fitting import Fitting
from model_compression.data import folder_images
from model_compression.data.sources import load_dataset
from model_compression.engine.parts import Parts
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import fill_cache, resume_run, start_run
from model_compression.engine.setup import prepare
from model_compression.models.preprocessing import Preprocessing

FILES = ("student.safetensors", "predictions.safetensors", "events.jsonl")


@pytest.fixture
def photos(tmp_path):
    """photos/ with three class folders of eight images of 10 × 12 pixels each."""
    rng = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            image = Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8))
            image.save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def config(tiny, photos):
    """Function that makes a configuration of three epochs of four steps on the photos."""

    def make(method="kd", data=(), **options):
        data = {"name": f"folder:{photos}", "image_size": 8, "augmentation": "flip_shift", **dict(data)}
        return tiny.config(method, data=data, **options)

    return make


def contents(path):
    return [(path / name).read_bytes() for name in FILES]


@pytest.fixture
def resident(config, tmp_path):
    """What a run leaves that holds its images in memory."""
    start_run(config(data={"resident": "on"}, ema=0.9), tmp_path / "resident")
    return contents(tmp_path / "resident")


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_run_ends_with_the_bits_of_the_resident_one(config, resident, tmp_path, watcher, workers):
    start_run(config(data={"resident": "off", "workers": workers}, ema=0.9), tmp_path / "run", watcher())
    assert contents(tmp_path / "run") == resident


def test_streamed_run_resumes_within_an_epoch_to_the_same_bits(config, resident, tmp_path, watcher):
    streamed = config(data={"resident": "off", "workers": 2}, ema=0.9)
    with pytest.raises(Interrupted):
        start_run(streamed, tmp_path / "run", watcher([2]))  # both in the middle of an epoch
    with pytest.raises(Interrupted):
        resume_run(tmp_path / "run", watcher([7]))
    resume_run(tmp_path / "run")
    assert contents(tmp_path / "run") == resident


def test_run_that_was_resident_resumes_streamed_where_memory_is_short(config, resident, tmp_path, watcher, monkeypatch):
    with pytest.raises(Interrupted):
        start_run(config(ema=0.9), tmp_path / "run", watcher([6]))
    monkeypatch.setattr("model_compression.data.placement.available_memory_bytes", lambda: 0)
    seen = watcher()
    resume_run(tmp_path / "run", seen)
    assert any("other processes decode them while the network trains" in line for line in seen.messages)
    assert contents(tmp_path / "run") == resident


def test_answers_stored_for_held_images_serve_streamed_ones(config, watcher, tmp_path):
    fill_cache(config(data={"resident": "on"}), watcher())
    seen = watcher()
    start_run(config(data={"resident": "off", "workers": 0}), tmp_path / "run", seen)
    assert seen.answered == []


def test_large_folder_is_not_decoded_before_training_but_for_a_sample(config, tmp_path, monkeypatch):
    decoded, before_training = set(), []
    original = folder_images.FolderImages.decode
    monkeypatch.setattr(folder_images.FolderImages, "decode", lambda s, n: decoded.add(s.files[n]) or original(s, n))
    monkeypatch.setattr("model_compression.data.on_demand.evenly", lambda count: np.arange(5))  # of 24 files
    monkeypatch.setattr(
        "model_compression.engine.runs._train", lambda *rest: before_training.append(len(decoded)) or {}
    )
    start_run(config(data={"resident": "off", "workers": 0}), tmp_path / "run")
    assert 5 <= before_training[0] <= 15  # the sample, what networks are tried on, and the 5 of the test


def test_changed_file_is_noticed_before_a_run_goes_on(config, photos, tmp_path, watcher):
    with pytest.raises(Interrupted):
        start_run(config(data={"resident": "off", "workers": 0}), tmp_path / "run", watcher([2]))
    Image.fromarray(np.zeros((12, 10, 3), dtype=np.uint8)).save(photos / "b" / "3.png")
    with pytest.raises(RunFolderError, match=r"the data of .*run has changed since its state was saved"):
        resume_run(tmp_path / "run")


def test_validation_and_a_network_that_looks_at_images_first_work_streamed(config, tmp_path):
    student = ModelConfig(name="whitening-cnn", options={"widths": [24, 24, 24]})
    metrics = []
    for number, settings in enumerate(({"resident": "on"}, {"resident": "off", "workers": 0})):
        data = {"validation": 5, "image_size": 32, **settings}
        metrics.append(start_run(config(None, data=data, student=student, epochs=1), tmp_path / str(number)))
    assert "validation_accuracy" in metrics[0]
    assert (tmp_path / "0" / "student.safetensors").read_bytes() == (
        tmp_path / "1" / "student.safetensors"
    ).read_bytes()


def test_commands_take_resident_and_workers(tiny, photos, tmp_path, capsys):
    data = ["--data", f"folder:{photos}", "--image-size", "8", "--resident", "off", "--workers", "0"]
    out = str(tmp_path / "run")
    assert (
        main(["distill", "--teacher", str(tiny.teacher), "--student", "tiny", *data, "--epochs", "1", "--out", out])
        == 0
    )
    assert main(["test", "--model", out, *data]) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert main(["train", "--student", "tiny", *data[:5], "yes", "--out", str(tmp_path / "x")]) == 2
    assert "unknown resident 'yes'" in capsys.readouterr().err


PHOTO = {"augmentation": "photo", "grey": 0.2, "erasing": 0.5, "views": 2}


def test_photo_run_ends_with_the_same_bits_for_any_workers_and_interruptions(config, tmp_path, watcher):
    """Teacher's answers to two views are stored in both; crops are cut from the files by whoever decodes."""
    start_run(config(data={**PHOTO, "workers": 0}, epochs=2), tmp_path / "whole")
    with pytest.raises(Interrupted):
        start_run(config(data={**PHOTO, "resident": "off", "workers": 2}, epochs=2), tmp_path / "run", watcher([2]))
    resume_run(tmp_path / "run")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    "change",
    [
        {"crop_area": 0.5},
        {"crop_ratio": 2.0},
        {"color_jitter": 0.2},
        {"hue": 0.1},
        {"grey": 0.0},
        {"erasing": 0.0},
        {"crop_share": 0.9},
        {"interpolation": "bilinear"},
        {"fit": "pad"},
        {"augmentation": "trivialaugment", "grey": 0.0},
    ],
    ids=str,
)
def test_answers_to_other_views_are_not_found(config, watcher, change):
    fill_cache(config(data={**PHOTO, "workers": 0}), watcher())
    again = watcher()
    fill_cache(config(data={**PHOTO, "workers": 0}), again)
    assert again.answered == []
    other = watcher()
    fill_cache(config(data={**PHOTO, "workers": 0, **change}), other)
    assert other.answered


def test_teacher_and_student_may_see_one_crop_in_different_sizes(config, tiny, tmp_path, watcher, monkeypatch):
    """Each network scales the crop for itself: the stored answers are those to the crops in the teacher's size."""
    sizes = {}
    original = Preprocessing.__call__

    def seen(self, inputs):
        found = original(self, inputs)
        sizes.setdefault(self.size, set()).add(tuple(inputs.shape[2:]) + tuple(found.shape[2:]))
        return found

    monkeypatch.setattr(Preprocessing, "__call__", seen)
    base = config(data={**PHOTO, "workers": 0})
    sized = dataclasses.replace(
        base,
        student=dataclasses.replace(base.student, size=[8, 8]),
        teacher=dataclasses.replace(base.teacher, size=[8, 8]),
        data=dataclasses.replace(base.data, image_size=12),
    )
    start_run(sized, tmp_path / "run")
    assert sizes == {(8, 8): {(12, 12, 8, 8)}}


def test_weights_that_say_how_photographs_fit_are_believed_unless_options_say_otherwise(config, tmp_path, watcher):
    """A student goes on from weights that were evaluated in another way; a teacher's count where it is fresh."""
    own = {"crop_share": 0.75, "interpolation": "bilinear"}
    start_run(config(None, data=own, epochs=1), tmp_path / "a")
    plain, seen = config(None, epochs=1), watcher()
    again = dataclasses.replace(plain, student=ModelConfig(name=str(tmp_path / "a" / "student.safetensors")))
    start_run(again, tmp_path / "b", seen)
    recorded = RunFolder(tmp_path / "b").read_config().data
    assert recorded.fitting == Fitting("crop", 0.75, "bilinear")
    assert [line for line in seen.messages if "the middle 75.0% kept, scaled by the bilinear filter" in line]
    other = dataclasses.replace(again, data=dataclasses.replace(again.data, crop_share=0.5, interpolation="lanczos"))
    start_run(other, tmp_path / "c")
    assert RunFolder(tmp_path / "c").read_config().data.fitting == Fitting("crop", 0.5, "lanczos")
    assert mc.load_model(tmp_path / "c").preprocessing.fitting == Fitting("crop", 0.5, "lanczos")
    taught = config("kd", epochs=1, teacher_cache="off")
    taught = dataclasses.replace(taught, teacher=ModelConfig(name=str(tmp_path / "a")), allow_weak_teacher=True)
    prepared = prepare(taught, watcher(), Parts())
    assert prepared.data.train.fit == prepared.data.evaluation.fit == Fitting("crop", 0.75, "bilinear")
    assert prepared.config.data.fitting == prepared.trainer.student.preprocessing.fitting == prepared.data.train.fit


@pytest.mark.slow
def test_export_says_how_photographs_fit_and_predict_follows(config, photos, tmp_path):
    """What predict answers to a file is what the network answers to the image that its dataset gives."""
    pytest.importorskip("onnxruntime")
    for fit in (Fitting("pad"), Fitting("crop", 0.6, "bilinear")):
        run, data = tmp_path / fit.fit, {"augmentation": "none", **fit.to_dict()}
        start_run(config(None, data=data, epochs=1), run)
        mc.export(run, run / "s.onnx", progress=False)
        _, test = load_dataset(f"folder:{photos}", image_size=8, fit=fit, resident="off")
        network = mc.load_model(run).eval()
        expected = network(network.preprocessing(torch.from_numpy(test.images[:]))).softmax(1).detach().numpy()
        files = [test.images.source.files[int(row)] for row in test.images.rows]
        for row, found in zip(expected, mc.predict(run / "s.onnx", files, top=3), strict=True):
            assert dict(found.classes) == pytest.approx(dict(zip("abc", row.tolist(), strict=True)), abs=1e-4)
