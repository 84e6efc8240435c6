"""Tapped layers: what they answer is what passed through, whatever the network; and pairs by stage."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.models import create_model
from model_compression.models.features import Layer, Tapped, layers, logits_of
from model_compression.models.stages import blocks_in, choose_pairs, stages


class Encoder(nn.Module):
    """Eight blocks over tokens, a class token first; a dictionary as the answer, as transformers have it."""

    def __init__(self, depth=8):
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 4, stride=4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6)) for _ in range(depth))
        self.head = nn.Linear(6, 4)

    def forward(self, images):
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens[:, :1], tokens], dim=1)
        for block in self.blocks:
            tokens = tokens + block(tokens)
        return {"logits": self.head(tokens[:, 0])}


IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_tapped_layers_answer_what_passed_through():
    model = create_model("lenet", seed=0).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    answer = Tapped(model, ["pool2", "conv1", "conv1"], embedding=True)(images)
    conv1 = model.conv1(images)
    pool2 = model.pool2(model.conv2(model.pool1(conv1)))
    hidden = model.relu1(model.ip1(model.flatten(pool2)))
    assert list(answer.features) == ["pool2", "conv1", "conv1#2"]
    torch.testing.assert_close(list(answer.features.values()), [pool2, conv1, conv1])
    torch.testing.assert_close(answer.embedding, hidden)
    torch.testing.assert_close(answer.logits, model.ip2(hidden))


def test_embedding_before_a_last_convolution_is_its_pixels_mean():
    model = create_model("nin", seed=0).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = []
    model.relu_cccp5.register_forward_hook(lambda module, inputs, output: seen.append(output))
    answer = Tapped(model, embedding=True)(images)
    torch.testing.assert_close(answer.embedding, seen[0].mean(dim=(2, 3)))


def test_tapping_sends_the_gradient_through_and_leaves_the_network_as_it_is():
    model = create_model("lenet-caffe", seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    answer = Tapped(model, ["conv1"])(torch.randn(2, 3, 32, 32))
    answer.features["conv1"].square().mean().backward()
    assert model.conv1.weight.grad.any()
    assert model.conv2.weight.grad is None
    assert model.state_dict().keys() == before.keys()


def test_layers_of_a_transformer_are_its_blocks_by_quarters():
    found = layers(Encoder(), IMAGES)
    assert [layer.name for layer in stages(found)] == [  # and not the patches, though they are a map
        "blocks.1", "blocks.3", "blocks.5", "blocks.7",
    ]  # fmt: skip
    assert Layer(name="blocks.0", kind="Sequential", shape=(1, 5, 6)) in found
    names = ("embeddings", "encoder.layer.0.attention.query", "encoder.layer.0.output", "encoder.layer.0")
    single = [Layer(name=name, kind="Linear", shape=(1, 5, 6)) for name in names]
    assert blocks_in(single) == single[-1:]


def test_logits_are_found_in_what_a_network_answers():
    assert torch.equal(logits_of({"logits": IMAGES}), IMAGES)
    assert Tapped(Encoder(), ["blocks.3"], embedding=True)(IMAGES).embedding.shape == (3, 6)
    assert torch.equal(logits_of((IMAGES, "auxiliary")), IMAGES)
    with pytest.raises(UsageError, match="the network answers with tuple; expected logits"):
        logits_of(("auxiliary", IMAGES))


def test_pairs_are_of_equal_resolution_and_the_last_layer_before_it_changes():
    student, teacher = (layers(create_model(name, seed=0), torch.zeros(1, 3, 32, 32)) for name in ("nin-bn", "nin"))
    assert choose_pairs(student, teacher)[0][1] == "relu_cccp2"
    assert [t for _, t in choose_pairs(student, teacher)] == ["relu_cccp2", "relu_cccp4", "relu_cccp6"]


def test_stages_are_the_networks_own_layers_where_it_has_some():
    images = torch.zeros(1, 3, 32, 32)
    chosen = {
        name: [layer.name for layer in stages(layers(create_model(name, seed=0), images))]
        for name in ("resnet8", "wrn_16_1", "whitening-cnn")
    }
    assert chosen["resnet8"] == ["stage1", "stage2", "stage3"]
    assert chosen["wrn_16_1"] == ["stage1", "stage2", "relu"]
    assert chosen["whitening-cnn"] == ["gelu", "block1", "block2", "block3"]


def test_pairs_without_equal_resolutions_are_counted_from_the_end():
    def stack(*sizes):
        return [Layer(name=f"l{size}", kind="Conv2d", shape=(1, 4, size, size)) for size in sizes]

    assert choose_pairs(stack(32, 16, 8), stack(14, 7)) == [("l16", "l14"), ("l8", "l7")]
    tokens = [Layer(name=f"b.{n}", kind="Block", shape=(1, 5, 6)) for n in range(4)]
    assert choose_pairs(stack(32, 16), tokens) == [("l32", "b.2"), ("l16", "b.3")]
    with pytest.raises(UsageError, match="the teacher has no layer with maps or tokens to tap"):
        choose_pairs(tokens, [Layer(name="head", kind="Conv2d", shape=(1, 10, 1, 1))])


def test_unknown_layer_lists_near_matches():
    with pytest.raises(UnknownNameError, match="unknown layer 'conv_1'; did you mean 'conv1'"):
        Tapped(create_model("lenet", seed=0), ["conv_1"])


def test_layer_that_is_changed_in_place_is_an_error():
    model = nn.Sequential(
        OrderedDict(a=nn.Conv2d(3, 4, 1), b=nn.ReLU(inplace=True), c=nn.Flatten(), d=nn.Linear(256, 2))
    )
    with pytest.raises(UsageError, match="what layer 'a' answers is changed in place by a later layer"):
        Tapped(model, ["a"])(IMAGES)
    assert Tapped(model, ["b"])(IMAGES).features["b"].min() == 0


def test_layers_that_answer_no_tensor_or_not_at_all_are_errors():
    model = nn.Sequential(OrderedDict(rnn=nn.Flatten(2), head=nn.LSTM(64, 2)))
    with pytest.raises(UsageError, match="layer 'head' answers with tuple, not a tensor"):
        Tapped(model, ["head"])(IMAGES)
    lone = Encoder()
    lone.unused = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="layer 'unused' was not used in the forward pass"):
        Tapped(lone, ["unused"])(IMAGES)
