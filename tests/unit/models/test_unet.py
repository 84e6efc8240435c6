"""The small U-Net: size from a closed form, and logits at the size of the images, whatever that is."""

import pytest
import torch
import torch.nn.functional as F

from model_compression.core.errors import UsageError
from model_compression.models import create_model


@pytest.mark.parametrize(("width", "classes"), [(24, 10), (8, 3)])
def test_unet_has_the_size_of_its_convolutions(width, classes, size_of):
    pairs = [(3, width), (width, 2 * width), (2 * width, 4 * width), (4 * width, 4 * width)]
    pairs += [(6 * width, 2 * width), (3 * width, width)]
    sides = [16, 8, 4, 4, 8, 16]
    weights = [9 * one * other for one, other in pairs]
    parameters = sum(weights) + 2 * sum(other for _, other in pairs) + width * classes + classes
    macs = sum(weight * side**2 for weight, side in zip(weights, sides, strict=True)) + 16**2 * width * classes
    options = {} if width == 24 else {"width": width}
    assert size_of(create_model("unet", num_classes=classes, **options)) == (parameters, macs)
    assert parameters < 500_000


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (5, 7)])
def test_unet_answers_each_pixel_of_images_of_any_size(size):
    model = create_model("unet", num_classes=3, width=4).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        found = model(images)
        low = model.head(model.level(model.stem(images)))
        assert torch.equal(found, F.interpolate(low, size=size, mode="bilinear", align_corners=False))
    assert found.shape == (2, 3, *size)


def test_unet_refuses_a_width_that_cannot_be():
    with pytest.raises(UsageError, match="width must be a number of channels, at least 1, got 0"):
        create_model("unet", width=0)
