"""Labels in arrays that are several classes a sample, or numbers."""

import numpy as np
import pytest
import torch

from model_compression.api.array_targets import array_targets
from model_compression.api.given_data import given_data
from model_compression.core.data_config import DataConfig
from model_compression.core.errors import UsageError
from model_compression.engine.observer import Silent

ONES = np.array([[1, 0], [0, 1], [1, 1]])


@pytest.mark.parametrize(
    ("labels", "task", "kind"),
    [
        (ONES, "multi-label", "multi-label"),
        (ONES.astype(bool), "", "multi-label"),
        (ONES.astype(float), "multi-label", "multi-label"),
        (np.array([1.5, 2, 3]), "", "regression"),
        (ONES * 1.5, "", "regression"),
        (np.array([1, 2, 3]), "regression", "regression"),
        (np.array([1, 2, 0]), "", None),
        (ONES, "", None),
        (np.array(["a", "b", "a"]), "", None),
    ],
)
def test_kind_is_told_by_the_task_or_the_numbers(labels, task, kind):
    found = array_targets([labels, labels], task)
    assert (None if found is None else found.kind) == kind
    if found is not None:
        assert all(np.array_equal(one, labels.reshape(3, -1)) for one in found.values)


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        (ONES * 2, "multi-label", r"test label 0 is \[2, 0\]; expected 0 or 1"),
        (np.array([1, 0, 1]), "multi-label", r"test labels are int64 of shape \(3,\); expected \(N, K\)"),
        (np.array([1.5, np.nan, 1]), "", r"test label 1 is \[nan\]; expected finite numbers"),
        (np.array(["a", "b", "c"]), "regression", "expected numbers, a row for each sample"),
    ],
)
def test_labels_that_cannot_be_are_named_with_their_row(labels, task, message):
    with pytest.raises(UsageError, match=message):
        array_targets([labels], task)


def test_arrays_become_datasets_of_their_task_with_the_training_scale():
    images = torch.zeros(4, 3, 4, 4, dtype=torch.uint8)
    numbers = np.array([[1.5, 10], [2.5, 30], [0, 20], [4, 20]])
    (train, test), _ = given_data((images, numbers, images[:2], numbers[:2]), DataConfig(name="x"), Silent())
    assert (train.task, train.target_names) == ("regression", ("value 1", "value 2"))
    assert test.target_mean == (2.0, 20.0)
    assert test.target_std == pytest.approx(numbers.std(axis=0), rel=1e-5)
    several = DataConfig(name="x", task="multi-label")
    (train, _), _ = given_data((images, numbers > 15, images, numbers > 15), several, Silent())
    assert (train.task, train.class_names, train.labels.tolist()[0]) == ("multi-label", ("0", "1"), [0, 0])
    with pytest.raises(UsageError, match="there are 2 test images and 4 labels"):
        given_data((images, numbers, images[:2], numbers), DataConfig(name="x"), Silent())
    with pytest.raises(UsageError, match="or task='multi-label'"):
        given_data((images, ONES[[0, 1, 2, 0]], images, ONES[[0, 1, 2, 0]]), DataConfig(name="x"), Silent())
