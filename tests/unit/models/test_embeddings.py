"""What is taken for an embedding, and networks of all origins without their heads."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from model_compression.core.errors import MissingExtraError, UsageError, WeightsMismatchError
from model_compression.models.create import create_model
from model_compression.models.embeddings import embedding_of, has_class_token, take_head_off
from model_compression.models.external import build_external
from model_compression.models.loading import build_model, load_model
from model_compression.models.weights import save_backbone, save_weights


def test_maps_and_tokens_become_one_vector_each():
    maps, tokens = torch.randn(2, 5, 3, 4), torch.randn(2, 10, 6)
    torch.testing.assert_close(embedding_of(maps), maps.flatten(2).mean(2))
    torch.testing.assert_close(embedding_of(tokens), tokens[:, 0])  # a class token and 3 × 3 patches
    torch.testing.assert_close(embedding_of(tokens[:, :9]), tokens[:, :9].mean(1))
    torch.testing.assert_close(embedding_of(tokens[:, :7]), tokens[:, :7].mean(1))
    assert [length for length in (196, 197, 198, 201, 200) if has_class_token(length)] == [197, 198, 201]


def test_named_answers_are_found_in_objects_and_mappings():
    vectors, tokens = torch.randn(2, 6), torch.randn(2, 17, 6)
    found = SimpleNamespace(pooler_output=None, last_hidden_state=tokens)
    torch.testing.assert_close(embedding_of(found), tokens[:, 0])
    torch.testing.assert_close(embedding_of({"image_embeds": vectors, "last_hidden_state": tokens}), vectors)
    torch.testing.assert_close(embedding_of((vectors, tokens)), vectors)
    for wrong in ({"other": vectors}, torch.zeros(3), "text"):
        with pytest.raises(UsageError, match="the network answers with"):
            embedding_of(wrong)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("resnet8", 64),
        ("lenet", 1024),
        ("timm:test_vit", 64),
        ("timm:test_efficientnet", 256),
        ("torchvision:resnet18", 512),
    ],
)
def test_networks_without_a_head_answer_with_what_their_head_is_given(name, width):
    """The headless network has the tensors of the whole one, but for its last layer, and computes the same."""
    images = torch.randn(2, 3, 64 if name != "lenet" else 32, 64 if name != "lenet" else 32)
    whole = build_model(name, {"img_size": 64} if "vit" in name else {}, seed=0).eval()
    headless = build_model(name, {"num_classes": 0} | ({"img_size": 64} if "vit" in name else {}), seed=0).eval()
    lost = whole.state_dict().keys() - headless.state_dict().keys()
    headless.load_state_dict({key: value for key, value in whole.state_dict().items() if key not in lost})
    assert len({key.rpartition(".")[0] for key in lost}) == 1
    (layer,) = {key.rpartition(".")[0] for key in lost}
    seen = []
    whole.get_submodule(layer).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        whole(images)
        torch.testing.assert_close(headless(images), seen[0])
    assert seen[0].shape == (2, width)


def test_network_that_does_not_end_with_an_inner_product_keeps_its_head():
    with pytest.raises(UsageError, match="nin does not end with an inner product"):
        create_model("nin", num_classes=0)
    with pytest.raises(UsageError, match="does not end"):
        take_head_off(nn.Sequential(nn.Linear(3, 3), nn.Conv2d(1, 1, 1)), "mine")


def test_headless_network_is_saved_rebuilt_and_written_under_the_librarys_names(tmp_path):
    import timm
    from safetensors.torch import load_file

    network = build_model("timm:test_efficientnet", {"num_classes": 0}, seed=1).eval()
    save_weights(tmp_path / "a.safetensors", network)
    save_backbone(tmp_path / "b.safetensors", network)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(load_model(tmp_path / "a.safetensors").eval()(images), expected)
        plain = timm.create_model("test_efficientnet", num_classes=0).eval()
        plain.load_state_dict(load_file(tmp_path / "b.safetensors"))
        torch.testing.assert_close(plain(images), expected)
        again = build_model("timm:test_efficientnet", {"num_classes": 0}, weights=tmp_path / "b.safetensors").eval()
        torch.testing.assert_close(again(images), expected)


@pytest.mark.parametrize(("classes", "refusal"), [(0, "missing"), (3, "found")])
@pytest.mark.parametrize("ours", [True, False], ids=["student.safetensors", "backbone.safetensors"])
def test_weights_fill_a_classifier_whose_head_starts_afresh(ours, classes, refusal, tmp_path):
    """Those of a backbone, and of a classifier of other classes."""
    network = build_model("timm:test_efficientnet", {"num_classes": classes}, seed=1)
    (save_weights if ours else save_backbone)(tmp_path / "b.safetensors", network)
    options = {"num_classes": 7}
    found = build_model("timm:test_efficientnet", options, seed=2, weights=tmp_path / "b.safetensors", fits_head=True)
    fresh = build_model("timm:test_efficientnet", options, seed=2)
    assert {name.removeprefix("module.") for name in found.fresh} == {"classifier.weight", "classifier.bias"}
    for key, value in found.body.state_dict().items():
        source = fresh.body if key.startswith("classifier") else network.body
        torch.testing.assert_close(value, source.state_dict()[key])
    with pytest.raises(WeightsMismatchError, match=rf"classifier\.weight: {refusal}"):
        build_model("timm:test_efficientnet", options, seed=2, weights=tmp_path / "b.safetensors")


def test_classifiers_weights_fill_a_backbone(tmp_path):
    whole = build_model("torchvision:resnet18", {"num_classes": 5}, seed=1)
    torch.save(whole.body.state_dict(), tmp_path / "whole.pt")
    found = build_model("torchvision:resnet18", {"num_classes": 0}, weights=tmp_path / "whole.pt", fits_head=True)
    assert not found.fresh
    for key, value in found.body.state_dict().items():
        torch.testing.assert_close(value, whole.body.state_dict()[key])


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip"])
def test_backbones_of_transformers_answer_with_vectors(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    small |= {"image_size": 8, "patch_size": 4}
    if kind == "clip":
        config = transformers.CLIPConfig(
            vision_config=small, text_config={**small, "vocab_size": 30, "eos_token_id": 2}
        )
    else:
        config = (transformers.ViTConfig if kind == "vit" else transformers.Dinov2Config)(**small)
    theirs = transformers.AutoModel.from_config(config).eval()
    theirs.save_pretrained(tmp_path / "net")
    found = build_external(f"hf:{tmp_path / 'net'}", {"num_classes": 0}).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        if kind == "clip":
            expected = theirs.vision_model(images).pooler_output
        else:
            expected = theirs(images).last_hidden_state[:, 0]  # after the last normalisation
        torch.testing.assert_close(found(images), expected)
        again = build_external(f"hf:{tmp_path / 'net'}", {**found.options, "pretrained": False})
    assert again.state_dict().keys() == found.state_dict().keys()


def fake_open_clip():
    """As much of open_clip as is called, with a tower of one layer."""
    tower = nn.Sequential(nn.Flatten(), nn.Linear(48, 6))
    return SimpleNamespace(
        list_models=lambda: ["ViT-B-32"],
        list_pretrained_tags_by_model=lambda name: ["laion"],
        create_model=lambda name, pretrained=None, **options: SimpleNamespace(visual=tower, asked=(name, pretrained)),
        get_model_preprocess_cfg=lambda model: {"size": 4, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.2)},
    )


def test_open_clips_image_tower_is_built_with_its_normalisation(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", fake_open_clip())
    found = build_external("open_clip:ViT-B-32.laion", {"pretrained": True, "num_classes": 0})
    assert found.preprocessing.mean == (0.4, 0.5, 0.6)
    assert found.preprocessing.size == (4, 4)
    assert found(torch.zeros(2, 3, 4, 4)).shape == (2, 6)
    with pytest.raises(UsageError, match=r"write open_clip:ViT-B-32\.WEIGHTS, of laion"):
        build_external("open_clip:ViT-B-32", {"pretrained": True})
    with pytest.raises(UsageError, match="without classes"):
        build_external("open_clip:ViT-B-32.laion", {"num_classes": 10})
    with pytest.raises(UsageError, match="unknown open_clip model 'ViT-B-23'; did you mean"):
        build_external("open_clip:ViT-B-23", {})


def test_open_clip_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtraError, match=r"open-clip-torch.*model-compression\[open_clip\]"):
        build_external("open_clip:ViT-B-32.laion", {})
