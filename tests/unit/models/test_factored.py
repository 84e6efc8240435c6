"""Inner products written as products of two: the same answers, a file like any other, and a rank that can be cut."""

import pytest
import torch

from model_compression.compression.channels import cost_of, cut_channels
from model_compression.core.errors import UsageError
from model_compression.models import create_model
from model_compression.models.factored import as_factored, large_inner_products
from model_compression.models.loading import read_model
from model_compression.models.preprocessing import Preprocessing
from model_compression.models.weights import save_weights

PIXELS = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def answers(network):
    return network.eval()(network.preprocessing(PIXELS))


@pytest.mark.parametrize("name", ["lenet", "lenet-caffe"])
def test_factored_network_answers_the_same(name, tmp_path):
    network = create_model(name, seed=0, num_classes=7)
    network.preprocessing = Preprocessing(mean=(0.3, 0.4, 0.5), std=(0.2, 0.2, 0.2))
    factored = as_factored(network)
    assert large_inner_products(network) == ["ip1"]
    torch.testing.assert_close(answers(factored), answers(network), rtol=1e-4, atol=1e-5)
    first, second = factored.ip1.first.weight, factored.ip1.second.weight
    torch.testing.assert_close(second @ first, network.ip1.weight, rtol=0, atol=1e-5)
    values = torch.linalg.svdvals(network.ip1.weight)
    torch.testing.assert_close(first.norm(dim=1).square(), values, rtol=1e-3, atol=1e-4)  # halves of the same size
    torch.testing.assert_close(second.norm(dim=0).square(), values, rtol=1e-3, atol=1e-4)
    save_weights(tmp_path / "f.safetensors", factored)
    assert torch.equal(answers(read_model(tmp_path / "f.safetensors")), answers(factored))


def test_network_without_large_inner_products_stays_as_it_is():
    network = create_model("resnet8", seed=0)
    assert large_inner_products(network) == []
    assert as_factored(network) is network.deployed()


def test_rank_that_is_worth_nothing_goes_and_what_was_cut_can_be_cut_again(tmp_path):
    network = create_model("lenet-caffe", seed=0)
    with torch.no_grad():
        u, s, v = torch.linalg.svd(network.ip1.weight, full_matrices=False)
        network.ip1.weight.copy_((u[:, :8] * s[:8]) @ v[:8])  # of rank 8
    factored = as_factored(network)
    whole = cost_of(factored, "params", (3, 32, 32))
    left = whole - (500 - 8) * (1250 + 500)
    cut = cut_channels(factored, [PIXELS], resource="params", target=left)
    assert 8 <= cut.ip1.first.out_features <= 10  # units that are never active go as well
    torch.testing.assert_close(answers(cut), answers(network), rtol=1e-3, atol=1e-4)
    save_weights(tmp_path / "cut.safetensors", cut)
    again = cut_channels(read_model(tmp_path / "cut.safetensors"), [PIXELS], resource="params", target=left // 2)
    assert cost_of(again, "params", (3, 32, 32)) <= left // 2
    save_weights(tmp_path / "again.safetensors", again)
    assert torch.equal(answers(read_model(tmp_path / "again.safetensors")), answers(again))


def test_layer_that_is_no_inner_product_is_refused():
    with pytest.raises(UsageError, match="layer 'conv1' of lenet is no inner product"):
        create_model("factored", seed=0, body="lenet", layers=["conv1"])
