"""Configurations: exact round trips, and what is said about keys, types and values that cannot be."""

import dataclasses
import json

import pytest

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.config_json import from_json, given_values, to_dict, to_json
from model_compression.core.config_values import from_dict
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UnknownNameError, UsageError
from model_compression.core.optim_config import OptimConfig
from model_compression.experiments.recipes import RECIPES, classic_protocol, demo_pair, modern_protocol, views_protocol

PLAIN = {"student": {"name": "lenet"}}


def all_recipes():
    configs = {name: RECIPES.create(name).config for name in RECIPES}
    configs |= classic_protocol(teacher="nin-cifar10", epochs=100, seed=3)
    configs |= {f"modern-{arm}": c for arm, c in modern_protocol(teacher="nin", epochs=20, seed=1).items()}
    configs |= {f"views-{arm}": c for arm, c in views_protocol(teacher="nin", epochs=20, seed=1).items()}
    configs |= {f"demo-{arm}": c for arm, c in demo_pair(teacher="nin", epochs=2, data=DataConfig()).items()}
    return configs


@pytest.mark.parametrize(("name", "config"), all_recipes().items(), ids=all_recipes())
def test_config_round_trip_is_exact_for_every_recipe(name, config):
    text = to_json(config)
    again = from_json(TrainConfig, text)
    assert again == config
    assert to_json(again) == text
    assert json.loads(text)["student"]["name"] == config.student.name
    for section in (config.data, config.optim, config.student):
        assert from_dict(type(section), to_dict(section)) == section


def test_arms_of_the_modern_experiment_differ_in_how_they_are_taught_alone():
    arms = modern_protocol(teacher="nin", epochs=20, seed=1)
    for config in arms.values():
        data = dataclasses.replace(config.data, views=0)
        assert dataclasses.replace(config, data=data, teacher=None, method=None) == arms["labels"]
    assert {arm: config.data.views for arm, config in arms.items() if config.method} == dict.fromkeys(
        ("logits", "noisy_teacher", "kd"), 16
    )


def test_recipes_train_teachers_without_label_smoothing():
    for name in RECIPES:
        recipe = RECIPES.create(name)
        assert recipe.config.label_smoothing == 0
        assert recipe.config.data.validation == 0  # a final run trains on all images
        assert "test accuracy" in recipe.expect


def test_config_keeps_floats_to_the_bit():
    config = TrainConfig(student=ModelConfig(name="lenet"), optim=OptimConfig(lr=0.1 + 0.2, step_factor=1 / 3))
    assert from_json(TrainConfig, to_json(config)).optim == config.optim


