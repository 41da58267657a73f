"""k-means: few centres for many rows.

In: rows (n, D) float64. Out: centres (k, D), each row's nearest. Lloyd's steps from centres drawn by k-means++, until no row changes its centre.
Written out here because it is a few lines: a user of the base install shall need nothing more. Tests hold it against scikit-learn.
Letters: `n` rows, `D` numbers in one, `k` centres.
Source: Lloyd 1982; Arthur and Vassilvitskii 2007, k-means++: The Advantages of Careful Seeding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEPS = 300


@dataclass(frozen=True)
class Clusters:
    """centres: float64 (k, D). labels: int64 (n,), each row's nearest centre. inertia: sum of the squared distances to them."""

    centres: np.ndarray
    labels: np.ndarray
    inertia: float


def kmeans(rows: np.ndarray, count: int, *, seed: int = 0, restarts: int = 3) -> Clusters:
    """Return the best of several runs.

    Args:
        rows: (n, D), at least one.
        count: centres; fewer come back where there are fewer different rows.
        seed: of the draws of first centres.
        restarts: runs; the one with the lowest inertia is returned.
    """
    rng = np.random.default_rng(seed)
    rows = np.asarray(rows, np.float64)
    runs = [refine(rows, draw_centres(rows, count, rng)) for _ in range(restarts)]
    return min(runs, key=lambda run: run.inertia)


def draw_centres(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw first centres among the rows: each with a probability in proportion to its squared distance to those drawn before."""
    chosen = [int(rng.integers(len(rows)))]
    squares = squared_distances(rows, rows[chosen])[:, 0]
    while len(chosen) < count and squares.sum() > 0:
        chosen.append(int(rng.choice(len(rows), p=squares / squares.sum())))
        squares = np.minimum(squares, squared_distances(rows, rows[chosen[-1:]])[:, 0])
    return np.asarray(rows[chosen])


def refine(rows: np.ndarray, centres: np.ndarray) -> Clusters:
    """Move centres to the means of the rows nearest to them until none moves. A centre that loses all its rows stays where it is."""
    centres = centres.copy()
    labels = np.full(len(rows), -1)
    for _ in range(STEPS):
        squares = squared_distances(rows, centres)
        nearest = squares.argmin(axis=1)
        if (nearest == labels).all():
            break
        labels = nearest
        for label in np.unique(labels):
            centres[label] = rows[labels == label].mean(axis=0)
    squares = squared_distances(rows, centres)
    return Clusters(centres, squares.argmin(axis=1), float(squares.min(axis=1).sum()))


def squared_distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances (n, k) of rows (n, D) to others (k, D), from the differences: exactly 0 between equal rows."""
    out = np.empty((len(rows), len(others)))
    for column, other in enumerate(others):
        difference = rows - other
        out[:, column] = np.einsum("nd,nd->n", difference, difference)
    return out
