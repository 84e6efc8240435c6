"""The recipe of a run that names none: what it chooses for which data and network, and what the user gave stays."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import model_compression as mc
from model_compression.cli import compare_methods
from model_compression.cli.distill import distill_config
from model_compression.cli.main import parser_of
from model_compression.cli.search import search_config
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.errors import RunFolderError
from model_compression.core.run_options import LEFT_OPEN, value_at, with_settings
from model_compression.data.dataset import Dataset
from model_compression.engine.default_recipe import settle
from model_compression.engine.observer import Silent
from model_compression.engine.parts import Parts
from model_compression.engine.run_folder import RunFolder
from model_compression.engine.runs import check_same
from model_compression.engine.setup import prepare
from model_compression.engine.training import Training
from model_compression.experiments.records import differences


def _images(shape=(3, 32, 32), count=300, names=("cat", "dog"), targets=None, grey=False, **fields) -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % len(names) if targets is None else targets
    samples = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return Dataset(
        name="some", samples=samples[:, [0, 0, 0]] if grey else samples, labels=labels, class_names=names,
        mean=(0.5,) * shape[0], std=(0.25,) * shape[0], **fields,
    )  # fmt: skip


def _chosen(data: Dataset, student: str = "resnet8", module: nn.Module | None = None, **settings) -> TrainConfig:
    config = with_settings(_open(student), settings)
    return prepare(config, Silent(), Parts(student=module, data=(data, data))).config


def _open(student: str = "resnet8") -> TrainConfig:
    return TrainConfig(student=ModelConfig(name=student), left_open=[*LEFT_OPEN], precision="fp32", compile="off")


def test_what_is_given_stays_and_the_rest_is_chosen():
    config = _chosen(_images(), lr=0.5, augmentation="none")
    assert (config.optim.lr, config.data.augmentation) == (0.5, "none")
    assert (config.optim.optimizer, config.optim.schedule, config.batch_size) == ("adamw", "one_cycle", 32)
    assert config.left_open == []
    assert _chosen(_images(), batch_size=128).optim.lr == 2 * _chosen(_images(), batch_size=32).optim.lr
    assert _chosen(_images(), warmup_epochs=2).optim.schedule == "cosine"  # which the warm-up belongs to


def test_nothing_is_chosen_where_nothing_is_open():
    config = TrainConfig(student=ModelConfig(name="resnet8"), precision="fp32")
    assert prepare(config, Silent(), Parts(data=(_images(),) * 2)).config == config


_NONE: dict = {"names": (), "task": "regression", "targets": np.zeros((40, 1), np.float32)}
_SEVERAL: dict = {"task": "multi-label", "targets": np.eye(2, dtype=np.float32)[np.arange(40) % 2]}


@pytest.mark.parametrize(
    ("images", "augmentation", "shift"),
    [
        ({}, "flip_shift", 4),
        ({"shape": (3, 48, 64)}, "flip_shift", 6),
        ({"shape": (1, 28, 28)}, "shift", 3),  # digits are not mirrored
        ({"shape": (1, 8, 8)}, "shift", 1),
        ({"grey": True}, "shift", 4),
        ({"shape": (3, 6, 60)}, "flip", None),  # a pixel is much of it
        ({"shape": (1, 6, 6)}, "none", None),
        ({"names": ("Turn left", "turn right")}, "shift", 4),
        ({"names": ("leftover", "bright")}, "flip_shift", 4),
        ({"shape": (3, 96, 96)}, "photo", None),
        (_NONE, "none", None),
        (_SEVERAL, "flip_shift", 4),
    ],
    ids=[
        "photographs",
        "oblong",
        "grey",
        "tiny",
        "grey as RGB",
        "flat",
        "tiny and grey",
        "sides",
        "no sides",
        "large",
        "regression",
        "several",
    ],
)
def test_augmentation_suits_the_images(images, augmentation, shift):
    data = settle(_open(), nn.Linear(1, 1), _images(**{"count": 40, **images}), taught=False).data
    assert (data.augmentation, data.views) == (augmentation, 0)
    assert shift is None or data.shift == shift


@pytest.mark.parametrize(("count", "size"), [(40, 32), (6_400, 64), (60_000, 128)])
def test_batches_give_an_epoch_steps(count, size):
    images = _images((1, 8, 8), count=64)
    many = dataclasses.replace(
        images,
        samples=np.broadcast_to(images.images[:1], (count, 1, 8, 8)),
        labels=np.arange(count) % 2,
        digest="0" * 64,
    )
    chosen = settle(_open(), nn.Linear(1, 1), many, taught=False)  # type: ignore[arg-type]
    assert chosen.batch_size == size


def test_pretrained_networks_learn_slowly_and_attention_slower_than_convolutions(tmp_path):
    data = _images(count=64)
    fresh = _chosen(data, batch_size=128).optim.lr
    seen = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(3600, 2))
    assert _chosen(data, module=seen, batch_size=128).optim.lr == fresh
    seen(torch.rand(4, 3, 32, 32))
    trained = _chosen(data, module=seen, batch_size=128).optim.lr
    attends = nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(1024, 2, 8, batch_first=True), nn.Flatten())
    attends.append(nn.Linear(3072, 2))
    assert trained < _chosen(data, module=attends, batch_size=128).optim.lr < fresh
    Training(_open(), tmp_path / "run", parts=Parts(data=(data, data))).finish()
    assert _chosen(data, student=str(tmp_path / "run"), batch_size=128).optim.lr == trained


def test_a_long_taught_run_has_views_that_can_be_stored():
    config = dataclasses.replace(
        _open(), epochs=20, teacher=ModelConfig(name="resnet8"), method=MethodConfig(name="kd"), teacher_cache="off",
        allow_weak_teacher=True,
    )  # fmt: skip
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))
    for epochs, views in ((20, 16), (12, 0)):
        parts = Parts(teacher=teacher, data=(_images(), _images()))
        assert prepare(dataclasses.replace(config, epochs=epochs), Silent(), parts).config.data.views == views


def test_a_run_keeps_what_it_chose_and_is_the_same_run_when_asked_for_again(tmp_path):
    config = with_settings(_open("lenet"), {"epochs": 1})
    parts = Parts(data=(_images(),) * 2)
    Training(config, tmp_path / "run", parts=parts).finish()
    recorded = RunFolder(tmp_path / "run").read_config()
    assert recorded.left_open == []
    assert value_at(recorded, "optim.optimizer") == "adamw"
    check_same(tmp_path / "run", config)
    assert differences(dataclasses.asdict(recorded), dataclasses.asdict(config)) == []
    with pytest.raises(RunFolderError, match=r"optim\.lr 0\.002 there, 0\.5 here"):
        check_same(tmp_path / "run", with_settings(config, {"lr": 0.5}))


def test_numbers_are_learnt_by_regression_where_no_method_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _table_of_numbers(tmp_path)
    images, numbers = _images((3, 8, 8), count=8).samples, np.linspace(0.5, 4, 8)
    common = {"epochs": 1, "precision": "fp32", "allow_weak_teacher": True}
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    taught = mc.distill(teacher, "resnet8", (images, numbers, images, numbers), run_dir="arrays", **common)
    assert RunFolder(taught.run_dir).read_config().method == MethodConfig(name="logits")
    for command, configured in (("distill", distill_config), ("search", search_config)):
        typed = parser_of(command)[1].parse_args(["--data", "csv:t.csv", "--teacher", "arrays"])
        assert configured(typed).method == MethodConfig(name="logits")
    compared = []
    for chosen in ([], ["--methods", "all"]):
        typed = parser_of("compare-methods")[1].parse_args(["--data", "csv:t.csv", "--teacher", "arrays", *chosen])
        compared.append({method.name for method in compare_methods._methods(typed, compare_methods._base(typed))})
    assert compared[0] == {"logits", "bound"}
    assert compared[1] >= compared[0] | {"fitnet"}
    assert not compared[1] & {"kd", "dkd", "wsld"}


def _table_of_numbers(folder):
    for number in range(8):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    (folder / "t.csv").write_text("path,kg\n" + "".join(f"{number}.png,{number / 2 + 0.25}\n" for number in range(8)))


def test_images_of_shift_are_moved_and_never_mirrored():
    from model_compression.data.augment import apply_plan, sample_plan

    ids = torch.arange(64)
    plan = sample_plan("shift", ids, view_seed=0, view=1, shift=2)
    both = sample_plan("flip_shift", ids, view_seed=0, view=1, shift=2)
    assert plan is not None
    assert both is not None
    assert plan.shift is not None
    assert torch.equal(plan.shift, both.shift)  # type: ignore[arg-type]
    ramp = torch.arange(16).expand(64, 1, 16, 16)
    moved = apply_plan(ramp, plan)[:, 0, 8, 3:13]
    assert (moved.diff(dim=1) == 1).all()
    assert len(moved[:, 0].unique()) == 5
