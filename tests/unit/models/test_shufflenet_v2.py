"""ShuffleNetV2: sizes from its table and as published, stages, and the graph as formulas."""

import torch

from model_compression.models import create_model


def units():
    """(name, channels, width, stride) of every block."""
    channels = 24
    for stage, (width, count) in enumerate(((116, 4), (232, 8), (464, 4)), start=1):
        for number in range(1, count + 1):
            yield f"stage{stage}.block{number}", channels, width, 2 if number == 1 else 1
            channels = width


def convolutions():
    side, found = 32, [(3, 24, 1, 1, 32)]
    for _, channels, width, stride in units():
        half = width // 2
        found.append((channels if stride == 2 else half, half, 1, 1, side))
        side //= stride
        found += [(half, half, 3, half, side), (half, half, 1, 1, side)]
        found += [(channels, channels, 3, channels, side), (channels, half, 1, 1, side)] if stride == 2 else []
    return [*found, (464, 1024, 1, 1, side)]


def test_shufflenet_v2_has_the_reference_size(size_of, counted):
    parameters, macs = 1_355_528, 44_504_448
    assert size_of(create_model("shufflenet_v2", num_classes=100)) == (parameters, macs)
    assert counted(convolutions(), 1024, 100) == (parameters, macs)
    assert round(parameters / 1e6, 2) == 1.36
    assert size_of(create_model("shufflenet_v2")) == counted(convolutions(), 1024, 10)


def test_shufflenet_v2_halves_the_maps_from_stage_to_stage(shapes_of):
    assert shapes_of(create_model("shufflenet_v2")) == {
        "stem": (2, 24, 32, 32),
        "stage1": (2, 116, 16, 16),
        "stage2": (2, 232, 8, 8),
        "stage3": (2, 464, 4, 4),
        "last": (2, 1024, 4, 4),
        "pool": (2, 1024, 1, 1),
        "flatten": (2, 1024),
        "head": (2, 10),
    }


def test_shufflenet_v2_computes_the_graph_of_the_paper(formulas_of, images):
    model = create_model("shufflenet_v2", seed=0)
    net = formulas_of(model)
    maps = net.norm("stem.bn", net.conv("stem.conv", images)).relu()
    for name, channels, width, stride in units():
        half, left, right = width // 2, f"{name}.left", f"{name}.right"
        if stride == 2:
            kept = net.norm(f"{left}.bn1", net.conv(f"{left}.conv1", maps, 2, channels))
            kept = net.norm(f"{left}.bn2", net.conv(f"{left}.conv2", kept)).relu()
        else:
            kept, maps = maps[:, :half], maps[:, half:]
        maps = net.norm(f"{right}.bn1", net.conv(f"{right}.conv1", maps)).relu()
        maps = net.norm(f"{right}.bn2", net.conv(f"{right}.conv2", maps, stride, half))
        maps = net.norm(f"{right}.bn3", net.conv(f"{right}.conv3", maps)).relu()
        maps = torch.stack([kept, maps], dim=2).flatten(1, 2)  # their channels take turns
    maps = net.norm("last.bn", net.conv("last.conv", maps)).relu()
    torch.testing.assert_close(model(images), net.head(maps))
