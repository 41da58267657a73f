"""The global vector: what lies where, in few numbers, so that the nearest images show a part in the same pose.

A mean over the whole picture knows no angle: by the mean of the deepest level the nearest gear is turned as a random one is. Here a level is brought to
few whitened channels (its main axes on natural pictures, each divided by its own deviation) and averaged over 8 x 8 fields. All of it is
part of the ONNX graph, at any picture size.
"""

from __future__ import annotations

import torch
from torch import nn

LEVEL = 1  # counted from 0: stride 8
FIELDS, AXES = 8, 16
FLOOR = 0.02  # of the largest variance: weaker axes are not blown up to the same size


class Vector(nn.Module):
    """A level's main axes over 8 x 8 fields: (n, C, H, W) to (n, 16 * 64)."""

    def __init__(self, mean: torch.Tensor, covariance: torch.Tensor) -> None:
        super().__init__()
        variances, axes = torch.linalg.eigh(covariance.double())
        variances, axes = variances.flip(0)[:AXES], axes.flip(1)[:, :AXES]
        weights = (axes / (variances + FLOOR * variances[0]).sqrt()).T  # (16, C)
        self.register_buffer("weights", weights.float())
        self.register_buffer("shift", -(weights @ mean.double()).float()[:, None, None])

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        """Project after averaging: the same result, from fewer places."""
        rows, columns = (_fields(level.shape[axis], level.device) for axis in (2, 3))
        pooled = rows @ level @ columns.T  # (n, C, 8, 8)
        return (torch.einsum("nchw,dc->ndhw", pooled, self.weights) + self.shift).flatten(1)


def _fields(size: int, device: torch.device) -> torch.Tensor:
    """What each place counts in each field: (8, size), rows of sum 1; a place counts most in the middle of its field."""
    at = (torch.arange(size, device=device) + 0.5) / size * FIELDS - 0.5
    reach = max(
        0.5 + 1e-3, FIELDS / size
    )  # in fields; a small picture has fewer places than fields, and each field must see one
    share = (reach - (at[None] - torch.arange(FIELDS, device=device)[:, None]).abs()).clamp(min=0)
    return share / share.sum(1, keepdim=True)
