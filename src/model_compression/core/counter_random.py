"""Counter-based random numbers: each is a pure function of its key, whatever was drawn before and wherever.

SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
"""

import math

from torch import Tensor

_MASK = (1 << 64) - 1


def random_bits(indices: Tensor, *key: int) -> Tensor:
    """31 random bits per index (B,), int64."""
    return _mix_tensor(indices ^ _signed(derived_seed(*key))) >> 32 & 0x7FFFFFFF


def uniform(indices: Tensor, *key: int) -> Tensor:
    """Uniform numbers inside (0, 1) per index (B,), float64."""
    return (random_bits(indices, *key).double() + 0.5) / 2**31


def normal(indices: Tensor, *key: int) -> Tensor:
    """Standard normal numbers per index (B,), float64, by Box and Muller's formula."""
    radius = (-2 * uniform(indices, *key, 0).log()).sqrt()
    return radius * (2 * math.pi * uniform(indices, *key, 1)).cos()


def derived_seed(*key: int) -> int:
    """A 63-bit seed for a generator, well separated for any two keys (as (seed, epoch))."""
    state = 0
    for part in key:
        state = mix(state ^ (part & _MASK))
    return state >> 1


def mix(value: int) -> int:
    """SplitMix64's output function of one number, 64 bits: well-separated seeds from small numbers."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def _mix_tensor(value: Tensor) -> Tensor:
    """`mix` for int64 tensors, whose products wrap as unsigned ones do."""
    value = value + _signed(0x9E3779B97F4A7C15)
    value = (value ^ _shifted(value, 30)) * _signed(0xBF58476D1CE4E5B9)
    value = (value ^ _shifted(value, 27)) * _signed(0x94D049BB133111EB)
    return value ^ _shifted(value, 31)


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: torch's own copies the sign."""
    return value >> bits & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