def test_config_takes_an_integer_where_a_float_is_meant():
    config = from_dict(TrainConfig, {**PLAIN, "ema": 0, "optim": {"lr": 1}})
    assert (config.optim.lr, type(config.optim.lr), type(config.ema)) == (1.0, float, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**PLAIN, "epoch": 3}, r"config: unknown key 'epoch'; did you mean 'epochs'"),
        ({**PLAIN, "optim": {"learning_rate": 1}}, r"config.optim: unknown key 'learning_rate'"),
        ({"student": {"nmae": "lenet"}}, r"config.student: unknown key 'nmae'; did you mean 'name'\?"),
        ({}, "config: the key 'student' is missing"),
        ({**PLAIN, "teacher": {}}, r"config.teacher: the key 'name' is missing"),
        ({**PLAIN, "epochs": "3"}, r"config.epochs must be an integer, got '3'"),
        ({**PLAIN, "epochs": 2.5}, r"config.epochs must be an integer, got 2.5"),
        ({**PLAIN, "epochs": True}, r"config.epochs must be an integer, got True"),
        ({**PLAIN, "epochs": None}, r"config.epochs must be an integer, got None"),
        ({**PLAIN, "ema": "0.9"}, r"config.ema must be a number, got '0.9'"),
        ({**PLAIN, "ema": 10**400}, r"config.ema must be a number below 1e308"),
        ({**PLAIN, "ema": True}, r"config.ema must be a number, got True"),
        ({**PLAIN, "tensorboard": 1}, r"config.tensorboard must be true or false, got 1"),
        ({**PLAIN, "precision": 16}, r"config.precision must be text, got 16"),
        ({**PLAIN, "data": []}, r"config.data must be a DataConfig, or a dictionary of its fields, got \[\]"),
        (
            {"student": "lenet"},
            r"config.student must be a ModelConfig, as ModelConfig\(name='lenet'\), got the text alone",
        ),
        ({"student": {"name": "lenet", "options": [1]}}, r"config.student.options must be a dictionary, got \[1\]"),
        ([], "config: expected an object with keys, got list"),
    ],
)
def test_config_says_which_key_is_wrong(values, message):
    with pytest.raises(UsageError, match=message):
        from_dict(TrainConfig, values)


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000, "1" * 5000])
def test_config_refuses_text_that_is_not_json(text):
    with pytest.raises(UsageError, match=r"run.json is not JSON"):
        from_json(TrainConfig, text, "run.json")


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (TrainConfig, "epochs", [-1]),
        (TrainConfig, "batch_size", [0]),
        (TrainConfig, "seed", [-1, 2**63]),
        (TrainConfig, "label_smoothing", [-0.1, 1.1, NAN]),
        (TrainConfig, "ema", [-0.1, 1.0, NAN]),
        (TrainConfig, "evaluate_every", [-1]),
        (TrainConfig, "checkpoint_every", [0]),
        (TrainConfig, "keep_every", [-1]),
        (DataConfig, "shift", [-1]),
        (DataConfig, "views", [-1]),
        (DataConfig, "view_seed", [-1, 2**63]),
        (DataConfig, "validation", [-5]),
        (OptimConfig, "lr", [0, -1e-3, 10**400, NAN, INFINITY, "fast", True, None]),
        (OptimConfig, "weight_decay", [-1e-4, NAN, INFINITY]),
        (OptimConfig, "momentum", [-0.1, 1.5, NAN]),
        (OptimConfig, "bias_lr_scale", [0, INFINITY]),
        (OptimConfig, "step_at", [-0.1, 1.1]),
        (OptimConfig, "step_factor", [0, -1]),
        (OptimConfig, "warmup", [-0.1, 1.1]),
        (OptimConfig, "warmup_epochs", [-1]),
        (OptimConfig, "clip_grad_norm", [-0.1]),
        (OptimConfig, "layer_decay", [0, 1.1]),
        (OptimConfig, "backbone_lr_scale", [0]),
        (MethodConfig, "label_weight", [-1, NAN, INFINITY, "much"]),
    ],
)
def test_config_refuses_impossible_values(kind, name, values):
    base = {TrainConfig: {"student": ModelConfig(name="lenet")}, MethodConfig: {"name": "kd"}}.get(kind, {})
    for value in values:
        with pytest.raises(UsageError, match=f"{name} must"):
            kind(**base, **{name: value})


@pytest.mark.parametrize("weight", [-0.5, NAN, INFINITY, "half", None, True])
def test_config_refuses_impossible_weights_of_terms(weight):
    with pytest.raises(UsageError, match=r"weights\.kd must be"):
        MethodConfig(name="kd", weights={"kd": weight})


@pytest.mark.parametrize(
    ("kind", "name", "value", "near"),
    [
        (DataConfig, "augmentation", "flip-shift", "flip_shift"),
        (OptimConfig, "optimizer", "adamW", "adamw"),
        (OptimConfig, "schedule", "onecycle", "one_cycle"),
        (TrainConfig, "precision", "fp17", "fp16"),
    ],
)
def test_config_lists_near_matches_of_unknown_choices(kind, name, value, near):
    base = {"student": ModelConfig(name="lenet")} if kind is TrainConfig else {}
    with pytest.raises(UnknownNameError, match=f"unknown {name} '{value}'; did you mean .*'{near}'"):
        kind(**base, **{name: value})


def test_config_wants_a_method_for_a_teacher_and_for_peers():
    student, method = ModelConfig(name="lenet"), MethodConfig(name="kd")
    with pytest.raises(UsageError, match="a teacher needs a method: give both, or neither to train on labels"):
        TrainConfig(student=student, teacher=student)
    for others in ({}, {"teacher": student, "method": method}):
        with pytest.raises(UsageError, match="peers teach each other: they need a method, and no teacher beside them"):
            TrainConfig(student=student, peers=student, **others)
    config = TrainConfig(
        student=student, method=method, peers=ModelConfig(name="nin,lenet", options={"num_classes": 3})
    )
    assert from_json(TrainConfig, to_json(config)) == config


def test_config_is_checked_again_when_a_part_is_replaced():
    config = TrainConfig(student=ModelConfig(name="lenet"))
    assert dataclasses.replace(config, epochs=3).epochs == 3
    assert config.epochs == 30
    with pytest.raises(UsageError, match="epochs must be at least 0, got -1"):
        dataclasses.replace(config, epochs=-1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.epochs = 5
    with pytest.raises(TypeError):
        TrainConfig(ModelConfig(name="lenet"))


def test_given_values_are_what_is_not_default():
    config = TrainConfig(student=ModelConfig(name="lenet"), data=DataConfig(shift=2), optim=OptimConfig(), epochs=5)
    assert given_values(config) == {"student": {"name": "lenet"}, "data": {"shift": 2}, "epochs": 5}
    assert from_dict(TrainConfig, given_values(config)) == config
