"""Blocks of the CIFAR networks: how channels are dealt, and how weights start."""

import pytest
import torch
from torch import nn

from model_compression.core.errors import UsageError
from model_compression.models import blocks, create_model


@pytest.mark.parametrize(("groups", "channels"), [(1, 6), (2, 6), (3, 12), (6, 6)])
def test_channel_shuffle_deals_groups_in_turn(groups, channels):
    maps = torch.arange(2 * channels * 4.0).view(2, channels, 2, 2)
    for given in (maps, maps.contiguous(memory_format=torch.channels_last)):
        shuffled = blocks.ChannelShuffle(groups)(given)
        size = channels // groups
        for group in range(groups):
            for place in range(size):
                assert torch.equal(shuffled[:, place * groups + group], maps[:, group * size + place])


def test_joins_add_and_append():
    one, other = torch.full((1, 2, 2, 2), 3.0), torch.full((1, 2, 2, 2), 4.0)
    assert torch.equal(blocks.Add()(one, other), torch.full((1, 2, 2, 2), 7.0))
    assert blocks.Concatenate()(one, other)[0, :, 0, 0].tolist() == [3, 3, 4, 4]


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_2", "vgg8", "mobilenet_v2"])
def test_convolutions_start_he_normal_by_fan_out_with_zero_biases(name):
    model = create_model(name, seed=0)
    for layer in (module for module in model.modules() if isinstance(module, nn.Conv2d)):
        fan_out = layer.out_channels * layer.kernel_size[0] ** 2
        if layer.weight.numel() > 2000:
            assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        assert layer.bias is None or not layer.bias.any()
    assert not model.head.bias.any()
    std = model.head.weight.std().item()
    assert std == pytest.approx(0.01, rel=0.1) if name in ("vgg8", "mobilenet_v2") else std > 0.05


@pytest.mark.parametrize("name", ["resnet8x4", "wrn_16_1", "vgg8", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2"])
def test_families_refuse_impossible_class_numbers(name):
    for wrong in (-1, 2.5, "ten"):
        with pytest.raises(UsageError, match="num_classes must be an integer of at least 1, got"):
            create_model(name, num_classes=wrong)
