"""How far a network is to be pruned: what fits is found, and what cannot be pruned says why."""

import sys

import numpy as np
import pytest
import torch

from model_compression.compression.budget import as_if_trained, quantised_file, share_that_fits
from model_compression.compression.channels import SMALLEST, cost_of
from model_compression.compression.config import Cuts
from model_compression.compression.groups import copy_network
from model_compression.core.errors import MissingExtraError, UsageError
from model_compression.data.dataset import Dataset
from model_compression.engine.observer import Silent
from model_compression.models import create_model

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def data():
    images = np.random.default_rng(0).integers(0, 256, (8, *SHAPE), dtype=np.uint8)
    names = tuple(map(str, range(10)))
    labels = np.arange(8, dtype=np.int64)
    return Dataset(name="noise", samples=images, labels=labels, class_names=names, mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.mark.slow
def test_share_is_the_largest_that_fits(data):
    network = create_model("lenet-caffe", seed=0)
    allowed = 0.3 * cost_of(network, "params", SHAPE)
    share = share_that_fits(
        network, data, "params", lambda one: cost_of(one, "params", SHAPE) <= allowed, Cuts(), Silent()
    )
    assert 0.3 - 2**-6 <= share <= 0.3 + 0.01  # a cut may spare a little more than it has to
    assert share_that_fits(network, data, "params", lambda one: True, Cuts(), Silent()) == 1.0


@pytest.mark.slow
def test_what_fits_in_no_size_says_how_small_it_gets(data):
    network = create_model("lenet-caffe", seed=0)
    least = (
        SMALLEST * (3 * 25 + 1) + SMALLEST * (SMALLEST * 25 + 1) + SMALLEST * (SMALLEST * 25 + 1) + 10 * SMALLEST + 10
    )
    with pytest.raises(UsageError, match=f"it does not fit; it can be cut to {least:,} of its .* parameters"):
        share_that_fits(network, data, "params", lambda one: False, Cuts(), Silent())


@pytest.mark.slow
def test_file_of_an_untrained_network_is_as_large_as_that_of_a_trained_one(data):
    """Biases that are 0 take no place in a file, and training leaves none."""
    network = create_model("resnet8", seed=0)
    trained = copy_network(network).train()
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3)
    images = torch.from_numpy(data.images)
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(trained(trained.preprocessing(images)), torch.from_numpy(data.labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sizes = []
    for one in (network, as_if_trained(network), trained.eval()):
        with quantised_file(one, data) as path:
            sizes.append(path.stat().st_size)
    assert sizes[0] < 0.95 * sizes[2]
    assert sizes[1] == pytest.approx(sizes[2], rel=0.01)


def test_what_cannot_be_pruned_says_why(data, monkeypatch):
    with pytest.raises(UsageError, match="shufflenet_v2 cannot be followed through its layers"):
        share_that_fits(create_model("shufflenet_v2", seed=0), data, "macs", lambda one: False, Cuts(), Silent())
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingExtraError, match="torch-pruning"):
        share_that_fits(create_model("lenet-caffe", seed=0), data, "macs", lambda one: False, Cuts(), Silent())
