"""One metadata entry for each option: what it changes follows from that, everywhere, also for an option that is new."""

import dataclasses
import itertools
import typing
from dataclasses import dataclass

import pytest
import torch

from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.config_json import config_digest, to_dict
from model_compression.core.config_values import affecting_result, types_of_fields
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.core.optim_config import OptimConfig
from model_compression.core.options import answer_settings, option, setting, speaking_flags
from model_compression.core.run_options import OPTIONS
from model_compression.distillation.teachers.fingerprint import fingerprint
from model_compression.distillation.teachers.live import LiveTeacher
from model_compression.experiments.records import differences
from model_compression.models import create_model
from model_compression.reports.groups import recipe_of


@dataclass(frozen=True, kw_only=True)
class NewData(DataConfig):
    blur: int = option(0, help="a new way to draw views")
    sharpness: int = option(0, help="another, of flips only", needs={"augmentation": ("flip",)})


@dataclass(frozen=True, kw_only=True)
class NewConfig(TrainConfig):
    data: NewData = dataclasses.field(default_factory=NewData)
    noise: float = option(0.0, help="of the teacher's answers", of="teacher")
    inertia: float = option(0.0, help="of the student's training")


BASE = NewConfig(
    student=ModelConfig(name="tiny"),
    teacher=ModelConfig(name="tiny-teacher"),
    method=MethodConfig(name="kd"),
    data=NewData(name="tiny", augmentation="flip", shift=2),
)


@pytest.fixture
def stored(tiny):
    """The fingerprint of the answers to a run of a configuration."""
    live = LiveTeacher([create_model("tiny-teacher", seed=0)], torch.device("cpu"), torch.float32, "none")
    return lambda config: fingerprint(
        live, tiny.data()[0], config.data, config.teacher_cache_dtype, **answer_settings(config, "teacher")
    )


def in_data(**changes):
    return dataclasses.replace(BASE, data=dataclasses.replace(BASE.data, **changes))


def identity(config):
    return config_digest(affecting_result(config))


@pytest.mark.parametrize(
    ("place", "config", "changes_answers"),
    [
        ("data.blur", in_data(blur=3), True),
        ("data.sharpness", in_data(sharpness=3), True),
        ("noise", dataclasses.replace(BASE, noise=0.5), True),
        ("inertia", dataclasses.replace(BASE, inertia=0.5), False),
        ("epochs", dataclasses.replace(BASE, epochs=3), False),
        ("optim.lr", dataclasses.replace(BASE, optim=OptimConfig(lr=0.5)), False),
        ("seed", dataclasses.replace(BASE, seed=3), False),
    ],
)
def test_an_option_of_the_result_makes_another_run_wherever_runs_are_told_apart(place, config, changes_answers, stored):
    assert identity(config) != identity(BASE)
    assert differences(to_dict(BASE), to_dict(config)) == [place]
    own, other = recipe_of(to_dict(BASE)), recipe_of(to_dict(config))
    assert {key for key in other if own.get(key) != other[key]} == {place} - {"seed"}
    assert (stored(config) != stored(BASE)) == changes_answers
    if changes_answers:
        name = place.rpartition(".")[2]
        assert stored(config)[name] in (3, 0.5)


@pytest.mark.parametrize(
    "config",
    [
        in_data(data_dir="elsewhere"),
        in_data(workers=7),
        in_data(resident="off"),
        *(
            dataclasses.replace(BASE, **change)
            for change in (
                {"device": "cuda"},
                {"compile": "off"},
                {"teacher_cache": "elsewhere"},
                {"allow_weak_teacher": True},
                {"tensorboard": True},
                {"wandb": "mine"},
                {"checkpoint_every": 3, "keep_every": 2, "evaluate_every": 1},
            )
        ),
    ],
)
def test_where_data_and_answers_lie_and_what_computes_makes_no_other_run(config, stored):
    assert config != BASE
    assert identity(config) == identity(BASE)
    assert differences(to_dict(BASE), to_dict(config)) == []
    assert recipe_of(to_dict(config)) == recipe_of(to_dict(BASE))
    assert stored(config) == stored(BASE)
    assert affecting_result(BASE, config) == config


