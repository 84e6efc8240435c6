"""A student that ends in a teacher's classifier: what is joined, that it computes that, and what cannot be joined."""

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.models import Network, Preprocessing, create_model
from model_compression.models.external import External
from model_compression.models.loading import read_model
from model_compression.models.reused_classifier import behind_layer, find_classifier, last_maps, reuse_classifier
from model_compression.models.weights import save_weights

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8))


def joined(student="resnet8", layer="stage3", teacher="resnet8x4", teacher_layer="stage3", seed=0):
    student, teacher = (create_model(name, seed=number) for number, name in enumerate((student, teacher)))
    return reuse_classifier(student, layer, teacher, teacher_layer, IMAGES, seed=seed), student, teacher


def test_network_is_trunk_projector_pooling_and_the_teachers_inner_product():
    network, student, teacher = joined()
    network, pixels = network.eval(), student.preprocessing(IMAGES)
    with torch.no_grad():
        maps = behind_layer(student.eval(), "stage3")(pixels)
        for number in (1, 2, 3):
            layer, norm = (getattr(network.projector, f"{part}{number}") for part in ("conv", "bn"))
            maps = torch.conv2d(maps, layer.weight, padding=1 if number == 2 else 0)
            maps = (
                (maps - norm.running_mean.view(-1, 1, 1)) / (norm.running_var + norm.eps).sqrt().view(-1, 1, 1)
            ).relu()
        expected = maps.flatten(2).mean(dim=2) @ teacher.head.weight.T + teacher.head.bias
        torch.testing.assert_close(network(pixels), expected, rtol=1e-4, atol=1e-5)
    shapes = [tuple(getattr(network.projector, f"conv{number}").weight.shape) for number in (1, 2, 3)]
    assert shapes == [(128, 64, 1, 1), (128, 128, 3, 3), (256, 128, 1, 1)]  # half the teacher's width between


def test_network_shares_the_trunk_and_freezes_a_copy_of_the_classifier():
    network, student, teacher = joined()
    assert network.trunk.stem is student.stem
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"classifier.weight", "classifier.bias"}
    assert network.classifier.weight is not teacher.head.weight
    assert teacher.head.weight.requires_grad
    assert not [name for name in network.state_dict() if "head" in name]


def test_projector_is_drawn_from_the_seed_alone():
    weights = []
    for seed, before in ((1, 5), (1, 6), (2, 5)):
        torch.manual_seed(before)
        weights.append(joined(seed=seed)[0].projector.conv1.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("student", "layer", "teacher", "teacher_layer", "pooling"),
    [
        ("resnet8", "stage3", "wrn_16_1", "relu", "average"),
        ("lenet", "pool2", "whitening-cnn", "block3", "max"),  # its logits are scaled behind the inner product
        ("whitening-cnn", "block2", "vgg8", "stage5.relu1", "average"),
        ("resnet8", "stage2.block1", "mobilenet_v2", None, "average"),
    ],
)
def test_network_survives_its_weights_file(student, layer, teacher, teacher_layer, pooling, tmp_path):
    if teacher_layer is None:
        teacher_layer = last_maps(create_model(student), create_model(teacher), IMAGES)[1]
    network, _, of_teacher = joined(student, layer, teacher, teacher_layer)
    network.preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    save_weights(tmp_path / "w.safetensors", network)
    again = read_model(tmp_path / "w.safetensors").eval()
    assert (again.name, again.options) == (network.name, network.options)
    assert again.options["pooling"] == pooling
    assert again.preprocessing.mean == (0.1, 0.2, 0.3)
    with torch.no_grad():
        assert torch.equal(again(IMAGES / 255), network.eval()(IMAGES / 255))
        maps = dict(of_teacher.eval().named_modules())[teacher_layer]
        seen = []
        maps.register_forward_hook(lambda module, inputs, output: seen.append(output))
        logits = of_teacher(IMAGES / 255)
        torch.testing.assert_close(again.classifier(again.flatten(again.pool(seen[0]))), logits, rtol=1e-4, atol=1e-4)


def test_last_maps_are_those_before_the_pooling():
    assert last_maps(create_model("lenet"), create_model("whitening-cnn"), IMAGES) == ("pool2", "block3")
    assert last_maps(create_model("resnet8"), create_model("wrn_16_1"), IMAGES) == ("stage3", "relu")
    flat = Network(OrderedDict(flatten=nn.Flatten(), head=nn.Linear(3072, 10)))
    with pytest.raises(UsageError, match="the teacher has no layer that answers with maps"):
        last_maps(create_model("lenet"), flat, IMAGES)


