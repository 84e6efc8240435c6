"""Networks of torchvision and segmentation-models-pytorch for segmentation, and logits at a lower resolution."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model_compression.core.errors import MissingExtraError, UnknownNameError, UsageError
from model_compression.models.external import External, build_external, check_external

models = pytest.importorskip("torchvision").models
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torchvision:lraspp_mobilenet_v3_large", {}),
        ("torchvision:deeplabv3_mobilenet_v3_large", {"aux_loss": True}),
        ("smp:unet", {"encoder_name": "mobilenet_v2"}),
    ],
)
def test_network_answers_each_pixel_and_is_built_again_from_its_options(name, options):
    network = build_external(name, {"num_classes": 3, **options}, seed=0).eval()
    with torch.no_grad():
        assert network(IMAGES).shape == (2, 3, 64, 96)
    again = build_external(name, network.options, seed=1)
    assert again.options == network.options
    again.load_state_dict(network.state_dict())
    assert not any("aux" in key for key in network.state_dict())


def test_weights_of_torchvision_come_without_the_auxiliary_head_and_with_a_fresh_last_layer(monkeypatch):
    name = "deeplabv3_mobilenet_v3_large"
    state = models.get_model(name, weights=None, weights_backbone=None, num_classes=21, aux_loss=True).state_dict()
    monkeypatch.setattr(models._api, "load_state_dict_from_url", lambda *args, **settings: state)
    network = build_external(f"torchvision:{name}", {"pretrained": True, "num_classes": 3}, seed=0)
    own = network.body.state_dict()
    assert network.preprocessing.mean == (0.485, 0.456, 0.406)
    assert network.preprocessing.size is None  # of any size
    assert own["classifier.4.weight"].shape[0] == 3
    assert all(torch.equal(tensor, state[key]) for key, tensor in own.items() if not key.startswith("classifier.4"))
    assert build_external(f"torchvision:{name}", network.options).state_dict().keys() == network.state_dict().keys()


def test_encoders_of_smp_bring_their_preprocessing(monkeypatch):
    smp = pytest.importorskip("segmentation_models_pytorch")
    asked, create = [], smp.create_model

    def fake(*args, encoder_weights, **settings):
        asked.append(encoder_weights)
        return create(*args, encoder_weights=None, **settings)

    declared = {"mean": [0.5, 0.4, 0.3], "std": [51, 51, 51], "input_range": [0, 255], "input_space": "BGR"}
    declared["mean"] = [255 * value for value in declared["mean"]]
    monkeypatch.setattr(smp, "create_model", fake)
    monkeypatch.setattr(smp.encoders, "get_preprocessing_params", lambda encoder, pretrained: declared)
    network = build_external("smp:fpn", {"encoder_name": "mobilenet_v2", "pretrained": True, "num_classes": 4})
    assert asked == ["imagenet"]
    assert network.preprocessing.mean == pytest.approx((0.5, 0.4, 0.3))
    assert network.preprocessing.std == pytest.approx((0.2, 0.2, 0.2))
    assert network.preprocessing.channel_order == "bgr"
    assert network.options == {"encoder_name": "mobilenet_v2", "num_classes": 4}


def test_faults_of_names_and_options_say_what_is_there(monkeypatch):
    with pytest.raises(UnknownNameError, match=r"unknown smp architecture 'unt'; did you mean 'unet'"):
        check_external("smp:unt")
    with pytest.raises(UsageError, match="takes num_classes and pretrained here, instead of classes"):
        build_external("smp:unet", {"classes": 3})
    with pytest.raises(UsageError, match="takes pretrained=backbone, instead of weights_backbone"):
        build_external("torchvision:fcn_resnet50", {"weights_backbone": "DEFAULT"})
    monkeypatch.setitem(__import__("sys").modules, "segmentation_models_pytorch", None)
    with pytest.raises(MissingExtraError, match=r"smp:NAME needs the package .*model-compression\[segmentation\]"):
        check_external("smp:unet")


class Quarter(nn.Module):
    """Logits at a quarter of the size, in a mapping as torchvision's."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 4, stride=4)

    def forward(self, images):
        logits = self.conv(images)
        return {"out": logits, "aux": -logits}


def test_logits_at_a_lower_resolution_are_scaled_bilinearly_to_that_of_the_images():
    module = Quarter()
    found = External(module)(IMAGES)
    expected = F.interpolate(module.conv(IMAGES), size=(64, 96), mode="bilinear", align_corners=False)
    assert torch.equal(found, expected)
