"""How good embeddings are, from the embeddings alone or with labels that judge them. Knows nothing of torch."""

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating]
Classes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NEIGHBOURS, TEMPERATURE = 20, 0.07  # of the usual protocol: Wu et al. 2018, Caron et al. 2021
_AT_ONCE = 1000  # queries that are compared with all others
_TINY = 1e-12


def units(vectors: Vectors) -> npt.NDArray[np.float32]:
    """Vectors (N, D) of length 1; a zero vector stays zero."""
    wide = vectors.astype(np.float32, copy=False)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    found: npt.NDArray[np.float32] = wide / np.maximum(lengths, _TINY)
    return found


def neighbours(queries: Vectors, bank: Vectors | None = None, count: int = NEIGHBOURS) -> tuple[Classes, Floats]:
    """The ``count`` rows of ``bank`` (M, D) with the largest cosine to each of ``queries`` (N, D), the nearest first.

    Returns rows and cosines, (N, K) each. Without ``bank`` these are the other queries.
    """
    own, others = units(queries), units(queries if bank is None else bank)
    count = min(count, len(others) - (bank is None))
    rows, cosines = np.zeros((len(own), max(count, 0)), dtype=np.int64), np.zeros((len(own), max(count, 0)))
    for first in range(0, len(own) if count > 0 else 0, _AT_ONCE):
        part = slice(first, min(first + _AT_ONCE, len(own)))
        found = own[part] @ others.T
        if bank is None:
            found[np.arange(len(found)), np.arange(part.start, part.stop)] = -np.inf
        nearest = np.argpartition(-found, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(found, nearest, axis=1), axis=1, kind="stable")
        rows[part] = np.take_along_axis(nearest, order, axis=1)
        cosines[part] = np.take_along_axis(found, rows[part], axis=1)
    return rows, cosines


def knn_classes(queries: Vectors, labels: Classes, bank: Vectors | None = None, count: int = NEIGHBOURS) -> Classes:
    """The class (N,) that the weighted vote of its nearest neighbours gives each query; ``labels`` (M,) are theirs.

    A neighbour of cosine c has exp(c / 0.07) votes (Wu et al. 2018, arXiv 1805.01978, section 3.4). The least class
    wins a tie.
    """
    rows, cosines = neighbours(queries, bank, count)
    if not rows.shape[1]:
        return np.full(len(queries), -1)
    votes = np.exp((cosines - cosines[:, :1]) / TEMPERATURE)
    classes, numbers = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(queries), len(classes)))
    np.add.at(sums, (np.arange(len(queries))[:, None], numbers[rows]), votes)
    chosen: Classes = classes[sums.argmax(axis=1)]
    return chosen


def alignment(vectors: Vectors, others: Vectors) -> float:
    """Linear CKA, 0 to 1, of two sets of embeddings (N, D) and (N, E) of the same samples.

    ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖), Frobenius norms of centred X and Y (Kornblith et al. 2019, arXiv 1905.00414, equation 7):
    1 where one is a rotation and scaling of the other. 0 where one of them is constant.
    """
    x, y = (one.astype(np.float64) - one.mean(axis=0, dtype=np.float64) for one in (vectors, others))
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / own) if own > _TINY else 0.0


def effective_rank(vectors: Vectors) -> float:
    """How many dimensions embeddings (N, D) fill, 1 to min(N, D): RankMe (Garrido et al. 2023, arXiv 2210.02885).

    The exponential of the entropy of the singular values, which are scaled to the sum 1. 1 where all are one direction.
    """
    wide = vectors.astype(np.float64)
    gram = wide.T @ wide if wide.shape[1] <= len(wide) else wide @ wide.T
    values = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None))
    shares = values / max(values.sum(), _TINY)
    shares = shares[shares > 1e-7]
    return float(np.exp(-(shares * np.log(shares)).sum()))
