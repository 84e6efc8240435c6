"""Every configuration refuses values of a wrong type when it is constructed, and survives JSON if it is constructed."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import model_compression as mc
from model_compression.compression.config import Budget, CompressConfig, PruneConfig, QuantizeConfig
from model_compression.compression.prune import prune
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.config_json import from_json, to_dict, to_json
from model_compression.core.config_values import Config, types_of_fields
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.optim_config import OptimConfig
from model_compression.core.table_config import TableConfig
from model_compression.experiments.schemes import SchemeConfig

LENET, KD = ModelConfig(name="lenet"), MethodConfig(name="kd")
RUN = TrainConfig(student=LENET, teacher=LENET, method=KD)
# Each configuration with what it needs; those of new subclasses are missed by the test below.
GOOD = {
    Budget: {},
    CompressConfig: {"run": RUN, "budget": Budget()},
    DataConfig: {},
    MethodConfig: {"name": "kd"},
    ModelConfig: {"name": "lenet"},
    OptimConfig: {},
    PruneConfig: {"model": "runs/a", "run": RUN, "share": 0.5},
    QuantizeConfig: {"model": "runs/a", "run": RUN},
    TableConfig: {},
    SchemeConfig: {"scheme": "self", "run": RUN, "generations": 2},
    TrainConfig: {"student": LENET},
}
FIELDS = [(kind, name) for kind in GOOD for name in types_of_fields(kind)]
NAMES = [f"{kind.__name__}.{name}" for kind, name in FIELDS]


def test_every_configuration_is_tried_here():
    def parts_of(kind):
        return [one for one in kind.__subclasses__() if one.__module__.startswith("model_compression.")]

    whole = {kind for base in parts_of(Config) for kind in parts_of(base) or [base]}
    assert whole == set(GOOD)


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=NAMES)
def test_values_of_no_type_that_json_has_are_refused(kind, name):
    for value in (object(), {1, 2}, 1j, b"lenet", len, torch.float32):
        with pytest.raises(UsageError, match=rf"^{name} must be "):
            kind(**{**GOOD[kind], name: value})


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=NAMES)
def test_whatever_is_constructed_survives_json(kind, name):
    values = (
        *(
            None,
            True,
            False,
            -1,
            0,
            1,
            2,
            1.5,
            "",
            "x",
            "auto",
            [],
            {},
            {"a": 1},
            [1, 2],
            (1, 2),
            [[1]],
            {"a": {"b": ()}},
        ),
        *(
            np.int64(3),
            np.float32(0.5),
            np.bool_(True),
            np.array([1, 2]),
            np.array(0.5),
            torch.tensor([0.5]),
            Path("x"),
        ),
        *(10**20, 10**400, -(10**5000), 2**63 - 1, float("nan"), float("inf"), "\0", "\udcff", "é", "\x1b[31m"),
        *(
            {1: 2},
            {"a": float("nan")},
            {"a": np.int32(1)},
            {"a": Path("b")},
            {"a": object()},
            LENET,
            to_dict(LENET),
            KD,
            RUN,
        ),
    )
    lengths = []
    for value in values:
        try:
            config = kind(**{**GOOD[kind], name: value})
        except UsageError as error:
            lengths.append(len(str(error)))
            continue
        assert from_json(kind, to_json(config)) == config
        json.loads(to_json(config), parse_constant=pytest.fail)  # of NaN, which JSON does not have
        assert type(getattr(config, name)) in (*(type(None), bool, int, float, str, list, dict), *GOOD)
    assert max(lengths) < 500


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TrainConfig, {"batch_size": 1.5}, "batch_size must be an integer, got 1.5"),
        (TrainConfig, {"epochs": True}, "epochs must be an integer, got True"),
        (TrainConfig, {"epochs": 10**20}, "epochs must be an integer of 64 bits, got one beyond 9.2e18"),
        (
            TrainConfig,
            {"data": "synthetic"},
            "data must be a DataConfig, as DataConfig(name='synthetic'), got the text",
        ),
        (TrainConfig, {"data": 3}, "data must be a DataConfig, or a dictionary of its fields, got 3"),
        (TrainConfig, {"data": {"views": 1.5}}, "data.views must be an integer, got 1.5"),
        (
            TrainConfig,
            {"student": KD},
            "student must be a ModelConfig, or a dictionary of its fields, got MethodConfig(",
        ),
        (DataConfig, {"views": 1.5}, "views must be an integer, got 1.5"),
        (DataConfig, {"views": np.float64(2)}, "views must be an integer, got np.float64(2.0)"),
        (OptimConfig, {"lr": "x"}, "lr must be a number, got 'x'"),
        (OptimConfig, {"lr": float("nan")}, "lr must be a finite number, got nan"),
        (ModelConfig, {"mean": "0.5"}, "mean must be a list, got '0.5'"),
        (
            ModelConfig,
            {"size": [32, 0]},
            "size of lenet must be (height, width), each from 1 to 16384 pixels, got [32, 0]",
        ),
        (ModelConfig, {"size": [32.5, 32]}, "entry 0 of size must be an integer, got 32.5"),
        (ModelConfig, {"name": "a\0b"}, r"name must be text without NUL characters, got 'a\x00b'"),
        (
            ModelConfig,
            {"options": {"dtype": torch.float32}},
            "options.dtype must be what JSON can hold (numbers, text, lists, ",
        ),
        (MethodConfig, {"pairs": {"conv1": 3}}, "pairs.conv1 must be text, got 3"),
    ],
)
def test_errors_say_what_was_expected_and_received(kind, values, message):
    with pytest.raises(UsageError) as error:
        kind(**{**GOOD[kind], **values})
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mc.create_method(None), "name must be text, got None"),
        (lambda: mc.create_model("lenet", seed=10**20), "seed must be an integer of 64 bits or None, got 1"),
        (lambda: mc.create_model("lenet", seed=True), "seed must be an integer of 64 bits or None, got True"),
        (lambda: mc.load_model(3), "name must be text or a Path, got 3"),
        (lambda: mc.start_run({"student": "lenet"}, "new"), "config must be a TrainConfig, got {'student': 'lenet'}"),
        (lambda: mc.resume_run("nosuch", object()), "observer must be an Observer or None, got <object object"),
        (lambda: mc.resume_run("nosuch", lr=float("nan")), "lr must be a finite number or None, got nan"),
        (lambda: mc.run_scheme(None, "new"), "config must be a SchemeConfig, got None"),
        (lambda: mc.Tapped(len), "model must be a Module, got <built-in function len>"),
        (
            lambda: mc.Tapped(torch.nn.Identity(), "conv1"),
            "features must be a list or tuple of texts, got 'conv1'",
        ),
        (lambda: mc.load_cifar10(report=3), "report must be a function, got 3"),
        (lambda: prune(3, "new"), "config must be a PruneConfig, got 3"),
    ],
)
def test_public_functions_refuse_arguments_of_another_type(call, message):
    with pytest.raises(UsageError) as error:
        call()
    assert str(error.value).startswith(message)


def test_numpys_integers_are_seeds():
    one, other = (mc.create_model("resnet8", seed=seed) for seed in (np.int64(3), 3))
    assert torch.equal(next(one.parameters()), next(other.parameters()))


def test_values_are_stored_as_json_gives_them_back():
    config = TrainConfig(
        student={
            "name": Path("runs/a"),
            "mean": (1, np.float64(0.5), 0),
            "std": np.ones(3),
            "size": (np.int64(32), 32),
        },
        epochs=np.int32(3),
        optim=OptimConfig(lr=1),
        tensorboard=np.bool_(True),
    )
    student = ModelConfig(name="runs/a", mean=[1.0, 0.5, 0.0], std=[1.0, 1.0, 1.0], size=[32, 32])
    assert config == TrainConfig(student=student, epochs=3, optim=OptimConfig(lr=1.0), tensorboard=True)
    kinds = (type(config.epochs), type(config.optim.lr), type(config.tensorboard), type(config.student.size[0]))
    assert kinds == (int, float, bool, int)


def test_a_configuration_does_not_change_with_the_dictionary_it_was_made_of():
    options = {"widths": [8, 8, 8]}
    config = ModelConfig(name="whitening-cnn", options=options)
    options["widths"].append(1)
    assert config.options == {"widths": [8, 8, 8]}
    assert dataclasses.replace(config, name="lenet").options == config.options
