"""Runs on a folder of images: held in memory or streamed, with any number of workers, the weights are the same bits."""

import numpy as np
import pytest
from PIL import Image

from model_compression.cli.main import main
from model_compression.core.config import ModelConfig
from model_compression.core.errors import Interrupted, RunFolderError
from model_compression.data import folder
from model_compression.engine.runs import fill_cache, resume_run, start_run

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
    original = folder.FolderImages.decode
    monkeypatch.setattr(folder.FolderImages, "decode", lambda s, n: decoded.add(s.files[n]) or original(s, n))
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