def test_an_option_without_effect_is_not_in_the_fingerprint(stored):
    flipped = stored(BASE)
    assert "shift" not in flipped
    assert stored(in_data(augmentation="none", sharpness=3)) == stored(in_data(augmentation="none"))
    assert stored(in_data(augmentation="none"))["augmentation"] == "none"
    assert stored(in_data(augmentation="flip_shift"))["shift"] == 2


def test_views_are_drawn_by_what_the_stores_of_before_have():
    """Else their answers would no longer be found: all of these were written out by hand there."""
    grid = itertools.product(("none", "flip", "flip_shift"), (0, 4), (0, 3), (0.0, 0.2), (0.0, 1.0), (0, 7), (0, 4))
    for augmentation, shift, cutout, mixup, cutmix, seed, views in grid:
        if cutout and augmentation == "none":
            continue
        expected = {"augmentation": augmentation}
        if augmentation == "flip_shift":
            expected["shift"] = shift
        if augmentation != "none":
            expected["cutout"] = cutout
        if augmentation != "none" or mixup or cutmix:
            expected["view_seed"] = seed
        expected |= {"mixup": mixup} if mixup else {}
        expected |= {"cutmix": cutmix} if cutmix else {}
        config = DataConfig(
            augmentation=augmentation, shift=shift, cutout=cutout, mixup=mixup, cutmix=cutmix, view_seed=seed,
            views=views, name="x", data_dir="y", validation=5, image_size=8, unlabelled="folder:z", workers=2,
        )  # fmt: skip
        assert config.drawing == expected


def test_the_digest_of_a_configuration_is_that_of_states_of_before():
    config = TrainConfig(
        student=ModelConfig(name="lenet"),
        teacher=ModelConfig(name="nin", mean=[0.5] * 3, std=[1, 1, 1]),
        method=MethodConfig(name="kd", params={"temperature": 3}),
        data=DataConfig(augmentation="flip_shift", data_dir="x", workers=2, views=4),
        optim=OptimConfig(lr=2e-3),
        epochs=3,
        teacher_cache="y",
        precision="bf16",
    )
    assert identity(config) == "9417c5047db56b4250c3dfd3b1fbaacfce4927669129b9dde34e4c82f69a0647"


@pytest.mark.parametrize("place", [place for place in OPTIONS if OPTIONS[place].help])
def test_helps_are_short_and_name_all_choices(place):
    """Also of those that nobody can type, as they are documentation."""
    said, kind = OPTIONS[place], TrainConfig
    assert len(said.help.split()) <= 14
    *parts, name = place.split(".")
    for part in parts:
        kind = next(
            one for one in (types_of_fields(kind)[part], *typing.get_args(types_of_fields(kind)[part]))
            if dataclasses.is_dataclass(one)
        )  # fmt: skip
    hint = types_of_fields(kind)[name]
    if typing.get_origin(hint) is typing.Literal:
        assert all(choice in said.help for choice in typing.get_args(hint))


def test_errors_carry_the_field_and_name_it_as_its_reader_does():
    for kind, name, value, flag in (
        (DataConfig, "shift", -1, "--shift"),
        (OptimConfig, "step_factor", 0, "--step-factor"),
        (MethodConfig, "warmup", 2, "--method-warmup"),
        (DataConfig, "augmentation", "flop", None),
        (OptimConfig, "lr", "fast", None),
    ):
        base = {"name": "kd"} if kind is MethodConfig else {}
        with pytest.raises(UsageError) as found:
            kind(**base, **{name: value})
        assert found.value.field == name
        assert name in str(found.value)
        if flag:
            with speaking_flags(), pytest.raises(UsageError, match=f"^{flag} must be "):
                kind(**base, **{name: value})


def test_settings_are_named_as_their_reader_types_them():
    assert setting("batch_size") == "batch_size"
    assert setting("batch_size", 64) == "batch_size=64"
    assert setting("precision", "fp32") == "precision='fp32'"
    with speaking_flags():
        assert setting("batch_size") == "--batch-size"
        assert setting("precision", "fp32") == "--precision fp32"
        assert setting("teacher_mean", [0.5, 1]) == "--teacher-mean 0.5,1"
        assert setting("run_dir", flag="out") == "--out"
    assert setting("batch_size") == "batch_size"
