"""Fingerprints: they change with all that answers depend on, with nothing else, and say what differs."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from model_compression.core.data_config import DataConfig
from model_compression.distillation.teachers.fingerprint import differences, fingerprint
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.models import Preprocessing, create_model
from model_compression.models.base import seeded
from model_compression.models.external import External

CPU = torch.device("cpu")
DATA = DataConfig(name="tiny", augmentation="flip_shift", shift=2, views=4)


def identity(dataset, *models, data=DATA, precision=torch.float32, tta="none", dtype="fp16"):
    live = LiveTeacher(models or [create_model("tiny-teacher", seed=0)], CPU, precision, tta)
    return fingerprint(live, dataset, data, dtype)


def test_fingerprint_changes_with_all_that_answers_depend_on(tiny):
    train, test = tiny.data()
    base = identity(train)
    assert identity(train) == base
    same, moved, imaged, nudged = (create_model("tiny-teacher", seed=0) for _ in range(4))
    moved.preprocessing = Preprocessing(mean=(0.1, 0.1, 0.1))
    imaged.preprocessing = Preprocessing(mean_image=torch.ones(3, 8, 8))
    with torch.no_grad():
        nudged.ip1.bias[0] += 1e-6
    others = [
        identity(test),
        *(identity(train, model) for model in (moved, imaged, nudged, create_model("tiny-teacher", seed=1))),
        identity(train, same, nudged),
        identity(train, precision=torch.bfloat16),
        identity(train, tta="flip"),
        identity(train, dtype="fp32"),
        *(
            identity(train, data=dataclasses.replace(DATA, **change))
            for change in (
                {"augmentation": "flip"},
                {"augmentation": "none"},
                {"shift": 1},
                {"cutout": 2},
                {"view_seed": 1},
                {"mixup": 0.2},
                {"cutmix": 0.2},
                {"augmentation": "none", "mixup": 0.2},
                {"augmentation": "none", "mixup": 0.2, "view_seed": 1},
            )
        ),
    ]
    assert len({json.dumps(other, sort_keys=True) for other in [base, *others]}) == len(others) + 1
    assert all(differences(base, other) for other in others)


class Own(nn.Module):
    """A user's network, with what no weight tells."""

    def __init__(self, slope=0.01, scale=1.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.LeakyReLU(slope), nn.Linear(8, 3))
        self.scale = scale

    def forward(self, images):
        return self.scale * self.layers(images)


def test_fingerprint_tells_own_networks_apart_that_have_the_same_weights(tiny):
    train, _ = tiny.data()
    prints = []
    for options in ({}, {"slope": 0.2}, {"scale": 1.08}):
        with seeded(0):
            network = External(Own(**options))
        prints.append(identity(train, network))
        assert identity(train, network) == prints[-1]
    assert prints[0] != prints[1] != prints[2] != prints[0]
    assert len({found["networks"][0]["weights_sha256"] for found in prints}) == 1


def test_fingerprint_does_not_change_with_what_answers_do_not_depend_on(tiny):
    train, _ = tiny.data()
    for change in ({"views": 9}, {"data_dir": "elsewhere"}, {"validation": 5}, {"name": "copy"}):
        assert identity(train, data=dataclasses.replace(DATA, **change)) == identity(train)
    still = dataclasses.replace(DATA, augmentation="none")
    assert identity(train, data=dataclasses.replace(still, shift=1, view_seed=4)) == identity(train, data=still)
    flip = dataclasses.replace(DATA, augmentation="flip")
    assert identity(train, data=dataclasses.replace(flip, shift=1)) == identity(train, data=flip)


@pytest.mark.parametrize(
    ("stored", "wanted", "lines"),
    [
        ({"a": 1, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [1, 2]}}, []),
        ({"shift": 4}, {"shift": 2}, ["shift is 4 there, 2 here"]),
        ({"b": {"c": [1, 2]}}, {"b": {"c": [1, 3]}}, ["b.c.1 is 2 there, 3 here"]),
        ({"n": [1]}, {"n": [1, 2]}, ["n are 1 there, 2 here"]),
        ({}, {"d": "x" * 64}, ["d is missing there, xxxxxxxxxxxx… here"]),
    ],
)
def test_differences_name_the_place_and_both_values(stored, wanted, lines):
    assert differences(stored, wanted) == lines
