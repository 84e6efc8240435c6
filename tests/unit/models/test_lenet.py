"""LeNet: reference sizes, and its logits against the graph written out in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model_compression.core.errors import UsageError
from model_compression.models import create_model

# parameters and multiply-accumulates, from the layer sizes by hand
SIZES = {
    "lenet": (3_497_866, 28 * 28 * 64 * 75 + 10 * 10 * 128 * 1600 + 3200 * 1024 + 1024 * 10),
    "lenet-caffe": (1520 + 25_050 + 625_500 + 5010, 28 * 28 * 20 * 75 + 10 * 10 * 50 * 500 + 1250 * 500 + 500 * 10),
}


def convolved(images, weight, bias):
    windows = np.lib.stride_tricks.sliding_window_view(images, weight.shape[2:], axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, weight, optimize=True) + bias[:, None, None]


def halved(images):
    batch, channels, height, width = images.shape
    return images.reshape(batch, channels, height // 2, 2, width // 2, 2).max(axis=(3, 5))


@pytest.mark.parametrize("name", SIZES)
def test_lenet_has_the_reference_size(name):
    model = create_model(name)
    parameters, macs = SIZES[name]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() == 2 * macs


def test_lenet_has_the_figures_of_the_reference():
    assert SIZES["lenet"][1] / 1e6 == pytest.approx(27.53, abs=0.01)


@pytest.mark.parametrize("name", SIZES)
def test_lenet_computes_the_graph_as_coded(name):
    model = create_model(name, seed=3).double()
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32))
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    maps = halved(convolved(images, state["conv1.weight"], state["conv1.bias"]))
    assert (maps < 0).any()  # no ReLU here
    maps = halved(convolved(maps, state["conv2.weight"], state["conv2.bias"]))
    assert (maps < 0).any()  # nor here
    hidden = np.maximum(maps.reshape(2, -1) @ state["ip1.weight"].T + state["ip1.bias"], 0)
    logits = hidden @ state["ip2.weight"].T + state["ip2.bias"]
    np.testing.assert_allclose(model(torch.from_numpy(images)).detach().numpy(), logits, rtol=1e-9, atol=1e-9)
    assert model.flatten_shape == maps.shape[1:]


def test_lenet_historic_init_is_xavier_uniform_with_wide_biases():
    model = create_model("lenet", seed=0)
    for layer in (module for module in model if isinstance(module, nn.Conv2d | nn.Linear)):
        receptive = layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
        bound = (6 / (receptive * sum(layer.weight.shape[:2]))) ** 0.5
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    biases = torch.cat([module.bias for module in model if isinstance(module, nn.Conv2d | nn.Linear)])
    assert biases.std().item() == pytest.approx(0.5, rel=0.1)
    small = create_model("lenet", seed=0, init="default")
    assert max(module.bias.abs().max().item() for module in small if isinstance(module, nn.Conv2d)) < 0.2


def test_lenet_takes_other_class_numbers_and_refuses_impossible_ones():
    assert create_model("lenet-caffe", num_classes=100)(torch.zeros(2, 3, 32, 32)).shape == (2, 100)
    for wrong in (-1, -3, 2.5, "ten"):
        with pytest.raises(UsageError, match="num_classes must be an integer of at least 1, got"):
            create_model("lenet", num_classes=wrong)
    with pytest.raises(UsageError, match="init must be 'historic' or 'default', got 'xavier'"):
        create_model("lenet", init="xavier")
