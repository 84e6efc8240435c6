"""What a network consists of: shapes, parameters and MACs against sums by hand."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from model_compression.core.errors import UsageError
from model_compression.models import MODELS, Network, Preprocessing, create_model
from model_compression.models.summary import summarize


def test_summary_of_lenet_is_what_the_layer_sizes_give():
    layers = {layer.name: layer for layer in summarize(create_model("lenet")).layers}
    assert {name: layer.shape for name, layer in layers.items()} == {
        "conv1": (64, 28, 28),
        "pool1": (64, 14, 14),
        "conv2": (128, 10, 10),
        "pool2": (128, 5, 5),
        "flatten": (3200,),
        "ip1": (1024,),
        "relu1": (1024,),
        "ip2": (10,),
    }
    assert layers["conv2"].parameters == 128 * (64 * 25 + 1)
    assert layers["conv2"].macs == 10 * 10 * 128 * 64 * 25
    assert layers["ip1"].macs == 3200 * 1024
    assert (layers["pool1"].parameters, layers["pool1"].macs) == (0, 0)


@pytest.mark.parametrize(("name", "parameters", "mmacs"), [("lenet", 3_497_866, 27.53), ("nin", 966_986, 222.5)])
def test_summary_has_the_totals_of_the_reference(name, parameters, mmacs):
    summary = summarize(create_model(name))
    assert summary.parameters == parameters
    assert summary.macs / 1e6 == pytest.approx(mmacs, abs=0.05)


@pytest.mark.parametrize("name", MODELS.names())
def test_summary_totals_are_the_sums_over_the_layers(name):
    summary = summarize(create_model(name))
    assert summary.parameters == sum(layer.parameters for layer in summary.layers)
    assert summary.macs == sum(layer.macs for layer in summary.layers)


def test_summary_leaves_the_model_as_it_was():
    model = create_model("nin-bn", seed=0).train()
    model.get_submodule("drop1").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    summarize(model)
    assert model.training
    assert not model.get_submodule("drop1").training
    assert all(not module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_summary_counts_a_layer_that_runs_twice_once():
    shared = nn.Linear(6, 6)
    model = Network(OrderedDict(flatten=nn.Flatten(), first=shared, relu=nn.ReLU(), second=shared))
    summary = summarize(model, (1, 2, 3))
    assert [layer.parameters for layer in summary.layers] == [0, 42, 0, 0]
    assert summary.parameters == 42


@pytest.mark.parametrize(
    ("module", "text", "short"),
    [
        (nn.Conv2d(4, 4, 3), "convolution 3×3", "conv 3×3"),
        (nn.Conv2d(4, 4, (3, 5), stride=2, padding=1), "convolution 3×5, stride 2, padding 1", "conv 3×5/2"),
        (nn.Conv2d(4, 4, 3, padding="same", groups=4), "convolution 3×3, padding same, 4 groups", "conv 3×3"),
        (nn.MaxPool2d(3, 2, ceil_mode=True), "max-pool 3×3, stride 2, rounded up", "max-pool 3×3/2"),
        (nn.AvgPool2d(4), "avg-pool 4×4", "avg-pool 4×4"),
        (nn.AdaptiveAvgPool2d(1), "avg-pool to 1", "avg-pool to 1"),
        (nn.BatchNorm2d(4), "batch norm", "norm"),
        (nn.Dropout(0.25), "dropout 0.25", "dropout 0.25"),
        (nn.Softplus(), "Softplus", "Softplus"),
    ],
)
def test_summary_says_how_a_layer_is_set(module, text, short):
    model = Network(OrderedDict(layer=module, anchor=nn.BatchNorm2d(4)))  # a network has parameters
    layer = summarize(model, (4, 8, 8)).layers[0]
    assert (layer.text, layer.short) == (text, short)


def test_summary_names_the_images_that_a_network_does_not_take():
    with pytest.raises(UsageError, match="lenet does not take an image of 3 × 16 × 16"):
        summarize(create_model("lenet"), (3, 16, 16))


def test_summary_is_of_images_of_the_size_that_a_network_asks_for():
    model = create_model("lenet-caffe", seed=0)
    model.preprocessing = Preprocessing(size=(32, 32))
    assert summarize(model).input_shape == (3, 32, 32)
    model.preprocessing = Preprocessing(size=(12, 12))
    with pytest.raises(UsageError, match="does not take an image of 3 × 12 × 12"):
        summarize(model)
