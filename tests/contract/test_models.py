"""What every registered network must do, whatever its architecture."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from model_compression import models
from model_compression.models import MODELS, create_model
from model_compression.models.loading import read_model
from model_compression.models.weights import save_weights

DEEP = ("resnet56", "resnet110", "resnet32x4", "wrn_40_1", "wrn_40_2")  # siblings of smaller ones
NAMES = [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in MODELS.names()]


def images(count):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


def test_every_file_that_registers_a_network_is_read_with_the_package():
    """Or a weights file of one that is made by a command could be read by that command alone."""
    files = Path(models.__path__[0]).glob("*.py")
    expected = {path.stem for path in files if re.search(r"^@MODELS\.register", path.read_text(), re.MULTILINE)}
    code = "import sys, model_compression.models; print(*sys.modules)"
    read = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"factored", "lenet", "sparse"} <= expected
    assert expected <= {name.rpartition(".")[2] for name in read if name.startswith("model_compression.models.")}


@pytest.mark.parametrize("name", NAMES)
def test_network_gives_every_trained_parameter_a_gradient(name):
    model = create_model(name, seed=0, num_classes=7).train()
    torch.manual_seed(0)  # dropout
    logits = model(images(2))
    F.cross_entropy(
        logits, torch.tensor([0, 6]).view(2, *[1] * (logits.ndim - 2)).expand(2, *logits.shape[2:])
    ).backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), key


@pytest.mark.parametrize("name", NAMES)
def test_network_answers_for_each_image_alone(name):
    model, batch = create_model(name, seed=0, num_classes=7).double().eval(), images(2).double()
    with torch.no_grad():
        together, alone = model(batch), torch.cat([model(batch[:1]), model(batch[1:])])
    assert together.shape == ((2, 7, 32, 32) if name == "unet" else (2, 7))
    assert together.dtype == torch.float64
    assert not torch.equal(together[0], together[1])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", NAMES)
def test_network_survives_a_weights_file(name, tmp_path):
    model = create_model(name, seed=0, num_classes=3)
    with torch.no_grad():
        model(images(2))  # moves the statistics of normalisations
    model.eval()
    save_weights(tmp_path / "w.safetensors", model)
    again = read_model(tmp_path / "w.safetensors").eval()
    state = model.deployed().state_dict()
    assert again.name == model.deployed().name
    assert state.keys() == again.state_dict().keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.state_dict().items())
    answering = model.deployed() if name == "quantization-aware" else model  # whose weights are saved unrounded
    with torch.no_grad():
        torch.testing.assert_close(again(images(2)), answering(images(2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_network_changes_no_tensor_in_place(name):
    assert not any(getattr(module, "inplace", False) for module in create_model(name, seed=0).modules())
