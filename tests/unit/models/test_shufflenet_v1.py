"""ShuffleNet: sizes from its table and as published, stages, and the graph as formulas."""

import torch
import torch.nn.functional as F

from model_compression.models import create_model


def units():
    """(name, channels, width, stride, groups of the first convolution) of every block."""
    channels = 24
    for stage, (width, count) in enumerate(((240, 4), (480, 8), (960, 4)), start=1):
        for number in range(1, count + 1):
            yield f"stage{stage}.block{number}", channels, width, 2 if number == 1 else 1, 1 if channels == 24 else 3
            channels = width


def convolutions():
    side, found = 32, [(3, 24, 1, 1, 32)]
    for _, channels, width, stride, groups in units():
        added = width - channels if stride == 2 else width
        found.append((channels, added // 4, 1, groups, side))
        side //= stride
        found += [(added // 4, added // 4, 3, added // 4, side), (added // 4, added, 1, 3, side)]
    return found


def test_shufflenet_has_the_reference_size(size_of, counted):
    parameters, macs = 949_258, 38_691_456
    assert size_of(create_model("shufflenet_v1", num_classes=100)) == (parameters, macs)
    assert counted(convolutions(), 960, 100) == (parameters, macs)
    assert round(parameters / 1e6, 2) == 0.95
    assert size_of(create_model("shufflenet_v1")) == counted(convolutions(), 960, 10)


def test_shufflenet_halves_the_maps_from_stage_to_stage(shapes_of):
    assert shapes_of(create_model("shufflenet_v1")) == {
        "stem": (2, 24, 32, 32),
        "stage1": (2, 240, 16, 16),
        "stage2": (2, 480, 8, 8),
        "stage3": (2, 960, 4, 4),
        "pool": (2, 960, 1, 1),
        "flatten": (2, 960),
        "head": (2, 10),
    }


def test_shufflenet_computes_the_graph_of_the_benchmark(formulas_of, images):
    model = create_model("shufflenet_v1", seed=0)
    net = formulas_of(model)
    maps = net.norm("stem.bn", net.conv("stem.conv", images)).relu()
    for name, _, _, stride, groups in units():
        change = net.norm(f"{name}.bn1", net.conv(f"{name}.conv1", maps, groups=groups)).relu()
        size = change.shape[1] // groups
        change = change[:, [group * size + place for place in range(size) for group in range(groups)]]
        change = net.norm(f"{name}.bn2", net.conv(f"{name}.conv2", change, stride, change.shape[1])).relu()
        change = net.norm(f"{name}.bn3", net.conv(f"{name}.conv3", change, groups=3))
        mean = F.avg_pool2d(maps, 3, stride=2, padding=1)
        maps = (maps + change if stride == 1 else torch.cat([change, mean], dim=1)).relu()
    torch.testing.assert_close(model(images), net.head(maps))