class Twice(nn.Module):
    """No chain: what is behind its stem is used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 10)

    def forward(self, images):
        maps = self.stem(images)
        return self.head(maps.mean(dim=(2, 3))) + self.head(maps.amax(dim=(2, 3)))


def with_relu():
    tail = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "ip": nn.Linear(8, 10), "relu": nn.ReLU()}
    return Network(OrderedDict(conv=nn.Conv2d(3, 8, 5, stride=4), **tail))


@pytest.mark.parametrize(
    ("network", "layer", "message"),
    [
        (create_model("nin"), "relu_cccp6", "the last layer with weights is no inner product; name the last maps"),
        (create_model("lenet"), "pool2", "its inner product does not take the mean or the maximum of each map"),
        (create_model("resnet8"), "stage2", "its inner product does not take the mean or the maximum of each map"),
        (create_model("resnet8"), "flatten", r"that does not answer with maps \(B, C, H, W\)"),
        (External(Twice(), Preprocessing()), "stem", "more follows its last inner product"),
        (with_relu(), "conv", "more follows its last inner product"),
    ],
    ids=["nin", "lenet", "another layer", "no map", "no chain", "ReLU on logits"],
)  # fmt: skip
def test_classifier_that_is_no_inner_product_of_pooled_maps_is_refused(network, layer, message):
    refusal = f"the teacher's classifier cannot be reused behind its layer '{layer}': .*{message}"
    with pytest.raises(UsageError, match=refusal):
        find_classifier(network, layer, IMAGES)


def test_classifier_of_a_module_that_is_no_chain_is_found_by_what_it_computes():
    class Own(Twice):
        def forward(self, images):
            return 2 * self.head(self.stem(images).flatten(2).amax(dim=2))

    network = External(Own(), Preprocessing())
    pooling, head, shape = find_classifier(network, "stem", IMAGES)
    assert (pooling, shape) == ("max", (4, 30, 30))
    torch.testing.assert_close(head.weight, 2 * network.body.head.weight.detach())
    torch.testing.assert_close(head.bias, 2 * network.body.head.bias.detach())


class Residual(nn.Module):
    """No chain: a sum, a head of its own and one that is not used."""

    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6))
        self.branch = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.ReLU()
        self.scale = nn.Parameter(torch.full((), 0.5))
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, classes)

    def forward(self, images):
        maps = self.stem(images)
        maps = self.last(maps + self.scale * self.branch(maps))
        return {"logits": self.head(self.norm(maps.mean(dim=(2, 3))))}


def test_student_that_is_no_chain_is_left_behind_the_layer():
    torch.manual_seed(0)
    module, teacher = Residual(), create_model("resnet8x4", seed=1)
    original = copy.deepcopy(module)
    network = reuse_classifier(External(module, Preprocessing()), "last", teacher, "stage3", IMAGES, seed=0)
    pixels = IMAGES / 255
    with torch.no_grad():
        for training in (False, True):
            network.train(training)
            maps = original.train(training).stem(pixels)
            expected = (maps + 0.5 * original.branch(maps)).relu()
            torch.testing.assert_close(network.trunk(pixels), expected)
            rest = network.flatten(network.pool(network.projector(expected)))
            torch.testing.assert_close(network(pixels), network.classifier(rest))
    network.train()(pixels).sum().backward()
    trained = {name for name, weight in network.named_parameters() if weight.grad is not None}
    assert {"trunk.body.scale", "trunk.body.stem.0.weight", "trunk.body.branch.weight"} < trained
    assert not [name for name in trained if "head" in name or "norm" in name]  # its own head is left alone
    network.eval()
    for made in (copy.deepcopy(network), torch.export.export(network, (pixels,)).module()):
        torch.testing.assert_close(made(pixels), network(pixels))


def test_student_can_be_left_within_a_block():
    student = create_model("resnet8", seed=0)
    trunk = behind_layer(student, "stage2.block1.conv1").eval()
    seen = []
    layer = student.get_submodule("stage2.block1.conv1")
    with torch.no_grad():
        got = trunk(IMAGES / 255)
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        student.eval()(IMAGES / 255)
    assert torch.equal(got, seen[0])


def test_student_that_cannot_be_cut_is_refused():
    of_teacher = create_model("resnet8", seed=0)
    for name in ("stage4", "stem.stage4"):
        with pytest.raises(UnknownNameError, match=f"unknown layer '{name}'; did you mean 'st"):
            reuse_classifier(create_model("resnet20"), name, of_teacher, "stage3", IMAGES, seed=0)
    with pytest.raises(UnknownNameError, match="unknown layer 'stage4'; did you mean 'stage"):
        find_classifier(of_teacher, "stage4", IMAGES)
    with pytest.raises(UsageError, match="the student's layer 'flatten' does not answer with maps"):
        joined("resnet8", "flatten")
    small = Network(OrderedDict(conv=nn.Conv2d(3, 4, 16, stride=16), flatten=nn.Flatten(), head=nn.Linear(16, 10)))
    with pytest.raises(UsageError, match=r"'conv' has maps of \(2, 2\), fewer pixels than the teacher's \(3, 3\)"):
        reuse_classifier(small, "conv", create_model("whitening-cnn", seed=0), "block3", IMAGES, seed=0)
