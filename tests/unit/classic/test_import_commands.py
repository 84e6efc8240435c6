"""`model-compression import` and `export-npy`, as main runs them."""

import json

import numpy as np
import pytest
import torch

from model_compression.cli import main
from model_compression.models import create_model
from model_compression.models.loading import read_model
from model_compression.models.weights import read_header, save_weights


@pytest.fixture
def saved(tmp_path):
    model = create_model("lenet-caffe", seed=5)
    save_weights(tmp_path / "lenet.safetensors", model)
    return model


def run(*arguments):
    return main.main([str(argument) for argument in arguments])


def test_export_and_import_commands_round_trip(tmp_path, saved, capsys):
    assert run("export-npy", tmp_path / "lenet.safetensors", "--out", tmp_path / "a.npy", "--json") == 0
    exported = json.loads(capsys.readouterr().out)
    assert exported["model"] == "lenet-caffe"
    assert exported["preprocessing"]["channel_order"] == "rgb"

    np.save(tmp_path / "mean.npy", np.full((3, 32, 32), 100.0))
    arguments = ["import", tmp_path / "a.npy", "--model", "lenet-caffe", "--mean", tmp_path / "mean.npy"]
    assert run(*arguments, "--scale", "0.25", "--out", tmp_path / "b.safetensors", "--json") == 0
    done = json.loads(capsys.readouterr().out)
    assert done["num_parameters"] == sum(p.numel() for p in saved.parameters())
    assert done["shapes"]["conv1.weight"] == [20, 3, 5, 5]
    again = read_model(tmp_path / "b.safetensors")
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in saved.state_dict().items())
    pixels = again.preprocessing(torch.full((1, 3, 32, 32), 104, dtype=torch.uint8))
    torch.testing.assert_close(pixels, torch.ones(1, 3, 32, 32))
    facts = read_header(tmp_path / "b.safetensors")["facts"]
    assert facts == {"imported_from": "a.npy", "channel_order": "bgr", "mean": "mean.npy", "scale": 0.25}


def test_commands_say_in_words_what_they_did(tmp_path, saved, capsys):
    assert run("export-npy", tmp_path / "lenet.safetensors", "--out", tmp_path / "a.npy") == 0
    assert "a.npy: lenet-caffe, for channels in bgr order" in capsys.readouterr().out
    assert run("import", tmp_path / "a.npy", "--model", "lenet-caffe", "--out", tmp_path / "b.safetensors") == 0
    said = capsys.readouterr().out
    assert "conv1.weight  20 × 3 × 5 × 5" in said
    assert "no mean subtracted" in said


def test_commands_do_not_replace_a_file_unless_forced(tmp_path, saved, capsys):
    (tmp_path / "a.npy").write_bytes(b"precious")
    command = ["export-npy", tmp_path / "lenet.safetensors", "--out", tmp_path / "a.npy"]
    assert run(*command) == 2
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "a.npy").read_bytes() == b"precious"
    assert run(*command, "--force") == 0
    command = ["import", tmp_path / "a.npy", "--model", "lenet-caffe", "--out", tmp_path / "lenet.safetensors"]
    assert run(*command) == 2
    assert run(*command, "--force") == 0


def test_commands_refuse_in_one_line_and_leave_nothing(tmp_path, saved, capsys):
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY\x01\x00")
    out = tmp_path / "x.out"
    for code, arguments in (
        (1, ["import", tmp_path / "bad.npy", "--model", "lenet", "--out", out]),
        (2, ["import", tmp_path / "absent.npy", "--model", "lenet", "--out", out]),
        (2, ["import", tmp_path / "bad.npy", "--model", "lenett", "--out", out]),
        (2, ["import", tmp_path / "bad.npy", "--model", "lenet", "--scale", "-1", "--out", out]),
        (2, ["import", tmp_path / "bad.npy", "--model", "lenet", "--num-classes", "-1", "--out", out]),
        (2, ["export-npy", "lenet", "--out", out]),
        (1, ["export-npy", tmp_path / "bad.npy", "--out", out]),
    ):
        assert run(*arguments) == code
        assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.npy", "lenet.safetensors"]
