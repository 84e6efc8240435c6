"""Figures of masks: how class numbers (N, H, W) compare with the true ones. Knows nothing of torch."""

import numpy as np
import numpy.typing as npt

from model_compression.core.masks import IGNORE, Masks

Counts = npt.NDArray[np.int64]
_RESAMPLED = 1000


def count_pixels(found: Masks, targets: Masks, num_classes: int) -> Counts:
    """(K, K) pixels of each true class (row) that were given each class (column); ignored ones count nowhere."""
    counts = np.zeros(num_classes**2, dtype=np.int64)
    for one, truth in zip(found, targets, strict=True):  # image by image: the numbers take eight bytes each
        counted = truth != IGNORE
        pairs = truth[counted].astype(np.int64) * num_classes + one[counted]
        counts += np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def iou_by_class(counts: Counts) -> npt.NDArray[np.float64]:
    """(K,) intersection over union, 0 to 1, of counts (K, K); NaN for a class that neither mask has."""
    both = counts.diagonal()
    union = counts.sum(axis=0) + counts.sum(axis=1) - both
    found: npt.NDArray[np.float64] = np.divide(both, union, out=np.full(len(both), np.nan), where=union > 0)
    return found


def mean_iou(counts: Counts) -> float:
    """Mean over the classes that occur in either mask, 0 to 1; 0 where no pixel counts."""
    found = iou_by_class(counts)
    return float(np.nanmean(found)) if (~np.isnan(found)).any() else 0.0


def pixel_share(counts: Counts) -> float:
    """Share of the pixels with their true class, 0 to 1."""
    return float(counts.trace() / max(1, counts.sum()))


def wrong_shares(found: Masks, targets: Masks) -> npt.NDArray[np.float64]:
    """(N,) share of the pixels of each image that have another class than the true one, of those that count."""
    counted = targets != IGNORE
    wrong = (found != targets) & counted
    shares: npt.NDArray[np.float64] = wrong.sum(axis=(1, 2)) / np.maximum(1, counted.sum(axis=(1, 2)))
    return shares


def bootstrap_interval(found: Masks, targets: Masks, num_classes: int) -> tuple[float, float]:
    """95 % interval of the mIoU, for other images of the same kind: that of 1,000 samples of the images, drawn again.

    Percentiles (Efron 1979); the same numbers every time.
    """
    parts = np.zeros((len(targets), 3, num_classes))
    for number, (one, truth) in enumerate(zip(found, targets, strict=True)):
        counts = count_pixels(one[None], truth[None], num_classes)
        parts[number] = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = generator.multinomial(len(parts), np.full(len(parts), 1 / len(parts)), size=_RESAMPLED)
    both, given, true = np.moveaxis(np.tensordot(drawn, parts, axes=1), 1, 0)  # each (1,000, K)
    union = given + true - both
    shares = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    means = shares.sum(axis=1) / np.maximum(1, (union > 0).sum(axis=1))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
