"""methods and features: what they print of the networks and the methods of this package."""

import json
import re
from pathlib import Path

import pytest

from model_compression.cli.main import main
from model_compression.distillation.methods import METHODS, create
from model_compression.models import create_model
from model_compression.models.weights import save_weights


@pytest.fixture
def command(capsys):
    """Function that runs a command and returns (exit code, stdout, stderr)."""

    def run(*arguments):
        code = main(list(arguments))
        return code, *capsys.readouterr()

    return run


def test_methods_lists_every_method_with_its_paper(command):
    code, out, _ = command("methods")
    assert code == 0
    entries = re.split(r"^  (\w+) ", out, flags=re.MULTILINE)
    assert sorted(entries[1::2]) == METHODS.names()
    for text in entries[2::2]:
        assert re.search(r"20[12]\d\)$", text.partition("\n\n")[0], re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80
    listed = json.loads(command("methods", "--json")[1])["methods"]
    assert [method["name"] for method in listed] == METHODS.names()


@pytest.mark.parametrize("name", METHODS.names())
def test_methods_explains_one(command, name):
    out = command("methods", name)[1]
    method = create(name)
    for term, weight in method.default_weights.items():
        assert f"{term} {weight:g}" in out
    fact = json.loads(command("methods", name, "--json")[1])
    assert (fact["needs"], fact["label_weight"]) == (sorted(method.needs), method.default_label_weight)
    assert max(map(len, out.splitlines())) <= 80


def test_table_in_the_docs_is_that_of_the_command(command):
    table = command("methods", "--markdown")[1].strip()
    assert table in (Path(__file__).parents[3] / "docs" / "methods.md").read_text()


def test_methods_names_near_matches(command):
    code, _, err = command("methods", "kdd")
    assert code == 2
    assert "unknown method 'kdd'; did you mean 'kd'" in err


def test_a_method_without_docstrings_is_shown_by_what_it_has(command, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))  # no other test sees it
    (tmp_path / "terse.py").write_text("""
from model_compression.distillation.methods.base import METHODS, Method

@METHODS.register("terse")
class Terse(Method):
    default_label_weight = 1.0
    default_weights = {"distance": 2.0}

    def forward(self, student, teacher, targets, context=None):
        return {"distance": (student.logits - teacher.logits).abs().mean()}
""")
    _, out, _ = command("methods", "terse:terse")
    assert out.splitlines()[:3] == ["terse:terse: its file has no docstring", "", "Its class has no docstring."]
    assert "terms       distance\nweights     distance 2; labels 1\n" in out


def test_features_lists_layers_and_marks_the_stages(command):
    code, out, _ = command("features", "lenet")
    assert code == 0
    assert [
        line.split()[1] for line in out.splitlines() if line.startswith("* ") and "×" in line and "Conv2d" in line
    ] == [
        "conv1",
        "conv2",
    ]
    layers = json.loads(command("features", "lenet", "--json")[1])["layers"]
    assert {layer["name"]: layer["shape"] for layer in layers if layer["stage"]} == {
        "conv1": [64, 28, 28], "pool1": [64, 14, 14], "conv2": [128, 10, 10], "pool2": [128, 5, 5],
    }  # fmt: skip


def test_features_of_a_size_that_the_network_does_not_take_is_wrong_usage(command):
    code, _, err = command("features", "lenet", "--size", "7")
    assert code == 2
    assert "lenet cannot take images of 3 × 7 × 7" in err


@pytest.mark.parametrize("said", [[3, 48, 40], [3, 0, 40]])
def test_layers_and_cost_are_those_of_the_size_that_the_weights_were_trained_on(command, tmp_path, said):
    file = tmp_path / "net.safetensors"
    save_weights(file, create_model("resnet8", num_classes=2), facts={"image_shape": said})
    height, width = (48, 40) if said == [3, 48, 40] else (32, 32)
    _, out, _ = command("features", str(file), "--json")
    assert json.loads(out)["layers"][0]["shape"] == [16, height, width]
    _, out, _ = command("measure", str(file), "--json", "--seconds", "0.01", "--batch-size", "1")
    found = json.loads(out)
    assert found["image_shape"] == [3, height, width]
    _, out, _ = command("measure", str(file), "--json", "--seconds", "0.01", "--batch-size", "1", "--size", "16")
    assert json.loads(out)["image_shape"] == [3, 16, 16]
