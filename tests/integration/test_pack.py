import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_compression.cli.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert (
        main(["train", "--data", "synthetic", "--student", "lenet-caffe", "--epochs", "2", "--out", str(folder)]) == 0
    )
    return folder


def test_pack_states_the_accuracy_that_test_measures_from_the_file(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.safetensors"
    assert main(["pack", str(run), "--out", str(out), "--json"]) == 0
    packed = json.loads(capsys.readouterr().out)
    assert {tensor.dtype for tensor in load_file(out).values()} == {torch.float16}
    assert packed["bytes"] == out.stat().st_size
    assert main(["test", "--data", "synthetic", "--model", str(out), "--precision", "fp32", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["accuracy"] == measured["stated_accuracy"] == packed["test_accuracy"]


def test_pack_keeps_an_existing_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.safetensors"
    out.write_bytes(b"mine")
    assert main(["pack", str(run), "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert out.read_bytes() == b"mine"


def test_pack_refuses_an_unfinished_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_bytes((run / "config.json").read_bytes())
    assert main(["pack", str(unfinished), "--out", str(tmp_path / "x.safetensors")]) == 1
    assert "not finished" in capsys.readouterr().err
