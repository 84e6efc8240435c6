"""The whitening network: its size, its frozen filters against float64 NumPy, and its Dirac start."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model_compression.core.errors import UsageError
from model_compression.models import create_model
from model_compression.models.whitening_cnn import whitening_filters


def textured(count, seed=0):
    """Images (count, 3, 12, 12) whose neighbouring pixels and channels are correlated, as natural ones are."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, 3, 14, 14))
    smooth = sum(noise[:, :, dy : dy + 12, dx : dx + 12] for dy in range(3) for dx in range(3))
    return smooth + smooth.mean(axis=1, keepdims=True) + 0.2 * noise[:, :, :12, :12]


def test_whitening_cnn_has_the_reference_size():
    model = create_model("whitening-cnn")
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(1.97, abs=0.01)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 32))
    assert counter.get_total_flops() / 2e6 == pytest.approx(118, abs=0.5)


def test_whitening_filters_give_patches_of_identity_covariance():
    images = textured(200)
    filters = whitening_filters(torch.from_numpy(images), eps=0.0).numpy()
    patches = np.lib.stride_tricks.sliding_window_view(images, (2, 2), axis=(2, 3))
    patches = patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    answers = patches @ filters[:12].reshape(12, 12).T
    np.testing.assert_allclose(answers.T @ answers / len(answers), np.eye(12), atol=1e-9)
    np.testing.assert_array_equal(filters[12:], -filters[:12])


def test_whitening_filters_are_damped_by_eps_and_sorted_by_variance():
    images = textured(50)
    plain, damped = (whitening_filters(torch.from_numpy(images), eps=eps).numpy() for eps in (0.0, 1.0))
    patches = np.lib.stride_tricks.sliding_window_view(images, (2, 2), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)
    values = np.linalg.eigvalsh(
        np.cov(patches.reshape(-1, 12).T, bias=True) + np.outer(*[patches.mean((0, 1, 2)).ravel()] * 2)
    )
    norms = np.linalg.norm(plain[:12].reshape(12, -1), axis=1)
    np.testing.assert_allclose(norms, 1 / np.sqrt(values[::-1]), rtol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(damped[:12].reshape(12, -1), axis=1), 1 / np.sqrt(values[::-1] + 1), rtol=1e-6
    )


def test_whitening_cnn_prepare_sets_frozen_filters_from_a_sample_of_the_images():
    model = create_model("whitening-cnn", seed=0)
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model.prepare(images)
    expected = whitening_filters(model.preprocessing(images))
    assert torch.equal(model.whiten.weight, expected)
    assert not model.whiten.weight.requires_grad
    assert model.whiten.bias.requires_grad
    again = create_model("whitening-cnn", seed=1)
    again.prepare(images)
    assert torch.equal(again.whiten.weight, model.whiten.weight)


def test_whitening_cnn_starts_with_dirac_convolutions_and_norms_without_scale():
    model = create_model("whitening-cnn", seed=0, widths=(24, 30, 48))
    convolutions = [module for name, module in model.named_modules() if name.startswith("block") and "conv" in name]
    assert len(convolutions) == 6
    for convolution in convolutions:
        image = torch.randn(1, convolution.in_channels, 6, 6, generator=torch.Generator().manual_seed(0))
        copied = min(convolution.in_channels, convolution.out_channels)
        assert torch.equal(convolution(image)[:, :copied], image[:, :copied])
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 6
    assert all(not norm.weight.requires_grad and norm.bias.requires_grad for norm in norms)
    assert all(torch.equal(norm.weight, torch.ones_like(norm.weight)) for norm in norms)


def test_whitening_cnn_scales_its_logits_by_a_ninth():
    model = create_model("whitening-cnn", seed=0, widths=[24, 24, 24]).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    embedding = model[:-1](images)
    assert embedding.shape == (2, 24)
    torch.testing.assert_close(model(images), embedding @ model.head.weight.T / 9)


@pytest.mark.parametrize("widths", [(64, 64), (64, 64, 8), (1, 2, 3, 4), 64, "abc", (64, 64, None)])
def test_whitening_cnn_refuses_impossible_widths(widths):
    with pytest.raises(UsageError, match="widths"):
        create_model("whitening-cnn", widths=widths)
