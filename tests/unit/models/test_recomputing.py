"""Recomputed activations: the same numbers from less memory, also of statistics and dropout."""

import pytest
import torch
from torch import nn

from model_compression.core.errors import UsageError
from model_compression.models import create_model
from model_compression.models.recomputing import blocks_to_recompute, recomputed, repeated_blocks


def trained(blocks, network):
    """The network's state, its gradients and the bytes that were kept for them, after a step."""
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    torch.manual_seed(0)
    images = torch.randn(8, 3, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), recomputed(blocks):
        loss = network(images).square().mean()
    loss.backward()
    return network.state_dict(), [parameter.grad for parameter in network.parameters()], sum(kept.values())


def with_dropout():
    network = create_model("resnet14", seed=0)
    network.stage2.block1.conv1 = nn.Sequential(network.stage2.block1.conv1, nn.Dropout(0.5))
    return network.train()


def test_gradients_and_statistics_are_the_same_from_less_memory():
    plain, own = with_dropout(), with_dropout()
    blocks = blocks_to_recompute(own, "resnet14")
    state, gradients, kept = trained([], plain)
    state_again, gradients_again, kept_again = trained(blocks, own)
    for name, value in state.items():
        assert torch.equal(state_again[name], value), name
    for one, other in zip(gradients, gradients_again, strict=True):
        assert torch.equal(one, other)
    assert kept_again < kept / 2
    assert not any("forward" in block.__dict__ for block in blocks)


def test_blocks_are_those_of_rows_of_blocks():
    torchvision = pytest.importorskip("torchvision")
    assert len(repeated_blocks(torchvision.models.resnet18())) == 8
    assert len(repeated_blocks(create_model("resnet14", seed=0))) == 6


def test_a_network_without_blocks_is_refused():
    with pytest.raises(UsageError, match=r"lenet is no row of blocks .* leave checkpoint_activations out"):
        blocks_to_recompute(create_model("lenet", seed=0), "lenet")
