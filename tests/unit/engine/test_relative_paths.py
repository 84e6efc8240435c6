"""A run is used from any folder, also when the project has moved."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from model_compression.cli.main import main
from model_compression.core.config import MethodConfig, ModelConfig, TrainConfig
from model_compression.core.data_config import DataConfig
from model_compression.engine.relative_paths import anchor, record_origin


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    for part, count in (("train", 8), ("test", 4)):
        for number in range(count):
            for name, level in (("dark", 40), ("light", 200)):
                pixels = np.full((8, 8, 3), level + number, dtype=np.uint8)
                path = folder / "photos" / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    monkeypatch.chdir(folder)
    return folder


def test_paths_are_those_of_the_working_folder_of_the_start(project, tmp_path, monkeypatch):
    run = project / "runs" / "a"
    run.mkdir(parents=True)
    for name in ("teacher.safetensors", "own.pt", "resnet8", "my-vit"):
        (project / name).touch()
    record_origin(run)
    config = TrainConfig(
        student=ModelConfig(name="resnet8", weights="own.pt#ema"),
        teacher=ModelConfig(name="teacher.safetensors,hf:my-vit,nin-cifar10,timm:resnet18"),
        method=MethodConfig(name="kd"),
        data=DataConfig(name="folder:photos", data_dir="elsewhere"),
    )
    assert anchor(config, run) == config
    monkeypatch.chdir(tmp_path)
    found = anchor(config, run)
    assert found.student == ModelConfig(name="resnet8", weights=f"{project}/own.pt#ema")
    assert found.teacher.name == f"{project}/teacher.safetensors,hf:{project}/my-vit,nin-cifar10,timm:resnet18"
    assert (found.data.name, found.data.data_dir) == (f"folder:{project}/photos", "elsewhere")
    for path in ("photos", "photos/{train,val}-*.tar", "photos/0.tar"):
        shards = dataclasses.replace(config, data=DataConfig(name=f"tar:{path}"))
        assert anchor(shards, run).data.name == f"tar:{project}/{path}"


TRAIN = ["train", "--data", "folder:photos", "--student", "lenet-caffe", "--image-size", "32", "--batch-size", "8"]


@pytest.mark.slow
def test_runs_are_tested_resumed_and_repeated_from_another_folder(project, tmp_path, monkeypatch, capsys):
    from model_compression.engine.console_observer import ConsoleObserver

    assert main([*TRAIN, "--epochs", "2", "--out", "runs/whole"]) == 0
    with monkeypatch.context() as patch:

        def stop(self, event):
            if event["epoch"] == 1:
                raise KeyboardInterrupt

        patch.setattr(ConsoleObserver, "epoch_done", stop)
        assert main([*TRAIN, "--epochs", "2", "--out", "runs/stopped"]) == 130
    moved = tmp_path / "moved"
    shutil.move(project, moved)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    capsys.readouterr()
    assert main(["test", "--model", "../moved/runs/whole", "--json"]) == 0
    assert main(["resume", "../moved/runs/stopped"]) == 0
    one, other = (moved / "runs" / name / "student.safetensors" for name in ("whole", "stopped"))
    assert one.read_bytes() == other.read_bytes()
    assert main(["train", "--config", "../moved/runs/whole/config.json", "--out", "again"]) == 0
    assert (tmp_path / "other" / "again" / "student.safetensors").read_bytes() == one.read_bytes()
