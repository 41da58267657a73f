"""U-Net, as ITAE restores pictures with. Imported only when one is trained or used.

Letters: `n` pictures, `s` their side, a multiple of 16.
Source: Ronneberger, Fischer and Brox 2015, U-Net, MICCAI, arXiv:1505.04597; padded convolutions, batch normalisation and bilinear growing as is usual since.
"""

from __future__ import annotations

import torch
from torch import nn


def two_convolutions(before: int, middle: int, after: int) -> nn.Module:
    """Return two 3 x 3 convolutions, each normalised and rectified."""
    layers: list[nn.Module] = []
    for entering, leaving in ((before, middle), (middle, after)):
        layers += [nn.Conv2d(entering, leaving, 3, padding=1, bias=False), nn.BatchNorm2d(leaving), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):  # type: ignore[misc]
    """Four halvings, with width, 2, 4, 8 and 8 times width filters, and four doublings that see the maps of the way down."""

    def __init__(self, channels: int, outputs: int, *, width: int) -> None:
        super().__init__()
        filters = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        pairs = zip([channels, *filters], filters, strict=False)
        self.down = nn.ModuleList(two_convolutions(before, after, after) for before, after in pairs)
        above = zip(filters[:0:-1], filters[-2::-1], strict=True)  # (from below, beside), the lowest first
        leaving = [4 * width, 2 * width, width, width]
        self.up = nn.ModuleList(
            two_convolutions(below + beside, (below + beside) // 2, after)
            for (below, beside), after in zip(_entering(list(above), leaving), leaving, strict=True)
        )
        self.shrink, self.grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.last = nn.Conv2d(width, outputs, 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """`(n, channels, s, s)` to `(n, outputs, s, s)`."""
        kept: list[torch.Tensor] = []
        maps = pictures
        for level, layers in enumerate(self.down):
            maps = layers(maps if level == 0 else self.shrink(maps))
            kept.append(maps)
        kept.pop()
        for layers in self.up:
            maps = layers(torch.cat([kept.pop(), self.grow(maps)], dim=1))
        return self.last(maps)


def _entering(levels: list[tuple[int, int]], leaving: list[int]) -> list[tuple[int, int]]:
    """What each doubling sees: the filters that leave the one below it, and those beside it on the way down."""
    below = [levels[0][0], *leaving[:-1]]
    return [(from_below, beside) for from_below, (_, beside) in zip(below, levels, strict=True)]
