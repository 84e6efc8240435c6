"""Counter-based random numbers against SplitMix64 in plain Python integers, and their statistics."""

import math

import numpy as np
import pytest
import torch

from model_compression.core.counter_random import derived_seed, mix, normal, random_bits, uniform

M64 = 2**64 - 1


def splitmix64(state):
    """Sebastiano Vigna's splitmix64.c: one step of the generator from ``state``."""
    z = (state + 0x9E3779B97F4A7C15) & M64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
    return z ^ (z >> 31)


def test_mix_is_splitmix64():
    assert mix(0) == 0xE220A8397B1DCDAF  # the first outputs of splitmix64.c with seed 0
    assert mix(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4
    for value in (1, 12345, 2**63, M64):
        assert mix(value) == splitmix64(value)


@pytest.mark.parametrize("key", [(0,), (0, 1), (2**62, 5, 3), (-1, 7)])
def test_random_bits_are_splitmix64_of_index_and_key(key):
    indices = [0, 1, 2, 49_999, 2**40]
    found = random_bits(torch.tensor(indices), *key)
    expected = [splitmix64(index ^ derived_seed(*key)) >> 32 & 0x7FFFFFFF for index in indices]
    assert found.tolist() == expected


def test_derived_seeds_differ_between_close_keys():
    keys = [(a, b) for a in range(40) for b in range(40)] + [(a,) for a in range(40)] + [(a, 1, 0) for a in range(40)]
    assert len({derived_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= derived_seed(*key) < 2**63 for key in keys)


def test_random_bits_do_not_depend_on_batch_or_order():
    indices = torch.arange(1000)
    whole = random_bits(indices, 3, 1)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(random_bits(order, 3, 1), whole[order])
    assert torch.equal(random_bits(indices[123:124], 3, 1), whole[123:124])


def test_uniform_is_flat_and_inside_its_bounds():
    draws = uniform(torch.arange(100_000), 1, 2).numpy()
    assert draws.dtype == np.float64
    assert 0 < draws.min() < draws.max() < 1
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 45  # chi-squared of 19 degrees: 1 in 1,000 is 43.8


def test_uniform_of_neighbouring_keys_is_uncorrelated():
    indices = torch.arange(50_000)
    draws = np.stack([uniform(indices, 1, step).numpy() for step in range(5)] + [uniform(indices + 1, 1, 0).numpy()])
    correlations = np.corrcoef(draws) - np.eye(6)
    assert abs(correlations).max() < 5 / math.sqrt(50_000)


def test_normal_has_the_quantiles_of_a_standard_normal():
    draws = np.sort(normal(torch.arange(100_000), 9).numpy())
    for point in (-2.5, -1.0, 0.0, 0.5, 2.0, 3.0):
        expected = 0.5 * (1 + math.erf(point / math.sqrt(2)))
        found = np.searchsorted(draws, point) / 100_000
        assert found == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 100_000))
    assert np.isfinite(draws).all()
