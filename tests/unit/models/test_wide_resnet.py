"""Wide residual networks: sizes from a closed form and as published, stages, and the graph as formulas."""

import pytest
import torch

from model_compression.models import create_model

# name → (depth, factor, parameters and MACs for 100 classes, parameters as published in millions)
NETWORKS = {
    "wrn_16_1": (16, 1, 180_916, 26_663_168, 0.18),
    "wrn_16_2": (16, 2, 703_284, 101_118_464, 0.70),
    "wrn_40_1": (40, 1, 569_780, 83_286_272, 0.57),
    "wrn_40_2": (40, 2, 2_255_156, 327_610_880, 2.26),
}


def convolutions(depth, factor):
    """All of them, and how many parameters the normalisations have beside one of each convolution's width."""
    widths = (16, 16 * factor, 32 * factor, 64 * factor)
    found = [(3, 16, 3, 1, 32)]
    for channels, width, side in zip(widths, widths[1:], (32, 16, 8), strict=False):
        found += [(channels, width, 3, 1, side)] + [(width, width, 3, 1, side)] * ((depth - 4) // 3 - 1)
        found += [(channels, width, 1, 1, side)] if channels != width else []
    shortcuts = sum(width for channels, width, kernel, *_ in found if kernel == 1)
    # Each block's first normalisation has its input's width, and one more comes at the end: so the sums are equal but
    # for the shortcuts, which have none.
    return found, -2 * shortcuts


@pytest.mark.parametrize("name", NETWORKS)
def test_wide_resnet_has_the_reference_size(name, size_of, counted):
    depth, factor, parameters, macs, published = NETWORKS[name]
    found, more = convolutions(depth, factor)
    assert size_of(create_model(name, num_classes=100)) == (parameters, macs)
    assert counted(found, 64 * factor, 100, more) == (parameters, macs)
    assert round(parameters / 1e6, 2) == published
    assert size_of(create_model(name)) == counted(found, 64 * factor, 10, more)


@pytest.mark.parametrize(("name", "factor"), [("wrn_16_1", 1), ("wrn_40_2", 2)])
def test_wide_resnet_halves_the_maps_from_stage_to_stage(name, factor, shapes_of):
    assert shapes_of(create_model(name)) == {
        "stem": (2, 16, 32, 32),
        "stage1": (2, 16 * factor, 32, 32),
        "stage2": (2, 32 * factor, 16, 16),
        "stage3": (2, 64 * factor, 8, 8),
        "bn": (2, 64 * factor, 8, 8),
        "relu": (2, 64 * factor, 8, 8),
        "pool": (2, 64 * factor, 1, 1),
        "flatten": (2, 64 * factor),
        "head": (2, 10),
    }


@pytest.mark.parametrize("name", ["wrn_16_1", "wrn_16_2"])
def test_wide_resnet_computes_the_graph_of_the_paper(name, formulas_of, images):
    model = create_model(name, seed=0)
    net = formulas_of(model)
    maps = net.conv("stem", images)
    for stage in (1, 2, 3):
        for number in (1, 2):
            block = f"stage{stage}.block{number}"
            stride = 2 if stage > 1 and number == 1 else 1
            active = net.norm(f"{block}.bn1", maps).relu()
            change = net.norm(f"{block}.bn2", net.conv(f"{block}.conv1", active, stride)).relu()
            if f"{block}.shortcut.weight" in net.state:
                maps = net.conv(f"{block}.shortcut", active, stride)
            maps = maps + net.conv(f"{block}.conv2", change)
    torch.testing.assert_close(model(images), net.head(net.norm("bn", maps).relu()))
