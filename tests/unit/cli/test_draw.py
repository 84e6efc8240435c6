"""`model-compression draw`: a file, a line about it, and clear refusals."""

import json
import xml.etree.ElementTree as ET

import pytest

from model_compression.cli.main import main
from model_compression.models import create_model
from model_compression.models.weights import save_weights


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_draw_writes_the_picture_and_says_what_is_in_it(tmp_path, capsys):
    assert main(["draw", "lenet"]) == 0
    ET.parse(tmp_path / "lenet.svg")
    assert capsys.readouterr().out == "lenet.svg: lenet, 8 layers, 3,497,866 parameters, 27.53 M MACs\n"


def test_draw_gives_the_same_bytes_twice(tmp_path):
    assert main(["draw", "nin", "--out", "a.svg"]) == 0
    assert main(["draw", "nin", "--out", "new/b.svg"]) == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "new/b.svg").read_bytes()


def test_draw_json_lists_the_layers(capsys):
    assert main(["draw", "nin", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["out"], facts["model"], facts["parameters"]) == ("nin.svg", "nin", 966_986)
    assert facts["layers"][0]["name"] == "conv1"
    assert facts["layers"][0]["shape"] == [192, 32, 32]
    assert sum(layer["macs"] for layer in facts["layers"]) == facts["macs"]


def test_draw_takes_a_weights_file_and_a_run_folder(tmp_path, capsys):
    model = create_model("lenet", seed=0, num_classes=7)
    save_weights(tmp_path / "mine.safetensors", model)
    save_weights(tmp_path / "run/student.safetensors", model)
    assert main(["draw", "mine.safetensors"]) == 0
    assert main(["draw", "run/"]) == 0
    assert (tmp_path / "mine.svg").is_file()
    assert "7 logits out" in (tmp_path / "run.svg").read_text(encoding="utf-8")
    assert capsys.readouterr().out.startswith("mine.svg: mine (lenet), 8 layers")


def test_draw_of_an_unknown_network_lists_near_matches(tmp_path, capsys):
    assert main(["draw", "lenett"]) == 2
    assert "unknown model 'lenett'; did you mean 'lenet'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_draw_refuses_to_replace_a_file_unless_told(tmp_path, capsys):
    (tmp_path / "lenet.svg").write_text("mine")
    assert main(["draw", "lenet"]) == 2
    assert "lenet.svg exists" in capsys.readouterr().err
    assert (tmp_path / "lenet.svg").read_text() == "mine"
    assert main(["draw", "lenet", "--force"]) == 0
    assert (tmp_path / "lenet.svg").read_text() != "mine"


def test_draw_writes_svg_only(capsys):
    assert main(["draw", "lenet", "--out", "lenet.png"]) == 2
    assert "--out must end in .svg, got lenet.png" in capsys.readouterr().err


def test_draw_of_a_file_that_is_missing_or_damaged_fails(tmp_path, capsys):
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    assert main(["draw", "gone.safetensors"]) == 2
    assert main(["draw", "bad.safetensors"]) == 1
    assert "bad.safetensors is not a readable safetensors file" in capsys.readouterr().err


OWN = """
from torch import nn

def maps():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

def tokens():
    return nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(2), nn.Linear(16, 2))
"""


def test_draw_of_a_builder_of_ones_own_and_of_what_has_no_picture(tmp_path, capsys):
    (tmp_path / "drawn_nets.py").write_text(OWN)
    assert main(["draw", "drawn_nets:maps"]) == 0
    ET.parse(tmp_path / "drawn_nets-maps.svg")
    assert main(["draw", "drawn_nets:tokens"]) == 2
    assert "layer module.1 of drawn_nets:tokens answers with (4, 16); the picture" in capsys.readouterr().err
