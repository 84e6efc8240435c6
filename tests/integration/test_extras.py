"""What each extra is for, run once in a process of its own, in which nothing else has imported anything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import model_compression

SHIPPED = Path(model_compression.__file__).parent / "weights" / "lenet-cifar10.safetensors"
TRAIN = ["train", "--data", "synthetic", "--student", "lenet-caffe", "--epochs", "1", "--out", "run"]


def command(folder, *words):
    """(exit code, stdout, stderr) of a command in ``folder``, for which no hub is to be reached."""
    places = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(folder / "hub"), "WANDB_MODE": "offline"}
    done = subprocess.run(
        [sys.executable, "-m", "model_compression", *words],
        capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, **places},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_network_of_the_hub_that_is_not_reached_is_one_line(tmp_path):
    code, out, error = command(tmp_path, "test", "--model", "hub:a/b")
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert "hub:a/b: http://127.0.0.1:9 is not reached, and no copy is in its cache here" in error


@pytest.mark.slow
def test_network_of_the_hub_is_read_from_the_cache_of_its_client(tmp_path):
    kept = tmp_path / "hub" / "models--a--b"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    (kept / "snapshots" / ("0" * 40)).mkdir(parents=True)
    shutil.copy(SHIPPED, kept / "snapshots" / ("0" * 40) / "student.safetensors")
    code, out, error = command(tmp_path, "features", "hub:a/b")
    assert (code, "conv1" in out) == (0, True), error


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["features", "timm:resnet10t"],
        ["features", "torchvision:mobilenet_v3_small"],
        ["export", "lenet-cifar10", "--data", "synthetic", "--out", "a.onnx"],
        [*TRAIN, "--tensorboard"],
    ],
    ids=["timm", "torchvision", "export", "tensorboard"],
)
def test_extra_works_in_a_fresh_process(words, tmp_path):
    code, _, error = command(tmp_path, *words)
    assert (code, "internal error" in error) == (0, False), error


@pytest.mark.slow
def test_pruning_works_in_a_fresh_process(tmp_path):
    assert command(tmp_path, *TRAIN)[0] == 0
    code, _, error = command(tmp_path, "prune", "run", "--params", "0.5", "--steps", "1", "--lr", "1e-5")
    assert (code, "internal error" in error) == (0, False), error
