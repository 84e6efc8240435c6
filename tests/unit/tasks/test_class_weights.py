"""Weights of classes: by scikit-learn's rule, from files, and in the label losses against float64 formulas."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from model_compression.core.config import ModelConfig, TrainConfig
from model_compression.core.errors import Interrupted, NotThereError, RunFolderError, UsageError
from model_compression.core.masks import IGNORE
from model_compression.data.batches import Mixed
from model_compression.data.dataset import Dataset
from model_compression.engine.runs import resume_run, start_run
from model_compression.tasks import task_of
from model_compression.tasks.class_weights import class_weights, read_class_weights
from model_compression.tasks.image_classification.task import ImageClassification
from model_compression.tasks.segmentation.task import Segmentation
from model_compression.tasks.token_classification.task import TokenClassification

NAMES = ("cat", "dog", "owl")
WEIGHTS = np.array([0.5, 1.0, 4.0])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"owl": 4.0, "cat": 0.5, "dog": 1}))
    return path


def losses(logits, labels, smoothing=0.0):
    """(…,) weight · cross-entropy of rows of logits (…, 3), in float64."""
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    wanted = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    return -(wanted * WEIGHTS * log_p).sum(axis=-1)


def test_balanced_weights_are_scikit_learns():
    labels = np.repeat([0, 1, 2], [7, 2, 31])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = class_weights("balanced", NAMES, np.bincount(labels))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    assert (found[labels]).mean().item() == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_images_weigh_by_their_class(smoothing, file):
    rng = np.random.default_rng(0)
    logits, labels, others = rng.normal(size=(9, 3)), rng.integers(0, 3, 9), rng.integers(0, 3, 9)
    task = ImageClassification(class_weights(str(file), NAMES, np.ones(3, dtype=int)))
    found = task.label_loss(torch.from_numpy(logits), torch.from_numpy(labels), None, smoothing)
    assert found.item() == pytest.approx(losses(logits, labels, smoothing).mean(), rel=1e-9)
    share = torch.rand(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixed = Mixed(targets=torch.from_numpy(others), share=share)
    found = task.label_loss(torch.from_numpy(logits), torch.from_numpy(labels), mixed, smoothing)
    expected = share.numpy() * losses(logits, labels, smoothing)
    expected += (1 - share.numpy()) * losses(logits, others, smoothing)
    assert found.item() == pytest.approx(expected.mean(), rel=1e-9)


def test_pixels_and_words_weigh_by_their_class():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(2, 4, 5, 3)), rng.integers(0, 3, (2, 4, 5))
    counted = rng.random((2, 4, 5)) < 0.7
    expected = losses(logits, labels)[counted].mean()
    weights = torch.from_numpy(WEIGHTS)
    masks = torch.from_numpy(np.where(counted, labels, IGNORE).astype(np.uint8))
    found = Segmentation(weights).label_loss(torch.from_numpy(logits).movedim(3, 1), masks, None, 0.0)
    assert found.item() == pytest.approx(expected, rel=1e-9)
    words = torch.from_numpy(np.where(counted, labels, -100)).flatten(1)
    found = TokenClassification(weights).label_loss(torch.from_numpy(logits).flatten(1, 2), words, None, 0.0)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_pixels_that_do_not_count_have_no_weight():
    masks = np.full((2, 8, 8), IGNORE, dtype=np.uint8)
    masks[0, 0, :3], masks[1, :2] = 1, 0
    masks[1, 7, 7] = 2
    images = np.zeros((2, 3, 8, 8), dtype=np.uint8)
    told = {"class_names": NAMES, "mean": (0.5,) * 3, "std": (0.5,) * 3, "task": "segmentation"}
    dataset = Dataset(name="masks", samples=images, labels=masks, **told)
    config = TrainConfig(student=ModelConfig(name="unet"), class_weights="balanced")
    found = task_of(dataset).learning(config, dataset).weights_for(torch.zeros(1))
    np.testing.assert_allclose(found.numpy(), 20 / (3 * np.array([16, 3, 1])), rtol=1e-6)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"cat": 1, "dgo": 1, "owl": 1}', "unknown class 'dgo'; did you mean 'dog'"),
        ('{"cat": 1, "dog": 1}', "has no weight for the class 'owl'; give one for each of 3"),
        ('{"cat": 1, "dog": -1, "owl": 1}', "the weight of 'dog' must be a number of at least 0, got -1"),
        ('{"cat": 0, "dog": 0, "owl": 0}', "the weights are all 0"),
        ('{"cat": NaN, "dog": 0, "owl": 0}', "the weight of 'cat' must be a number of at least 0, got nan"),
        ("[1, 2]", "expected JSON as .*, got a list"),
        ("cat: 1", "expected JSON as"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path, content, expected):
    path = tmp_path / "weights.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=expected):
        class_weights(str(path), NAMES, np.ones(3, dtype=int))


def test_a_class_without_samples_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(UsageError, match="class_weights balanced needs training samples of each class, and 'dog' has"):
        class_weights("balanced", NAMES, np.array([3, 0, 2]))
    with pytest.raises(NotThereError, match=r"no\.json is not there; class_weights is none, balanced or a JSON file"):
        read_class_weights(str(tmp_path / "no.json"))


def test_a_run_holds_its_weights(tiny, tmp_path, watcher, monkeypatch):
    """A relative name is found from elsewhere, and other numbers in the file are another run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.json"
    path.write_text('{"a": 1, "b": 2, "c": 3}')
    config = tiny.config(class_weights="w.json")
    with pytest.raises(Interrupted):
        start_run(config, tmp_path / "run", watcher([7]))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    path.write_text('{"a": 1, "b": 2, "c": 4}')
    with pytest.raises(RunFolderError, match=r"the class weights of .* has changed since its state was saved"):
        resume_run(tmp_path / "run")
    path.write_text('{"c": 3.0, "a": 1, "b": 2}')
    assert resume_run(tmp_path / "run")["epochs"] == 3
    plain = start_run(dataclasses.replace(config, class_weights="none"), tmp_path / "plain")
    assert "class_weights" not in plain
    with pytest.raises(UsageError, match=r"class_weights balanced has no effect: .* gives the label loss the weight 0"):
        start_run(tiny.config("logits", class_weights="balanced"), tmp_path / "idle")
