"""k-means and the mixture of Gaussians, against scikit-learn from the same start, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from builders import rng_of
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from spadework import kmeans, mixture
from spadework.kmeans import draw_centres, refine, squared_distances


def blobs(n=400, dimension=4, count=3, spread=1.0):
    rng = rng_of("blobs", n, dimension, count)
    centres = 4 * rng.normal(size=(count, dimension))
    shape = rng.normal(size=(dimension, dimension)) / 2
    return centres[rng.integers(count, size=n)] + spread * rng.normal(size=(n, dimension)) @ shape


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_is_scikit_learns_from_the_same_start(seed):
    rows = blobs(spread=3.0)
    first = draw_centres(rows, 6, np.random.default_rng(seed))
    ours = refine(rows, first)
    theirs = KMeans(6, init=first, n_init=1, algorithm="lloyd", tol=0, max_iter=300).fit(rows)
    np.testing.assert_allclose(ours.centres, theirs.cluster_centers_, rtol=1e-9)
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    assert ours.inertia == pytest.approx(theirs.inertia_)


def test_kmeans_finds_clear_clusters_and_takes_the_best_run():
    rows = np.array([[0.0, 0], [0, 1], [10, 0], [10, 1], [0, 50], [0, 51]])
    found = kmeans.kmeans(rows, 3)
    assert sorted(map(tuple, found.centres)) == [(0, 0.5), (0, 50.5), (10, 0.5)]
    assert found.inertia == pytest.approx(1.5)
    runs = [refine(rows, draw_centres(rows, 3, np.random.default_rng(seed))).inertia for seed in range(20)]
    assert min(runs) == pytest.approx(1.5)


def test_the_run_of_the_lowest_inertia_is_taken():
    rows, rng = blobs(spread=3.0), np.random.default_rng(0)
    runs = [refine(rows, draw_centres(rows, 6, rng)).inertia for _ in range(3)]
    assert len(set(runs)) == 3
    assert kmeans.kmeans(rows, 6, seed=0).inertia == min(runs)


def test_first_centres_are_different_rows_and_far_ones_are_likelier():
    rows = np.array([[0.0]] * 50 + [[1.0]] * 50 + [[100.0]])
    drawn = [draw_centres(rows, 2, np.random.default_rng(seed)).ravel().tolist() for seed in range(40)]
    assert sum(100.0 in centres for centres in drawn) > 35  # 10,000 against some 50
    assert len(draw_centres(rows, 9, np.random.default_rng(0))) == 3  # there are no more


def test_squared_distances_are_those_of_brute_force():
    rows, others = blobs(20), blobs(7)
    np.testing.assert_allclose(squared_distances(rows, others), ((rows[:, None] - others) ** 2).sum(axis=2))


@pytest.mark.parametrize("ridge", [1e-6, 0.1])
def test_the_mixture_is_scikit_learns_from_the_same_start(ridge):
    rows = blobs(600, spread=8.0)
    clusters = kmeans.kmeans(rows, 3, restarts=1)
    start = mixture.maximise(rows, (clusters.labels[:, None] == np.arange(3)).astype(float), ridge)
    precisions = start.whitenings.transpose(0, 2, 1) @ start.whitenings
    theirs = GaussianMixture(
        3, reg_covar=ridge, weights_init=start.weights, means_init=start.means, precisions_init=precisions
    ).fit(rows)
    ours = mixture.fit_mixture(rows, 3, ridge=ridge)
    assert theirs.n_iter_ > 2  # more than the start
    np.testing.assert_allclose(ours.weights, theirs.weights_, rtol=1e-6)
    np.testing.assert_allclose(ours.means, theirs.means_, rtol=1e-6)
    np.testing.assert_allclose(ours.log_likelihoods(rows), theirs.score_samples(rows), rtol=1e-6)


def test_the_mixture_of_one_is_the_gaussian_of_all(monkeypatch):
    monkeypatch.setattr(mixture, "PART", 100)  # several parts, the last one partial
    rows = blobs(250, count=1)
    found = mixture.fit_mixture(rows, 1, ridge=0.0)
    covariance = np.cov(rows, rowvar=False, bias=True)
    offsets = rows - rows.mean(axis=0)
    squares = np.einsum("nd,de,ne->n", offsets, np.linalg.inv(covariance), offsets)
    expected = -0.5 * (squares + np.linalg.slogdet(2 * np.pi * covariance)[1])
    np.testing.assert_allclose(found.log_likelihoods(rows), expected, rtol=1e-9)


def test_few_different_rows_are_no_error():
    rows = np.repeat([[0.0, 0], [3, 4]], 20, axis=0)
    found = mixture.fit_mixture(rows, 10)
    np.testing.assert_allclose(sorted(found.weights), [0.5, 0.5])
    far = found.log_likelihoods(np.array([[1e6, 0]]))
    assert np.isfinite(far).all()
    assert far[0] < found.log_likelihoods(rows).min()
