"""What the levels are like on natural pictures: needed to bring them to one scale, and for the axes of the global vector.

In: a network, uint8 (n, 64, 64, 3). Out: `Statistics`, tensors that a checkpoint keeps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from backbone_training import augmentation, vector
from backbone_training.network import Pyramid

COUNT = 2000


@torch.no_grad()
def measure(pyramid: Pyramid, pictures: np.ndarray, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Take every so-manyth picture, enlarged twofold.

    Returns `spread` (3,), the variance of each level summed over its channels, at the grid of stride 8 or its own, whichever is coarser; `mean` (C,)
    and `covariance` (C, C) of the level that the global vector is made from.
    """
    chosen = pictures[:: max(len(pictures) // COUNT, 1)]
    sums: list[list[torch.Tensor]] = []
    for start in range(0, len(chosen), 100):
        batch = torch.from_numpy(np.ascontiguousarray(chosen[start : start + 100])).to(device).permute(0, 3, 1, 2)
        large = functional.interpolate(batch.float() / 255, scale_factor=2, mode="bilinear")
        maps = pyramid(augmentation.normalise(large))[:3]
        sums.append([_moments(_coarse(level, index)) for index, level in enumerate(maps)])
    means, seconds = zip(*(_split(torch.stack(each).mean(0)) for each in zip(*sums, strict=True)), strict=True)
    covariances = [second - torch.outer(mean, mean) for mean, second in zip(means, seconds, strict=True)]
    spread = torch.stack([covariance.trace() for covariance in covariances])
    return {
        "spread": spread.float(),
        "mean": means[vector.LEVEL].float(),
        "covariance": covariances[vector.LEVEL].float(),
    }


def _coarse(level: torch.Tensor, index: int) -> torch.Tensor:
    return functional.avg_pool2d(level, 2) if index == 0 else level


def _moments(level: torch.Tensor) -> torch.Tensor:
    """First and second moments (C + 1, C) over all places."""
    rows = level.double().permute(0, 2, 3, 1).flatten(0, 2)
    return torch.cat([rows.mean(0)[None], rows.T @ rows / len(rows)])


def _split(moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return moments[0], moments[1:]
