"""Images that are held out of a dataset: for validation, or as the test set of one that has none."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from model_compression.core.errors import UsageError
from model_compression.data.dataset import Dataset

_TEST_SHARE = 0.2  # of the images, where there is no test set


def hold_out(dataset: Dataset, count: int, seed: int, called: str = "validation") -> tuple[Dataset, Dataset]:
    """Splits off ``count`` images for validation and returns (train, validation), both in the order of ``dataset``.

    Each class gives its share (largest remainders, ties to the lower class), drawn by a generator that depends on
    ``seed`` alone; where ``count`` allows it, each class of two images or more has at least one in both parts. Use it
    to tune: the test set is for the last measurement only. ``called`` ends the name of the part that is split off.
    Raises UsageError when ``count`` is not in 1…N−1.
    """
    if not 1 <= count < len(dataset):
        raise UsageError(
            f"cannot hold out {count} of {len(dataset)} {dataset.noun} of {dataset.name}; choose 1 to "
            f"{len(dataset) - 1}"
        )
    generator = np.random.Generator(np.random.PCG64(seed))
    quotas = _shares(dataset.class_counts(), count)
    chosen = np.concatenate(
        [generator.permutation(np.flatnonzero(dataset._strata == label))[:quota] for label, quota in enumerate(quotas)]
    )
    held_out = np.zeros(len(dataset), dtype=bool)
    held_out[chosen] = True
    return (
        dataset.subset(np.flatnonzero(~held_out), name=dataset.name),
        dataset.subset(np.flatnonzero(held_out), name=f"{dataset.name}-{called}"),
    )


def hold_out_test(dataset: Dataset, reason: str, report: Callable[[str], None]) -> tuple[Dataset, Dataset]:
    """(training set, test set) of a dataset without a test: a fifth of each class, the same images every time.

    At least one image of each class that has two. Reports the ``reason`` and how many were taken.
    """
    divisible = int((dataset.class_counts() > 1).sum())
    count = max(1, round(_TEST_SHARE * len(dataset)), min(divisible, len(dataset) - 1))
    train, test = hold_out(dataset, count, seed=0, called="test")
    report(f"{reason}: {len(test)} of {len(dataset)} {dataset.noun} are held out for the test")
    return train, test


def _shares(counts: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """Integers in proportion to ``counts`` (K,) that add up to ``total``: the method of largest remainders.

    Where that leaves a class of two or more without one, or takes all of it, the classes that give most, or keep most,
    stand in, as far as ``total`` allows.
    """
    quotas: npt.NDArray[np.int64] = counts * total // counts.sum()
    remainders = counts * total % counts.sum()
    missing = total - int(quotas.sum())
    quotas[np.argsort(-remainders, kind="stable")[:missing]] += 1
    lowest, highest = np.minimum(counts // 2, 1), np.maximum(counts - 1, 0)
    if not lowest.sum() <= total <= highest.sum():
        return quotas
    quotas = quotas.clip(lowest, highest)
    while (excess := int(quotas.sum()) - total) != 0:
        room = quotas - lowest if excess > 0 else highest - quotas
        quotas[room.argmax()] -= np.sign(excess)
    return quotas
