"""Which dataset a command means."""

import argparse

import pytest

from model_compression.cli.run_data import data_of
from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.config_json import to_json
from model_compression.core.data_config import DataConfig


@pytest.fixture
def run(tmp_path):
    data = DataConfig(name="folder:photos", image_size=32, crop_share=0.9, validation=5, augmentation="flip")
    folder = tmp_path / "pruned" / "final"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(TrainConfig(student=ModelConfig(name="lenet"), data=data)))
    return folder


def asked(model, **options):
    given = dict.fromkeys(("data", "image_size", "fit", "crop_share", "data_dir")) | options
    return data_of(argparse.Namespace(model=str(model), **given))


def test_data_are_those_of_the_run_unless_others_are_named(run):
    own = DataConfig(name="folder:photos", image_size=32, crop_share=0.9)
    for model in (run, run / "student.safetensors", run.parent):
        assert asked(model) == own
    other = DataConfig(name="folder:photos", image_size=64, fit="pad", crop_share=1.0)
    assert asked(run, image_size=64, fit="pad", crop_share=1.0) == other
    assert asked(run, data="cifar100") == DataConfig(name="cifar100")
    assert asked("lenet-cifar10") == DataConfig(name="cifar10")
