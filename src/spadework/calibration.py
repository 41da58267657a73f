"""Thresholds with a stated false-alarm rate, from normal images alone.

In: leave-one-out scores of normal images, (n,) float64: each image scored against all the others. Out: `Threshold`.

The threshold for a rate a is the k-th smallest of the n scores, k = ceil((n + 1)(1 - a)). A new normal image and the n are exchangeable,
so its own score exceeds that with probability at most a, whatever the scores' distribution. This is the conformal bound.
It can be promised only where k <= n, that is a >= 1 / (n + 1): 99 images for one in a hundred. With fewer the threshold is the highest
score seen, and the promise is 1 / (n + 1).

Why leaving out suffices: the exact bound needs each image scored against the others *and the new one*. A further image can only lower
the distance to the nearest, so the scores used here are at least as high, and the threshold errs on the side of fewer false alarms.
(With more normal images than `gallery_k`, a further one can also push another out of the K nearest; measured in the tests, the rate holds.
A mean over *all* images, as the paper's image score is while there are fewer than `image_k`, can rise with a further one: appending
sets that threshold anew.)
The promise is for pictures like the normal ones: same part, same camera, same light. It is an average over normal sets: for one given
set the true rate scatters around it, by about sqrt(a / n).
Source: Vovk, Gammerman and Shafer 2005, Algorithmic Learning in a Random World, chapter 2; Laxhammar and Falkman 2010.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it promises.

    value: a score above it is an alarm; None where nothing can be promised (fewer than two normal images).
    asked: the rate of false alarms asked for. promised: the rate that holds, never below 1 / (n + 1).
    n: how many normal images it rests on.
    """

    value: float | None
    asked: float
    promised: float | None
    n: int

    @property
    def kept(self) -> bool:
        """Whether what was asked for is promised."""
        return self.promised is not None and self.promised <= self.asked

    def __str__(self) -> str:
        if self.value is None or self.promised is None:
            return "no threshold, so no verdicts: it takes at least 2 different normal images, each scored against the others"
        if self.kept:
            return f"at most {self.asked:.3g} false alarms per normal image, from {self.n} normal images"
        needed = f"{math.ceil(1 / self.asked) - 1}" if self.asked >= 1e-6 else "more than a million"
        return (
            f"{self.asked:.3g} false alarms per normal image cannot be promised from {self.n} normal images, only {self.promised:.3g}; "
            f"{needed} are needed"
        )


def conformal_threshold(scores: np.ndarray, max_false_alarms: float) -> Threshold:
    """Return the threshold above which a new normal image scores with probability at most `max_false_alarms`.

    Args:
        scores: (n,) float64, leave-one-out scores of normal images.
        max_false_alarms: the rate to keep, in (0, 1).
    """
    n = len(scores)
    if n < 2:  # one image has no other to be scored against
        return Threshold(None, max_false_alarms, None, n)
    # A tiny slack: (n + 1) * (1 - 0.01) is 99.00000000000001 for n = 99, and must be 99.
    k = max(1, math.ceil((n + 1) * (1 - max_false_alarms) - 1e-9))
    if k > n:
        return Threshold(float(np.max(scores)), max_false_alarms, 1 / (n + 1), n)
    return Threshold(float(np.partition(scores, k - 1)[k - 1]), max_false_alarms, max_false_alarms, n)


def choose_images(n_images: int, limit: int, seed: int) -> np.ndarray:
    """Return which images are left out in turn: all, or a seeded draw of `limit`, ascending. A draw keeps them exchangeable."""
    if n_images <= limit:
        return np.arange(n_images)
    return np.sort(np.random.default_rng(seed).choice(n_images, limit, replace=False))
