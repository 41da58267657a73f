"""A mixture of Gaussians with full covariances, fitted by expectation and maximisation.

In: rows (n, D) float64. Out: weights, means and covariances of k Gaussians, and the log-likelihood of any row under them. The first step starts
from k-means. Written out here because it is a few lines: a user of the base install shall need nothing more. Tests hold it against scikit-learn.
Letters: `n` rows, `D` numbers in one, `k` Gaussians.
Source: Dempster, Laird and Rubin 1977, Maximum Likelihood from Incomplete Data via the EM Algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spadework.kmeans import kmeans
from spadework.sketches import SMALL, product

STEPS = 100
TOLERANCE = 1e-3  # of the mean log-likelihood, as scikit-learn's default
PART = 1 << 11  # rows at a time


@dataclass(frozen=True)
class Mixture:
    """weights: float64 (k,). means: (k, D). whitenings: (k, D, D), inverse lower Cholesky factors of the covariances."""

    weights: np.ndarray
    means: np.ndarray
    whitenings: np.ndarray

    def log_densities(self, rows: np.ndarray) -> np.ndarray:
        """Return log(weight) + log(density) of rows (n, D) under each Gaussian, (n, k)."""
        out = np.empty((len(rows), len(self.weights)))
        determinants = np.log(np.einsum("kdd->kd", self.whitenings)).sum(axis=1)
        constants = np.log(self.weights) + determinants - 0.5 * self.means.shape[1] * np.log(2 * np.pi)
        turned = np.ascontiguousarray(self.whitenings.transpose(2, 0, 1).reshape(self.means.shape[1], -1))  # (D, k*D)
        origins = np.einsum("kde,ke->kd", self.whitenings, self.means).reshape(-1)
        for start in range(0, len(rows), PART):
            white = product(rows[start : start + PART], turned)
            white -= origins
            white = white.reshape(len(white), *self.means.shape)
            out[start : start + PART] = constants - 0.5 * np.einsum("nkd,nkd->nk", white, white)
        return out

    def log_likelihoods(self, rows: np.ndarray) -> np.ndarray:
        """Return the log-likelihood of each row, (n,)."""
        return log_sum(self.log_densities(rows))


def fit_mixture(rows: np.ndarray, count: int, *, seed: int = 0, ridge: float = 1e-6) -> Mixture:
    """Fit a mixture, from the clusters of k-means.

    Args:
        rows: (n, D), at least one.
        count: Gaussians; fewer where there are fewer different rows.
        seed: of k-means.
        ridge: added to each variance.
    """
    rows = np.asarray(rows, np.float64)
    clusters = kmeans(rows, count, seed=seed, restarts=1)
    shares = (clusters.labels[:, None] == np.arange(len(clusters.centres))).astype(np.float64)
    return improve(rows, maximise(rows, shares, ridge), ridge)


def improve(rows: np.ndarray, mixture: Mixture, ridge: float) -> Mixture:
    """Expectation and maximisation in turn until the mean log-likelihood rises by less than `TOLERANCE`."""
    before = -np.inf
    for _ in range(STEPS):
        logs = mixture.log_densities(rows)
        sums = log_sum(logs)
        mixture = maximise(rows, np.exp(logs - sums[:, None]), ridge)
        if abs(sums.mean() - before) < TOLERANCE:
            break
        before = sums.mean()
    return mixture


def maximise(rows: np.ndarray, shares: np.ndarray, ridge: float) -> Mixture:
    """The most likely mixture when each row (n, D) belongs to the Gaussians in these shares, (n, k)."""
    counts = (
        shares.sum(axis=0) + 10 * np.finfo(np.float64).eps
    )  # one that lost all its rows keeps a weight, however small
    means = _crossed(shares, rows) / counts[:, None]
    whitenings = np.empty((len(counts), rows.shape[1], rows.shape[1]))
    for k, mean in enumerate(means):
        offsets = rows - mean
        covariance = _crossed(shares[:, k, None] * offsets, offsets) / counts[k] + ridge * np.eye(rows.shape[1])
        whitenings[k] = np.linalg.inv(np.linalg.cholesky(covariance))
    return Mixture(counts / counts.sum(), means, whitenings)


def _crossed(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`left.T @ right` in pieces that OpenBLAS does in one thread; see `sketches.product`."""
    step = max(1, SMALL // (left.shape[1] * right.shape[1]))
    parts = (slice(start, start + step) for start in range(0, len(left), step))
    return np.asarray(sum(left[part].T @ right[part] for part in parts))


def log_sum(logs: np.ndarray) -> np.ndarray:
    """Log of the sums of the exponentials, along the last axis, without overflow."""
    top = logs.max(axis=-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(logs - top).sum(axis=-1)))
