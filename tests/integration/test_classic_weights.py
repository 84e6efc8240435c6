"""teacher.npy and student.npy in the working folder; the files are written here, without the package's own writer."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model_compression.classic import command_line as classic
from model_compression.classic.local_weights import local_teacher, with_local_weights
from model_compression.cli.main import main
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import from_json
from model_compression.core.data_config import DataConfig
from model_compression.data.sources import DATASETS
from model_compression.data.synthetic import load_synthetic
from model_compression.engine.trainer import Trainer
from model_compression.models import create_model
from model_compression.models.loading import read_model

DATA = DataConfig(name="few")


def few(data_dir=None, report=None, allow_download=True):
    train, test = load_synthetic()
    return train.subset(range(40)), test.subset(range(10))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder, a dataset of 40 and 10 images; the shipped teacher is out of reach."""
    monkeypatch.setitem(DATASETS._entries, "few", few)
    monkeypatch.setattr(classic, "TEACHER", "not-to-be-used")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_npy(path, model, flattened=None):
    """The weights as caffe-tensorflow writes them: (H, W, in, out); (in, out) over an (H, W, C) flattening."""
    content = {}
    for name, values in model.state_dict().items():
        layer, kind = name.split(".")
        values = values.numpy()
        if values.ndim == 4:
            values = np.moveaxis(values, (2, 3), (0, 1)).swapaxes(2, 3)
        elif values.ndim == 2 and layer == "ip1":
            values = np.moveaxis(values.reshape(-1, *flattened), 1, 3).reshape(len(values), -1).T
        elif values.ndim == 2:
            values = values.T
        content.setdefault(layer, {})["weights" if kind == "weight" else "biases"] = values
    np.save(path, np.array(content, dtype=object), allow_pickle=True)


def write_teacher(path, name="nin-ip", **options):
    """A network with fresh weights as teacher.npy; returned as it is in the file."""
    if name == "nin-ip":
        options = {"hidden": 6, **options}
    model = create_model(name, seed=11, **options).eval()
    write_npy(path, model, (192, 8, 8))
    return model


def historic_logits(model, images):
    """What the file's network answers to BGR pixels minus the mean image, in float64, by none of the package's code."""
    train, _ = few()
    pixels = torch.from_numpy(images.astype(np.float64) - train.images.astype(np.float64).mean(axis=0))
    with torch.no_grad():
        return model.double()(pixels[:, [2, 1, 0]])


@pytest.mark.parametrize("name", ["nin", "nin-ip"])
def test_local_teacher_answers_as_the_file_does(name, place, capsys):
    expected = historic_logits(write_teacher(place / "teacher.npy", name), few()[1].images)
    teacher = local_teacher(place, DATA)
    assert teacher.name == name
    assert f"teacher.npy: read as {name} for channels in bgr order" in capsys.readouterr().out
    with torch.no_grad():
        answers = teacher(teacher.preprocessing(torch.from_numpy(few()[1].images))).double()
    assert float((answers - expected).abs().max() / expected.abs().max()) < 1e-5
    assert teacher.preprocessing(torch.from_numpy(few()[0].images)).mean(dim=0).abs().max() < 1e-3
    assert teacher.preprocessing(torch.from_numpy(few()[0].images)).abs().max() > 100  # raw range


def test_val_measures_teacher_npy(place, monkeypatch, capsys):
    # bfloat16 could turn a near tie
    monkeypatch.setattr("model_compression.classic.script_tasks.choose_precision", lambda *_: torch.float32)
    expected = historic_logits(write_teacher(place / "teacher.npy"), few()[1].images).argmax(dim=1)
    assert classic.main(["--task", "val"], data=DATA) == 0
    correct = int((expected == torch.from_numpy(few()[1].labels)).sum())
    assert f"acc = {correct / 10:f} . {correct}/10." in capsys.readouterr().out


def test_training_with_teacher_npy_resumes_without_it_from_another_folder(place, monkeypatch):
    model = write_teacher(place / "teacher.npy")
    stepped = Trainer._train_step

    def train_step(trainer, batch, epoch):
        if trainer.step == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return stepped(trainer, batch, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_step", train_step)
        line = ["--task", "train", "--model", "out", "--epoch", "1", "--batchsize", "20"]
        assert classic.main(line, data=DATA) == 130
    config = from_json(TrainConfig, (place / "out" / "config.json").read_text())
    assert Path(config.teacher.name).is_absolute()
    (place / "teacher.npy").unlink()
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    assert main(["resume", str(place / "out")]) == 0
    stored = load_file(place / "out" / "predictions.safetensors")["teacher_logits"].double()
    expected = historic_logits(model, few()[1].images)
    assert float((stored - expected).abs().max() / expected.abs().max()) < 0.05  # bfloat16, where the processor has it


def test_training_starts_from_student_npy_and_says_so(place, capsys):
    write_teacher(place / "teacher.npy")
    student = create_model("lenet", seed=23)
    write_npy(place / "student.npy", student, (128, 5, 5))
    line = ["--task", "train", "--model", "out", "--epoch", "1", "--lr", "1e-9"]
    assert classic.main(line, data=DATA) == 0
    out = capsys.readouterr().out
    assert "student.npy: read as lenet for channels in bgr order" in out
    assert "the student starts from student.npy\n" in out
    trained = read_model(place / "out" / "student.safetensors")
    for name, values in student.state_dict().items():
        expected = values.flip(1) if name == "conv1.weight" else values  # the model takes RGB
        assert torch.allclose(trained.state_dict()[name], expected, atol=1e-7)
    assert trained.preprocessing.mean_image is not None


def test_with_local_weights_names_files_by_their_content(place):
    config = TrainConfig(student=ModelConfig(name="lenet"), data=DATA)
    write_npy(place / "student.npy", create_model("lenet", seed=1), (128, 5, 5))
    first, again = (with_local_weights(config, place).student.name for _ in range(2))
    write_npy(place / "student.npy", create_model("lenet", seed=2), (128, 5, 5))
    assert first == again != with_local_weights(config, place).student.name
    assert Path(first).is_file()


def test_with_local_weights_changes_nothing_in_an_empty_folder(place):
    config = TrainConfig(student=ModelConfig(name="lenet"), data=DATA)
    assert with_local_weights(config, place) is config


@pytest.mark.parametrize(
    ("file", "make", "message"),
    [
        ("teacher.npy", lambda path: path.write_bytes(b"\x93NUMPY rubbish"), "teacher.npy is not a readable .npy file"),
        ("teacher.npy", lambda path: np.save(path, np.zeros(3)), "teacher.npy holds a plain array"),
        ("teacher.npy", lambda path: path.mkdir(), "teacher.npy is a folder"),
        (
            "teacher.npy",
            lambda path: write_npy(path, create_model("lenet-caffe", seed=1)[:1]),
            "teacher.npy holds the layers conv1; expected a network in network that ends in cccp6, or in ip1, ip2",
        ),
        ("teacher.npy", lambda path: write_teacher(path, "nin", num_classes=7), "layer 'cccp6' weights: found (7, 192"),
        (
            "student.npy",
            lambda path: write_npy(path, create_model("lenet-caffe", seed=1), (50, 5, 5)),
            "layer 'conv1' weights: found (20, 3, 5, 5), expected (64, 3, 5, 5)",
        ),
    ],
)
def test_refused_weights_name_file_and_layer_in_one_line(file, make, message, place, capsys):
    make(place / file)
    assert classic.main(["--task", "train", "--model", "out", "--epoch", "1"], data=DATA) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (place / "out").exists()
