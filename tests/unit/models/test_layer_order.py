"""The last layer and the blocks of networks, ours and those of libraries, by their names and by timm's own rule."""

import pytest
import timm.optim
import torch
from torch import nn

from model_compression.core.errors import UsageError
from model_compression.models import create_model
from model_compression.models.external import External, build_external
from model_compression.models.layer_order import block_factors, last_layer


@pytest.mark.parametrize("name", ["lenet", "resnet8", "wrn_16_1"])
def test_the_last_layer_of_our_networks_gives_the_logits(name):
    network = create_model(name, seed=0)
    outputs = []
    last_layer(network, 10, "x").register_forward_hook(lambda module, inputs, output: outputs.append(output))
    logits = network.eval()(torch.randn(2, 3, 32, 32))
    assert torch.equal(outputs[0], logits)


@pytest.mark.parametrize(
    ("name", "path"),
    [("timm:test_vit", "module.head"), ("timm:resnet10t", "module.fc"), ("torchvision:mobilenet_v3_small", None)],
)
def test_libraries_networks_name_theirs(name, path):
    network = build_external(name, {"num_classes": 7}, seed=0)
    expected = network.body.classifier[-1] if path is None else network.get_submodule(path)
    assert last_layer(network, 7, "x") is expected


def test_a_network_without_a_last_layer_of_the_right_size_is_refused():
    network = External(nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 6)))
    with pytest.raises(
        UsageError, match=r"--x needs a network whose last layer gives the 10 .* module.1, has 6 outputs"
    ):
        last_layer(network, 10, "--x")
    network = External(nn.Sequential(nn.Linear(4, 10)).requires_grad_(False))
    with pytest.raises(UsageError, match=r"its last layer, module.0, does not learn: leave --x out"):
        last_layer(network, 10, "--x")
    with pytest.raises(UsageError, match="none has a weight matrix"):
        last_layer(External(nn.ReLU()), 10, "--x")


def test_rates_fall_from_block_to_block_as_timm_has_it():
    network = build_external("timm:test_vit", {"num_classes": 7}, seed=0)
    found = block_factors(network, 0.5, "x")
    groups = timm.optim.param_groups_layer_decay(network.body, layer_decay=0.5)
    expected = {parameter: group["lr_scale"] for group in groups for parameter in group["params"]}
    for (
        parameter
    ) in network.body.norm.parameters():  # timm counts it to the last block, BEiT (arXiv 2106.08254) does not
        assert (found.pop(parameter), expected.pop(parameter)) == (1.0, 0.5)
    names = {parameter: name for name, parameter in network.named_parameters()}
    assert {names[p]: factor for p, factor in found.items()} == {names[p]: factor for p, factor in expected.items()}
