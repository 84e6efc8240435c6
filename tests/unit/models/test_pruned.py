"""Networks with fewer channels or weights than their builders give them."""

import pytest
import torch

from model_compression.core.errors import FileFormatError, UsageError
from model_compression.models import create_model
from model_compression.models.loading import read_model
from model_compression.models.sparse import as_sparse, density_of
from model_compression.models.weights import save_weights

WIDTHS = {"conv2": [20, 8], "ip1": [200, 30], "ip2": [30, 10]}


def test_widths_are_those_that_are_given():
    network = create_model("pruned", body="lenet-caffe", widths=WIDTHS)
    assert (network.conv1.weight.shape, network.conv2.weight.shape) == ((20, 3, 5, 5), (8, 20, 5, 5))
    assert (network.ip1.weight.shape, network.ip1.bias.shape, network.ip2.weight.shape) == ((30, 200), (30,), (10, 30))
    assert network.flatten_shape == (8, 5, 5)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_frozen_weights_stay_frozen_and_normalisations_are_whole():
    widths = {"block1.conv1": [24, 30], "block1.bn1": [30], "block1.conv2": [30, 64]}
    network = create_model("pruned", body="whitening-cnn", widths=widths)
    norm = network.block1.bn1
    assert [norm.weight.requires_grad, norm.bias.requires_grad] == [False, True]
    assert {tuple(t.shape) for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)} == {(30,)}
    assert torch.equal(norm.running_var, torch.ones(30))


def test_each_map_for_itself_stays_so():
    body = create_model("mobilenet_v2", seed=0)
    name, layer = next((n, m) for n, m in body.named_modules() if getattr(m, "groups", 1) > 1)
    network = create_model("pruned", body="mobilenet_v2", widths={name: [12, 12]})
    assert network.get_submodule(name).groups == 12 < layer.groups


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": {"conv3": [1, 1]}}, "unknown layer of 'lenet-caffe' with widths: 'conv3'; did you mean 'conv2'"),
        ({"widths": {"conv1": [3, 21]}}, r"widths of layer 'conv1' must lie between 1 and \[3, 20\], got \[3, 21\]"),
        ({"widths": {"conv1": [3, 0]}}, "must lie between 1"),
        ({"widths": {"conv1": [3]}}, "must lie between 1"),
        ({"widths": {"conv1": ["3", 1]}}, "must lie between 1"),
        ({"body": "lenett"}, "unknown model 'lenett'; did you mean 'lenet'"),
    ],
)
def test_impossible_widths_are_refused(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        create_model("pruned", **{"body": "lenet-caffe", **options})
    network = create_model("pruned", body="lenet-caffe")
    network.options = {"body": "lenet-caffe", **options}
    save_weights(tmp_path / "w.safetensors", network)
    with pytest.raises(FileFormatError, match=message):
        read_model(tmp_path / "w.safetensors")


def test_the_largest_weights_are_kept_over_all_layers(tmp_path):
    source = create_model("lenet-caffe", seed=0)
    network = as_sparse(source, 0.25)
    sizes = torch.cat([weight.abs().flatten() for weight in source.parameters() if weight.ndim > 1])
    bound = sizes.kthvalue(round(0.75 * len(sizes))).values
    for one, other in zip(source.parameters(), network.parameters(), strict=True):
        assert torch.equal(other, one if one.ndim == 1 else one * (one.abs() > bound))
    assert density_of(network) == pytest.approx(0.25, abs=1e-5)
    save_weights(tmp_path / "w.safetensors", as_sparse(network, 0.1))
    again = read_model(tmp_path / "w.safetensors")
    assert (again.name, again.options["body"]) == ("sparse", "lenet-caffe")
    assert density_of(again) == pytest.approx(0.1, abs=1e-5)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_zeros_stay_zero_in_training(kind):
    network = as_sparse(create_model("lenet-caffe", seed=0), 0.3)
    before = [weight.detach().clone() for weight in network.parameters()]
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(network.parameters(), lr=0.01, weight_decay=0.1, **options)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))).square().mean().backward()
        optimizer.step()
    for one, other in zip(before, network.parameters(), strict=True):
        assert torch.equal(one == 0, other == 0) or one.ndim == 1
        assert not torch.equal(one, other)
