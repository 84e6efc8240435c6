"""create_model: deterministic for a seed, silent towards global random state, clear about what it does not know."""

import pytest
import torch

from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.distillation.methods import METHODS
from model_compression.models import MODELS, create_model

SMALL = ["lenet-caffe", "nin", "nin-bn", "whitening-cnn"]


@pytest.mark.parametrize("name", SMALL)
def test_create_model_is_a_function_of_the_seed(name):
    states = [create_model(name, seed=seed).state_dict() for seed in (4, 4, 5)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize("name", SMALL)
def test_create_model_with_a_seed_leaves_the_global_generator_alone(name):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    create_model(name, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    create_model(name)
    assert not torch.equal(torch.get_rng_state(), before)  # without a seed it draws from it


def test_create_model_with_a_seed_does_not_depend_on_what_was_drawn_before():
    first = create_model("lenet-caffe", seed=3)
    torch.rand(5)
    second = create_model("lenet-caffe", seed=3)
    assert torch.equal(first.ip2.weight, second.ip2.weight)


def test_create_model_remembers_name_and_options():
    model = create_model("lenet-caffe", num_classes=4, init="historic")
    assert (model.name, model.options) == ("lenet-caffe", {"num_classes": 4, "init": "historic"})
    assert model.deployed() is model


def test_create_model_lists_near_matches():
    with pytest.raises(UnknownNameError, match="unknown model 'lennet'; did you mean 'lenet"):
        create_model("lennet")
    with pytest.raises(UnknownNameError, match="unknown option of model 'nin': 'drop_out'; did you mean 'dropout'"):
        create_model("nin", drop_out=0.1)
    with pytest.raises(UnknownNameError, match="unknown option of model 'nin': 'name'"):
        create_model("nin", **{"name": "x"})


def test_create_model_names_model_and_options_when_a_type_is_wrong():
    with pytest.raises(UsageError, match=r"model 'nin' cannot be built with options {'dropout': 'half'}: "):
        create_model("nin", dropout="half")


def test_registries_hold_what_the_project_promises():
    assert {"lenet", "lenet-caffe", "nin", "nin-bn", "nin-ip", "whitening-cnn"} <= set(MODELS)
    assert {"logits", "noisy_teacher", "kd"} <= set(METHODS)
