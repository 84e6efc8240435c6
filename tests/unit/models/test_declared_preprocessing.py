"""Photographs reach a network as the library of its weights prepares them: compared with that library's transform."""

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import create_transform, resolve_data_config

from model_compression.core.errors import UsageError
from model_compression.core.fitting import Fitting
from model_compression.data.scaling import scale
from model_compression.models.base import MODELS
from model_compression.models.declared_preprocessing import declared_preprocessing
from model_compression.models.hf_images import hf_preprocessing
from model_compression.models.loading import load_model
from model_compression.models.preprocessing import Preprocessing
from model_compression.models.timm_networks import preprocessing_of_tag
from model_compression.models.weights import save_weights

TIMM = {  # crop shares, filters and modes that timm knows; the last squashes
    "mobilenetv3_small_050.lamb_in1k": Fitting("crop", 0.875, "bicubic"),
    "resnet18.a1_in1k": Fitting("crop", 0.95, "bicubic"),
    "resnet18.tv_in1k": Fitting("crop", 0.875, "bilinear"),
    "vit_small_patch14_dinov2.lvd142m": Fitting("crop", 1.0, "bicubic"),
    "dm_nfnet_f0.dm_in1k": Fitting("squash", 0.9, "bicubic"),
}
PROCESSORS = {
    "BitImageProcessor": ({"size": {"shortest_edge": 256}, "crop_size": 224}, Fitting("crop", 0.875, "bicubic")),
    "CLIPImageProcessor": ({}, Fitting("crop", 1.0, "bicubic")),
    "ViTImageProcessor": ({"size": {"height": 224, "width": 224}}, Fitting("squash", 1.0, "bilinear")),
    "ConvNextImageProcessor": ({"size": {"shortest_edge": 224}}, Fitting("crop", 0.875, "bicubic")),
}


@pytest.fixture(scope="module", params=[1.0, 0.7], ids=["640 × 427", "448 × 299"])
def photograph(request):
    """A real one, as it is, and only a little larger than networks take it: there Pillow's filter is used, exactly."""
    image = Image.fromarray(load_sample_image("china.jpg"))
    return image.resize([round(side * request.param) for side in image.size]) if request.param != 1 else image


def check(photograph, fitting, how, expected, at_most=1e-3):
    """``expected`` (3, H, W) is normalised: compared by pixels of 0 to 255, which are equal but for ``at_most``."""
    size = tuple(expected.shape[1:])
    pixels = scale(photograph, size, fit=fitting)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (how.mean, how.std))
    theirs = 255 * (torch.as_tensor(expected) * std + mean)
    apart = (torch.tensor(pixels) - theirs).abs()
    much_larger = min(photograph.size) >= 1.5 * min(size) / fitting.share
    if much_larger:  # torch's filter, which rounds otherwise
        assert apart.mean() < 0.5
        assert apart.max() <= 4
    else:
        assert apart.mean() <= at_most / 8
        assert apart.max() <= at_most


@pytest.mark.parametrize("name", TIMM)
def test_timms_weights_get_what_timms_transform_gives(photograph, name):
    how = preprocessing_of_tag(name)
    assert how.fitting == TIMM[name]
    assert how.to_dict() == declared_preprocessing(f"timm:{name}", {"pretrained": True}).to_dict()
    transform = create_transform(**resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()))
    check(photograph, how.fitting, how, transform(photograph))


@pytest.mark.parametrize(("name", "weights"), [("resnet18", True), ("resnet50", "IMAGENET1K_V2")])
def test_torchvisions_weights_get_what_their_transforms_give(photograph, name, weights):
    declared = declared_preprocessing(f"torchvision:{name}", {"pretrained": weights})
    assert declared.size == (224, 224)
    fitting = declared.fitting
    transforms = torchvision.models.get_model_weights(name)["DEFAULT" if weights is True else weights].transforms()
    assert fitting == Fitting("crop", 224 / transforms.resize_size[0], "bilinear")
    check(photograph, fitting, transforms, transforms(photograph))


@pytest.mark.parametrize("name", PROCESSORS)
def test_transformers_weights_get_what_their_processor_gives(photograph, name, tmp_path):
    options, expected = PROCESSORS[name]
    processor = getattr(transformers, name)(**options)
    processor.save_pretrained(tmp_path)
    how = hf_preprocessing(str(tmp_path))
    assert how.fitting == expected
    assert how.to_dict() == declared_preprocessing(f"hf:{tmp_path}", {}).to_dict()
    even = photograph.crop((0, 0, photograph.width - 4, photograph.height))  # where half a margin is rounded alike
    check(even, how.fitting, how, processor(even, return_tensors="pt")["pixel_values"][0], at_most=4)


def test_nobody_says_anything_of_fresh_weights(tmp_path):
    for name in ("timm:resnet18", "torchvision:resnet18", f"hf:{tmp_path}", "resnet8"):
        assert declared_preprocessing(name, {"pretrained": False}) is None
    assert declared_preprocessing("resnet8", {}, "own.pt") is None
    assert declared_preprocessing("timm:resnet18.tv_in1k", {}, "own.pt").fitting == TIMM["resnet18.tv_in1k"]
    shipped = declared_preprocessing("nin-cifar10", {})
    assert shipped.fitting is shipped.size is None


def test_weights_file_says_how_its_network_was_evaluated(tmp_path):
    network = MODELS.get("resnet8")()
    network.name = "resnet8"
    network.preprocessing = Preprocessing(fitting=Fitting("squash", 0.75, "lanczos"))
    save_weights(tmp_path / "a.safetensors", network)
    assert load_model(tmp_path / "a.safetensors").preprocessing.fitting == network.preprocessing.fitting
    assert declared_preprocessing(str(tmp_path / "a.safetensors"), {}).to_dict() == network.preprocessing.to_dict()


@pytest.mark.parametrize("change", [{"fit": "stretch"}, {"crop_share": 0}, {"crop_share": "1"}, {"interpolation": "x"}])
def test_impossible_values_are_refused(change):
    with pytest.raises(UsageError):
        Fitting.from_dict({"fit": "crop"} | change)


def test_images_of_another_size_are_scaled_by_the_filter_of_the_weights():
    """Against Pillow's, which rounds to whole levels after each direction."""
    image = Image.fromarray(load_sample_image("flower.jpg")).resize((48, 40))
    pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())[None]
    for by in ("bilinear", "bicubic"):
        how = Preprocessing(mean=(0.0,) * 3, std=(1 / 255,) * 3, size=(64, 64), fitting=Fitting(interpolation=by))
        expected = np.asarray(image.resize((64, 64), Image.Resampling[by.upper()])).transpose(2, 0, 1)
        assert np.abs(how(pixels)[0].numpy() - expected).mean() < 0.4
