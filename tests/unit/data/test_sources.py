"""The registry of datasets."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UnknownNameError
from model_compression.data.cifar import load_cifar10
from model_compression.data.sources import DATASETS, stated_task


def test_datasets_lists_the_names():
    assert DATASETS.names() == ["cifar10", "cifar100", "synthetic"]


@pytest.mark.parametrize("name", DATASETS.names())
def test_every_loader_takes_the_same_arguments(name):
    assert list(inspect.signature(DATASETS.get(name)).parameters) == list(inspect.signature(load_cifar10).parameters)


def test_datasets_create_loads_by_name(tmp_path):
    train, test = DATASETS.create("synthetic", data_dir=tmp_path, report=pytest.fail, allow_download=False)
    assert (train.name, test.name) == ("synthetic", "synthetic-test")
    assert list(tmp_path.iterdir()) == []


def test_datasets_create_passes_its_arguments_on(tiny, tmp_path):
    train, _ = DATASETS.create("cifar10", data_dir=tiny.folder(tmp_path / "mine", "bin"), allow_download=False)
    assert len(train) == 20


def test_datasets_hints_at_a_name_that_was_misspelt():
    with pytest.raises(UnknownNameError, match="did you mean 'cifar10'"):
        DATASETS.create("cifar-10")


@pytest.mark.parametrize(
    ("files", "name", "task"),
    [
        ({"t.csv": "path,kg\na.png,1.5\nb.png,2\n"}, "csv:t.csv", "regression"),
        ({"t.csv": "path,red,round\na.png,1,0\nb.png,0,1\n"}, "csv:t.csv", "multi-label"),
        ({"t.csv": "path,kind\na.png,1\nb.png,0\n"}, "csv:t.csv", ""),
        ({"t.jsonl": '{"tokens": ["a"], "tags": ["X"]}\n'}, "jsonl:t.jsonl", "token-classification"),
        ({"f/images/a.png": "", "f/masks/a.png": ""}, "folder:f", "segmentation"),
        ({"f/train/cat/a.png": ""}, "folder:f", ""),
        ({}, "cifar10", ""),
    ],
)
def test_task_is_stated_by_rows_and_masks_without_a_look_at_samples(tmp_path, monkeypatch, files, name, task):
    monkeypatch.chdir(tmp_path)
    for path, text in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    assert stated_task(DataConfig(name=name)) == task
    assert stated_task(DataConfig(name=name, task="embedding")) == "embedding"


def test_the_data_layer_imports_no_torch():
    code = (
        "import sys; from model_compression.data import dataset, sources, cifar, cifar_sources, synthetic; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
