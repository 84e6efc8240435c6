"""MobileNetV2: sizes from its table and as published, stages, and the graph as formulas."""

import torch

from model_compression.models import create_model

# The paper's table, halved: (expansion, channels, blocks, stride); and the stage that each line is in
TABLE = [(1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1)]
STAGES = [1, 1, 2, 3, 3, 4, 4]


def units():
    """(name, expansion, channels, width, stride) of every block."""
    channels, numbers = 16, dict.fromkeys(STAGES, 0)
    for (expansion, width, count, stride), stage in zip(TABLE, STAGES, strict=True):
        for place in range(count):
            numbers[stage] += 1
            name = f"stage{stage}.block{numbers[stage]}"
            yield name, expansion, channels, width, stride if place == 0 else 1
            channels = width


def convolutions():
    side, found = 16, [(3, 16, 3, 1, 16)]
    for _, expansion, channels, width, stride in units():
        hidden = expansion * channels
        found.append((channels, hidden, 1, 1, side))
        side //= stride
        found += [(hidden, hidden, 3, hidden, side), (hidden, width, 1, 1, side)]
    return [*found, (160, 1280, 1, 1, side)]


def test_mobilenet_has_the_reference_size(size_of, counted):
    parameters, macs = 812_836, 6_523_648
    assert size_of(create_model("mobilenet_v2", num_classes=100)) == (parameters, macs)
    assert counted(convolutions(), 1280, 100) == (parameters, macs)
    assert round(parameters / 1e6, 2) == 0.81
    assert size_of(create_model("mobilenet_v2")) == counted(convolutions(), 1280, 10)


def test_mobilenet_halves_the_maps_from_stage_to_stage(shapes_of):
    assert shapes_of(create_model("mobilenet_v2")) == {
        "stem": (2, 16, 16, 16),
        "stage1": (2, 12, 16, 16),
        "stage2": (2, 16, 8, 8),
        "stage3": (2, 48, 4, 4),
        "stage4": (2, 160, 2, 2),
        "last": (2, 1280, 2, 2),
        "pool": (2, 1280, 1, 1),
        "flatten": (2, 1280),
        "head": (2, 10),
    }


def test_mobilenet_computes_the_graph_of_the_paper(formulas_of, images):
    model = create_model("mobilenet_v2", seed=0)
    net = formulas_of(model)
    maps = net.norm("stem.bn", net.conv("stem.conv", images, 2)).relu()
    added = 0
    for name, expansion, channels, width, stride in units():
        change = net.norm(f"{name}.bn1", net.conv(f"{name}.expand", maps)).relu()
        change = net.norm(f"{name}.bn2", net.conv(f"{name}.filter", change, stride, expansion * channels)).relu()
        change = net.norm(f"{name}.bn3", net.conv(f"{name}.project", change))
        added += stride == 1 and channels == width
        maps = maps + change if stride == 1 and channels == width else change
    assert added == 10  # a block that repeats the one before it has a shortcut
    maps = net.norm("last.bn", net.conv("last.conv", maps)).relu()
    torch.testing.assert_close(model(images), net.head(maps))
