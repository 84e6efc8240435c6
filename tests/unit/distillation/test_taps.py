"""Which layers are compared: by stage, before activations where a method asks, each of several methods its own."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from model_compression.core.config import MethodConfig
from model_compression.core.errors import UsageError
from model_compression.distillation.methods import create
from model_compression.distillation.taps import choose_taps
from model_compression.models import create_model
from model_compression.models.external import External
from model_compression.models.features import Tapped
from model_compression.models.preprocessing import Preprocessing

IMAGES = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
STAGES = ("stage1", "stage2", "stage3")


def taps(name, student="resnet8", teacher="resnet20", pairs=(), said=None):
    networks = (create_model(model, seed=0) if isinstance(model, str) else model for model in (student, teacher))
    report = (lambda message: None) if said is None else said.append
    return choose_taps(MethodConfig(name=name, pairs=dict(pairs)), create(name), *networks, IMAGES, report)


class Residual(nn.Module):
    """A block as torchvision writes it: one ReLU for all, in place, and the sum by an operator in place."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

    def forward(self, maps):
        answer = self.bn(self.conv(self.relu(self.conv(maps))))
        answer += maps
        return self.relu(answer)


def in_place():
    body = nn.Sequential(
        OrderedDict(stem=nn.Conv2d(3, 4, 1), block=Residual(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten())
    )
    body.add_module("head", nn.Linear(4, 10))
    return External(body, Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3))


def test_pairs_are_the_ends_of_the_stages_and_few_where_the_weight_is_of_few():
    assert (taps("at").student, taps("at").teacher) == (STAGES, STAGES)
    for name in ("mgd", "ft", "fitnet"):
        assert (taps(name).student, taps(name).teacher, taps(name).norms) == (("stage3",), ("stage3",), ())


@pytest.mark.parametrize(("name", "stages"), [("ofd", (1, 2, 3)), ("ab", (3,))])
def test_methods_of_activation_boundaries_see_what_stands_before_them(name, stages):
    found = taps(name)
    assert found.student == tuple(f"stage{stage}.block1.relu2:input" for stage in stages)
    assert found.teacher == tuple(f"stage{stage}.block3.relu2:input" for stage in stages)
    teacher = create_model("resnet20", seed=0)
    norms = [teacher.body.get_submodule(f"stage{stage}.block3.bn2") for stage in stages]
    assert [(w.tolist(), b.tolist()) for w, b in found.norms] == [(n.weight.tolist(), n.bias.tolist()) for n in norms]


def test_the_input_of_an_activation_in_place_is_what_it_was():
    network = in_place()
    found = taps("ab", network, network)
    assert found.teacher == ("block.relu:input",)
    plain = in_place()
    plain.load_state_dict(network.state_dict())
    plain.body.block.relu.inplace = False
    seen = []
    plain.body.block.relu.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = plain.eval().body(images)
    answer = Tapped(network.eval().body, found.teacher)(images)
    torch.testing.assert_close(answer.features["block.relu:input"], seen[-1])
    assert seen[-1].min() < 0
    torch.testing.assert_close(answer.logits, expected)
    norm = network.body.block.bn
    assert [(w.tolist(), b.tolist()) for w, b in found.norms] == [(norm.weight.tolist(), norm.bias.tolist())]


def test_teacher_that_is_never_negative_is_said():
    said = []
    found = taps("ofd", pairs={"stage3": "stage3", "stage2.block1.add": "stage2.block3.add"}, said=said)
    assert [norm is None for norm in found.norms] == [True, False]
    assert said == [
        "ofd compares what stands before activations, and the teacher's stage3 is never negative: name other layers "
        "with pairs, an activation's input as NAME:input"
    ]


def test_layer_that_is_not_reached_is_left_to_the_tap_that_refuses_it():
    network = in_place()
    network.body.block.unused = nn.ReLU()
    said = []
    assert taps("ab", network, network, pairs={"block": "block.unused"}, said=said).norms == (None,)
    assert said == []
    with pytest.raises(UsageError, match="was not used in the forward pass"):
        Tapped(network.body, ["block.unused"])(torch.zeros(1, 3, 8, 8))


def test_each_of_several_methods_has_the_pairs_that_it_has_alone():
    found = taps("fitnet,at,kd,ab")
    before = ("stage3.block1.relu2:input", "stage3.block3.relu2:input")
    assert found.student == ("stage3", "stage1", "stage2", before[0])
    assert found.teacher == ("stage3", "stage1", "stage2", before[1])
    assert found.parts == {"fitnet": (0,), "at": (1, 2, 0), "ab": (3,)}
    assert [norm is None for norm in found.norms] == [True, True, True, False]
    named = taps("fitnet,at", pairs={"stem": "stem", "stage1": "stage2"})
    assert named.parts == {"fitnet": (0, 1), "at": (0, 1)}


def test_the_pair_where_a_classifier_is_reused_is_the_last_and_no_others():
    found = taps("simkd,at")
    assert found.student == (*STAGES, "stage3")
    assert found.parts == {"at": (0, 1, 2), "simkd": (3,)}
