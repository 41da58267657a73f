"""The Dirichlet distribution that fits probability vectors best.

In: the mean logarithm of each component over many vectors, (k,) float64. Out: the parameters of maximum likelihood, (k,) float64, above 0.
At the maximum, digamma(a_i) - digamma(sum a) is that mean for each i. A few steps of the fixed point lead near to it from any start, Newton's method, whose
Hessian is diagonal but for one constant, does the rest.
Source: Minka 2000, Estimating a Dirichlet distribution, section 1 and appendix C.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FIXED_STEPS, STEPS, INVERSE_STEPS = 10, 100, 6
ENOUGH = 1e-10  # relative change of all parameters at which the maximum is reached
FARTHEST = 10.0  # times smaller or larger in one step
LARGEST = 1e8  # sum of the parameters: vectors all alike have no most likely distribution, they would grow without end


def fit_dirichlet(mean_logs: np.ndarray) -> np.ndarray:
    """Return the parameters of the most likely Dirichlet distribution.

    Args:
        mean_logs: the mean of log p_i, (k,) or (m, k) for m fits at once; finite, each below 0.
    """
    import torch

    wanted = torch.from_numpy(np.atleast_2d(np.array(mean_logs, np.float64)))  # (m, k)
    alpha = torch.ones_like(wanted)
    for _ in range(FIXED_STEPS):
        alpha = _bounded(_inverse_digamma(torch.digamma(alpha.sum(dim=1, keepdim=True)) + wanted))
    for _ in range(STEPS):
        step = _newton_step(alpha, wanted)
        found = _bounded(torch.clamp(alpha - step, alpha / FARTHEST, alpha * FARTHEST))
        settled = bool(((found - alpha).abs() <= ENOUGH * alpha).all())
        alpha = found
        if settled:
            break
    return np.asarray(alpha.numpy().reshape(np.shape(mean_logs)))


def _bounded(alpha: Any) -> Any:
    """All made smaller together where their sum is too large: cut off one by one they would lose their shares of it."""
    return alpha * (LARGEST / alpha.sum(dim=1, keepdim=True)).clamp(max=1.0)


def _newton_step(alpha: Any, wanted: Any) -> Any:
    """The gradient of the mean log-likelihood, times the inverse of its Hessian: diag(q) + z in every place."""
    import torch

    total = alpha.sum(dim=1, keepdim=True)
    gradient = torch.digamma(total) - torch.digamma(alpha) + wanted
    q, z = -torch.polygamma(1, alpha), torch.polygamma(1, total)
    shared = (gradient / q).sum(dim=1, keepdim=True) / (1 / z + (1 / q).sum(dim=1, keepdim=True))
    return (gradient - shared) / q


def _inverse_digamma(values: Any) -> Any:
    """Newton's method from Minka's start; five steps reach 14 digits."""
    import torch

    found = torch.where(values >= -2.22, values.exp() + 0.5, -1.0 / (values - torch.digamma(torch.ones_like(values))))
    for _ in range(INVERSE_STEPS):
        found = found - (torch.digamma(found) - values) / torch.polygamma(1, found)
    return found
