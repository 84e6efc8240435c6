"""Network in network: reference sizes, its graph in NumPy, pools that round up, and normalisation folded away."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model_compression.core.errors import UsageError
from model_compression.models import create_model

LAYERS = ["conv1", "cccp1", "cccp2", "conv2", "cccp3", "cccp4", "conv3", "cccp5", "cccp6"]


def convolved(image, weight, bias):
    """A 'same' convolution of one image (C, H, W), with a ReLU."""
    pad = weight.shape[2] // 2
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(1, 2))
    maps = np.tensordot(weight, windows, ([1, 2, 3], [0, 3, 4]))
    return np.maximum(maps + bias[:, None, None], 0)


def pooled(image, reduce):
    """3 × 3 windows every 2 pixels; the last one is cut off at the border, as Caffe's are."""
    _, height, width = image.shape
    rows, columns = (
        [slice(start, min(start + 3, size)) for start in range(0, size - 1, 2)] for size in (height, width)
    )
    return np.stack([[reduce(image[:, row, column], axis=(1, 2)) for column in columns] for row in rows]).transpose(
        2, 0, 1
    )


@pytest.mark.parametrize(
    ("name", "parameters", "macs"), [("nin", 966_986, 222.5e6), ("nin-bn", 966_986 + 1418, 222.5e6)]
)
def test_nin_has_the_reference_size(name, parameters, macs):
    model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() / 2 == pytest.approx(macs, rel=1e-3)


def test_nin_computes_the_graph_as_drawn():
    model = create_model("nin", seed=1).eval()
    image = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    maps, sizes = image, []
    for name in LAYERS:
        maps = convolved(maps, state[f"{name}.weight"], state[f"{name}.bias"])
        if name in ("cccp2", "cccp4"):
            maps = pooled(maps, np.max if name == "cccp2" else np.mean)
        sizes.append(maps.shape)
    assert [size[1] for size in sizes] == [32, 32, 16, 16, 16, 8, 8, 8, 8]
    logits = maps.mean(axis=(1, 2))
    found = model(torch.from_numpy(image)[None]).detach().numpy()[0]
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [5, 8, 32])
def test_nin_pools_round_the_size_up_and_do_not_count_what_is_outside(side):
    model = create_model("nin")
    image = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for pool, reduce in ((model.pool1, np.max), (model.pool2, np.mean)):
        expected = pooled(image[0].numpy(), reduce)
        assert expected.shape[1] == -(-(side - 3) // 2) + 1
        np.testing.assert_allclose(pool(image)[0].numpy(), expected, rtol=1e-12)


def test_nin_ip_has_inner_products_in_place_of_the_last_map():
    model = create_model("nin-ip", hidden=7).eval()
    assert "cccp6" not in dict(model.named_children())
    trunk = 966_986 - (192 * 10 + 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == trunk + 7 * (12_288 + 1) + 10 * 8
    assert model.flatten_shape == (192, 8, 8)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    for wrong in (0, -1, 2.5, "many"):
        with pytest.raises(UsageError, match="hidden must be an integer of at least 1, got"):
            create_model("nin-ip", hidden=wrong)


@pytest.fixture(scope="module")
def trained():
    """A nin-bn after a few steps, so that its normalisations have something to fold."""
    torch.manual_seed(0)
    model = create_model("nin-bn", seed=2, num_classes=3, dropout=0.2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(4, 3, 32, 32) * 2 + 0.5), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    return model


def test_nin_bn_deployed_answers_as_it_does_in_eval_mode(trained):
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    plain = trained.deployed()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    assert plain.name == "nin"
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    trained.eval()
    expected, found = trained(images), plain.eval()(images)
    trained.train()
    assert (found - expected).abs().max() <= 1e-5 * (expected.max() - expected.min())
    assert all(torch.equal(value, before[key]) for key, value in trained.state_dict().items())
    assert all(module.training for module in trained.modules())


def test_nin_bn_deployed_draws_no_random_number(trained):
    before = torch.get_rng_state()
    trained.deployed()
    assert torch.equal(torch.get_rng_state(), before)


def test_nin_dropout_acts_in_training_only():
    model, image = create_model("nin", seed=0, dropout=0.9), torch.ones(1, 3, 32, 32)
    torch.manual_seed(0)
    assert not torch.equal(model(image), model(image))
    model.eval()
    assert torch.equal(model(image), model(image))
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="dropout must be at least 0 and below 1, got"):
            create_model("nin", dropout=wrong)


def test_nin_starts_with_he_weights_and_zero_biases():
    model = create_model("nin", seed=0)
    for layer in (module for module in model if isinstance(module, nn.Conv2d)):
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        assert not layer.bias.any()
