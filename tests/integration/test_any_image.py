"""Images of any number of channels and any shape go all the way, from class folders to a prediction."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from model_compression.cli.main import main

NETS = """
from torch import nn

def net(channels=3, num_classes=2):
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, num_classes)
    )
"""
FAST = ["--epochs", "1", "--batch-size", "4", "--precision", "fp32", "--device", "cpu"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the module of a network, in which commands are run."""
    (tmp_path / "walked_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("walked_nets", None)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("channels", "height", "width"),
    [
        pytest.param(1, 6, 9, marks=SLOW),
        (2, 9, 6),
        pytest.param(3, 6, 9, marks=SLOW),
        pytest.param(4, 8, 8, marks=SLOW),
        pytest.param(13, 9, 6, marks=SLOW),
    ],
)
def test_images_go_from_folders_to_a_prediction(here, capsys, channels, height, width):
    shape = (channels, height, width)
    pixels = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    for number, image in enumerate(pixels):
        path = here / "data" / "ab"[number % 2] / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, image)

    def run(*command):
        code = main([str(part) for part in command])
        out, err = capsys.readouterr()
        assert code == 0, f"{command[0]}: {err}"
        return out

    data = ["--data", "folder:data"]
    network = ["--student", "walked_nets:net", "--student-option", f"channels={channels}"]
    run("train", *network, *data, *FAST, "--out", "teacher")
    run("distill", "--teacher", "teacher", *network, *data, *FAST, "--out", "student", "--augmentation", "flip")
    accuracy = json.loads(run("test", "--model", "student", "--precision", "fp32", "--json"))["accuracy"]
    assert accuracy == json.loads((here / "student" / "metrics.json").read_text())["test_accuracy"]
    assert json.loads(run("measure", "student", "--seconds", "0.01", "--batch-size", 2, "--json"))["image_shape"] == [
        *shape
    ]
    run("draw", "student", "--out", "student.svg")
    layers = json.loads(run("features", "student", "--json"))["layers"]
    assert [6, height, width] in [layer["shape"] for layer in layers]
    run("pack", "student", "--out", "packed.safetensors")
    run("report", "student", "--out", "report.html")
    run("export", "student", "--out", "student.onnx")
    run("verify", "student.onnx", "--model", "student")
    np.save(here / "odd.npy", np.zeros((channels, 20, 5), dtype=np.uint8))
    images = ["data/a/0.npy", "odd.npy"]
    if channels in (1, 3):
        Image.fromarray(pixels[0].transpose(1, 2, 0).squeeze()).save(here / "0.png")
        images.append("0.png")
    answers = [json.loads(line)["classes"] for line in run("predict", "student.onnx", *images, "--json").splitlines()]
    assert len(answers) == len(images)
    expected = probabilities(here / "student", pixels[0])
    for answer in [answers[0], *answers[2:]]:  # of the array, and of the same picture as a file
        assert {one["name"]: one["probability"] for one in answer} == pytest.approx(expected, abs=1e-5)


def probabilities(run, image):
    import torch

    import model_compression as mc

    network = mc.load_model(run).eval()
    with torch.no_grad():
        found = network(network.preprocessing(torch.from_numpy(image[None]))).softmax(dim=1)[0]
    return dict(zip("ab", found.tolist(), strict=True))


def test_channels_that_do_not_fit_are_named(here, capsys):
    for number in range(8):
        path = here / "data" / "ab"[number % 2] / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.zeros((4, 6, 6), dtype=np.uint8))
    assert main(["train", "--student", "walked_nets:net", "--data", "folder:data", *FAST, "--out", "run"]) == 2
    assert "give a network that takes 4 channels: this one takes 3" in capsys.readouterr().err
