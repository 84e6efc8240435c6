"""The networks inside the package, measured anew on the real test images."""

import json

import pytest

from model_compression.cli.main import main
from model_compression.models.weights import read_header, shipped_weights

FLOORS = {  # of 10,000 images
    "nin-cifar10": 0.88,
    "lenet-cifar10": 0.70,
    "whitening-cnn-cifar10": 0.94,
    "whitening-cnn-small-cifar10": 0.935,
}


def test_shipped_networks_are_small_and_say_how_they_were_made() -> None:
    for name, path in shipped_weights().items():
        assert path.stat().st_size < 10_000_000, name
        facts = read_header(path)["facts"]
        assert facts["config"]["label_smoothing"] == 0, name
        assert facts["config"]["data"]["validation"] == 0, name
        assert facts["test_accuracy"] >= FLOORS[name], name


@pytest.mark.slow
@pytest.mark.cifar10
@pytest.mark.parametrize("name", shipped_weights())
def test_shipped_network_has_its_stated_accuracy(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--model", name, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 10_000
    assert result["accuracy"] == pytest.approx(result["stated_accuracy"], abs=0.003)
    assert result["accuracy"] >= FLOORS[name] - 0.003
