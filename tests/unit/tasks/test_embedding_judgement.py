"""Nearest neighbours, alignment, rank and the linear probe against loops, invariances and scikit-learn."""

import math

import numpy as np
import pytest
import torch

from model_compression.reports.sections.neighbours import alignment, effective_rank, knn_classes, neighbours
from model_compression.tasks import TASKS
from model_compression.tasks.embedding.judgement import fit_logistic, judge, linear_probe

RNG = np.random.default_rng(3)


def clustered(count, width=6, classes=3, spread=0.9):
    labels = RNG.integers(0, classes, count)
    centres = np.random.default_rng(0).normal(size=(classes, width))
    return (centres[labels] + spread * RNG.normal(size=(count, width))).astype(np.float32), labels.astype(np.int64)


def voted(query, others, labels, count):
    """The class of one query, vote by vote, in float64."""
    cosines = [float(query @ one / np.sqrt((query @ query) * (one @ one))) for one in others.astype(np.float64)]
    nearest = sorted(range(len(others)), key=lambda place: -cosines[place])[:count]
    votes = {label: sum(math.exp(cosines[n] / 0.07) for n in nearest if labels[n] == label) for label in set(labels)}
    return max(votes, key=votes.get)


@pytest.mark.parametrize("count", [1, 5, 20])
def test_votes_are_those_of_a_loop(count):
    bank, labels = clustered(50)
    queries, _ = clustered(12)
    found = knn_classes(queries, labels, bank, count)
    assert found.tolist() == [voted(one.astype(np.float64), bank, labels.tolist(), count) for one in queries]


def test_without_a_bank_a_sample_does_not_vote_for_itself():
    vectors, labels = clustered(40)
    found = knn_classes(vectors, labels)
    for place, one in enumerate(vectors):
        kept = np.arange(len(vectors)) != place
        assert found[place] == voted(one.astype(np.float64), vectors[kept], labels[kept].tolist(), 20)


def test_neighbours_come_nearest_first_across_blocks(monkeypatch):
    monkeypatch.setattr("model_compression.reports.sections.neighbours._AT_ONCE", 7)
    vectors, _ = clustered(30)
    rows, cosines = neighbours(vectors, count=29)
    assert all(sorted([*row, place]) == list(range(30)) for place, row in enumerate(rows.tolist()))
    assert (np.diff(cosines, axis=1) <= 0).all()


def test_alignment_is_kept_by_rotation_and_scale_and_lost_by_noise():
    vectors, _ = clustered(200)
    rotation = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
    assert alignment(vectors, 3 * vectors @ rotation + 5) == pytest.approx(1, abs=1e-6)
    assert alignment(vectors, RNG.normal(size=(200, 4))) < 0.1
    x, y = vectors.astype(np.float64), RNG.normal(size=(200, 4))
    k, m = ((one - one.mean(axis=0)) @ (one - one.mean(axis=0)).T for one in (x, y))  # by samples, not features
    assert alignment(x, y) == pytest.approx((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()), rel=1e-9)
    assert alignment(np.ones((5, 2)), vectors[:5]) == 0


def test_rank_counts_equal_directions():
    basis = np.repeat(np.eye(5), 4, axis=0)
    assert effective_rank(basis) == pytest.approx(5)
    assert effective_rank(np.ones((8, 3))) == pytest.approx(1)
    values = np.linalg.svd(clustered(30)[0].astype(np.float64), compute_uv=False)
    p = values / values.sum()
    assert effective_rank(clustered(30)[0]) != effective_rank(basis)
    wide = RNG.normal(size=(4, 9))
    q = np.linalg.svd(wide, compute_uv=False)
    q = q / q.sum()
    assert effective_rank(wide) == pytest.approx(math.exp(-(q * np.log(q)).sum()), rel=1e-6)
    assert len(p) == 6


def test_logistic_regression_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = clustered(120)
    weights, bias = fit_logistic(torch.from_numpy(x).double(), torch.from_numpy(y), 3, 0.01)
    theirs = linear_model.LogisticRegression(C=1 / (0.01 * 120), tol=1e-8, max_iter=1000).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(weights.numpy().T, theirs.coef_, atol=2e-3)
    np.testing.assert_allclose((bias - bias.mean()).numpy(), theirs.intercept_ - theirs.intercept_.mean(), atol=2e-3)


def test_probe_separates_what_a_line_separates_whatever_the_scale():
    x, y = clustered(300, spread=0.15)
    queries, truth = clustered(80, spread=0.15)
    scale = np.array([1e-3, 1e3, 1, 1, 1, 1], np.float32)
    train, test = (torch.from_numpy(one * scale) for one in (x, queries))
    found, penalty = linear_probe(train, torch.from_numpy(y + 4), test)
    assert found.tolist() == (truth + 4).tolist()
    assert penalty <= 1
    judged = judge(*map(torch.from_numpy, (x, y, queries, truth)))
    assert judged.probe.share == judged.knn.share == 1


def test_probe_does_not_depend_on_the_order_of_the_classes():
    x, y = clustered(100, width=40, classes=5, spread=2.0)
    sorted_rows = np.argsort(y, kind="stable")
    counts = np.zeros(5, int)
    ranks = np.array([(counts.__setitem__(label, counts[label] + 1), counts[label])[1] for label in y])
    dealt = np.lexsort((y, ranks))  # 0, 1, 2, 3, 4, 0, … as some datasets are stored
    one, other = (linear_probe(*map(torch.from_numpy, (x[rows], y[rows], x)))[1] for rows in (sorted_rows, dealt))
    assert one == other > 1e-5


def test_task_measures_by_votes_and_says_what_a_file_changes():
    task = TASKS.create("embedding")
    vectors, labels = clustered(60)
    logits, targets = torch.from_numpy(vectors), torch.from_numpy(labels)[:, None]
    figures = task.figures(logits, targets)
    assert figures["knn"] == (knn_classes(vectors, labels) == labels).mean()
    assert (
        task.surest_mistakes(logits, None, targets).tolist()
        == np.flatnonzero(knn_classes(vectors, labels) != labels).tolist()
    )
    other = logits.clone()
    other[3] = -other[3]
    other[5] *= 2
    assert task.changes(other, logits, 1.0).others == (3,)
    nearest = (torch.nn.functional.normalize(logits) @ torch.nn.functional.normalize(logits).T).fill_diagonal_(-2)
    assert int(task.score(logits, targets)) == int((targets[nearest.argmax(1)] == targets).sum())
    assert float(task.score(logits, 2 * logits)) == pytest.approx(60, rel=1e-5)
