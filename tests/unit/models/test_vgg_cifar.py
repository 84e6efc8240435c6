"""VGG networks: sizes from a closed form and as published, stages, and the graph as formulas."""

import pytest
import torch
import torch.nn.functional as F

from model_compression.models import create_model

# name → (convolutions of each stage, parameters and MACs for 100 classes, parameters as published in millions)
NETWORKS = {
    "vgg8": ((1, 1, 1, 1, 1), 3_965_028, 96_192_512, 3.97),
    "vgg11": ((1, 1, 2, 2, 2), 9_277_284, 209_438_720, 9.28),
    "vgg13": ((2, 2, 2, 2, 2), 9_462_180, 284_936_192, 9.46),
}


def convolutions(counts):
    found, channels = [], 3
    for count, width, side in zip(counts, (64, 128, 256, 512, 512), (32, 16, 8, 4, 4), strict=True):
        found += [(channels, width, 3, 1, side)] + [(width, width, 3, 1, side)] * (count - 1)
        channels = width
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_vgg_has_the_reference_size(name, size_of, counted):
    counts, parameters, macs, published = NETWORKS[name]
    biases = sum(width for _, width, *_ in convolutions(counts))
    assert size_of(create_model(name, num_classes=100)) == (parameters, macs)
    assert counted(convolutions(counts), 512, 100, biases) == (parameters, macs)
    assert round(parameters / 1e6, 2) == published
    assert size_of(create_model(name)) == counted(convolutions(counts), 512, 10, biases)


def test_vgg_pools_three_times(shapes_of):
    assert shapes_of(create_model("vgg11")) == {
        "stage1": (2, 64, 32, 32),
        "pool1": (2, 64, 16, 16),
        "stage2": (2, 128, 16, 16),
        "pool2": (2, 128, 8, 8),
        "stage3": (2, 256, 8, 8),
        "pool3": (2, 256, 4, 4),
        "stage4": (2, 512, 4, 4),
        "stage5": (2, 512, 4, 4),
        "pool": (2, 512, 1, 1),
        "flatten": (2, 512),
        "head": (2, 10),
    }


def test_vgg_computes_convolutions_norms_and_relus_in_turn(formulas_of, images):
    model = create_model("vgg11", seed=0)
    net, maps = formulas_of(model), images
    for stage, count in enumerate(NETWORKS["vgg11"][0], start=1):
        for number in range(1, count + 1):
            maps = net.norm(f"stage{stage}.bn{number}", net.conv(f"stage{stage}.conv{number}", maps)).relu()
        maps = F.max_pool2d(maps, 2) if stage <= 3 else maps
    torch.testing.assert_close(model(images), net.head(maps))
