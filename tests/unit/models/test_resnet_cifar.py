"""Residual networks: sizes from a closed form and as published, stages, and the graph as formulas."""

import pytest
import torch

from model_compression.models import create_model

NARROW, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)
# name → (depth, widths, parameters and MACs for 100 classes, parameters as published in millions)
NETWORKS = {
    "resnet8": (8, NARROW, 83_892, 12_507_392, 0.08),
    "resnet14": (14, NARROW, 181_108, 26_663_168, 0.18),
    "resnet20": (20, NARROW, 278_324, 40_818_944, 0.28),
    "resnet32": (32, NARROW, 472_756, 69_130_496, 0.47),
    "resnet44": (44, NARROW, 667_188, 97_442_048, 0.67),
    "resnet56": (56, NARROW, 861_620, 125_753_600, 0.86),
    "resnet110": (110, NARROW, 1_736_564, 253_155_584, 1.74),
    "resnet8x4": (8, WIDE, 1_233_540, 177_071_104, 1.23),
    "resnet32x4": (32, WIDE, 7_433_860, 1_083_040_768, 7.43),
}


def convolutions(depth, widths):
    found = [(3, widths[0], 3, 1, 32)]
    for channels, width, side in zip(widths, widths[1:], (32, 16, 8), strict=False):
        found += [(channels, width, 3, 1, side)] + [(width, width, 3, 1, side)] * ((depth - 2) // 3 - 1)
        found += [(channels, width, 1, 1, side)] if channels != width else []
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_resnet_has_the_reference_size(name, size_of, counted):
    depth, widths, parameters, macs, published = NETWORKS[name]
    assert size_of(create_model(name, num_classes=100)) == (parameters, macs)
    assert counted(convolutions(depth, widths), widths[3], 100) == (parameters, macs)
    assert round(parameters / 1e6, 2) == published
    assert size_of(create_model(name)) == counted(convolutions(depth, widths), widths[3], 10)


@pytest.mark.parametrize(
    ("name", "table"), [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85)]
)
def test_resnet_without_its_shortcuts_has_the_size_of_the_paper(name, table, size_of):
    shortcuts = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert round((size_of(create_model(name))[0] - shortcuts) / 1e6, 2) == table


@pytest.mark.parametrize(("name", "widths"), [("resnet14", NARROW), ("resnet8x4", WIDE)])
def test_resnet_halves_the_maps_from_stage_to_stage(name, widths, shapes_of):
    assert shapes_of(create_model(name)) == {
        "stem": (2, widths[0], 32, 32),
        "stage1": (2, widths[1], 32, 32),
        "stage2": (2, widths[2], 16, 16),
        "stage3": (2, widths[3], 8, 8),
        "pool": (2, widths[3], 1, 1),
        "flatten": (2, widths[3]),
        "head": (2, 10),
    }


@pytest.mark.parametrize(("name", "count"), [("resnet14", 2), ("resnet8x4", 1)])
def test_resnet_computes_the_graph_of_the_paper(name, count, formulas_of, images):
    model = create_model(name, seed=0)
    net = formulas_of(model)
    maps = net.norm("stem.bn", net.conv("stem.conv", images)).relu()
    for stage in (1, 2, 3):
        for number in range(1, count + 1):
            block = f"stage{stage}.block{number}"
            stride = 2 if stage > 1 and number == 1 else 1
            change = net.norm(f"{block}.bn1", net.conv(f"{block}.conv1", maps, stride)).relu()
            change = net.norm(f"{block}.bn2", net.conv(f"{block}.conv2", change))
            if f"{block}.shortcut.weight" in net.state:
                maps = net.norm(f"{block}.shortcut_bn", net.conv(f"{block}.shortcut", maps, stride))
            maps = (maps + change).relu()
    torch.testing.assert_close(model(images), net.head(maps))


def test_resnet_names_the_maps_before_the_last_activation():
    model, caught = create_model("resnet8", seed=0).eval(), {}
    for name in ("stage2.block1.add", "stage2"):
        model.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: caught.update({name: output}))
    model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    before, after = caught.values()
    assert (before < 0).any()
    assert torch.equal(before.relu(), after)
