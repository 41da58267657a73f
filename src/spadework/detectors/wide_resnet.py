"""Wide residual networks, as Geom classifies with. Imported only when one is trained or used.

First weights, and the mean over blocks of 8 x 8 places, are those of the code of Geom's authors.
Letters: `n` pictures, `s` their side, `k` classes.
Source: Zagoruyko and Komodakis 2016, Wide Residual Networks, BMVC, arXiv:1605.07146.
"""

from __future__ import annotations

import torch
from torch import nn

GROUPS = (16, 32, 64)  # filters before widening
BLOCK = 32  # pixels a side of what one block of 8 x 8 places stands for


class Block(nn.Module):  # type: ignore[misc]
    """Two convolutions beside a way past them, normalised before and not after."""

    def __init__(self, before: int, filters: int, stride: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.BatchNorm2d(before), nn.BatchNorm2d(filters)
        self.conv_1 = nn.Conv2d(before, filters, 3, stride, padding=1, bias=False)
        self.conv_2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        changes = stride != 1 or before != filters
        self.past = nn.Conv2d(before, filters, 1, stride, bias=False) if changes else None

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """`(n, before, s, s)` to `(n, filters, s / stride, s / stride)`."""
        ready = torch.relu(self.norm_1(maps))
        past = maps if self.past is None else self.past(ready)
        return past + self.conv_2(torch.relu(self.norm_2(self.conv_1(ready))))


class WideResNet(nn.Module):  # type: ignore[misc]
    """WRN-depth-widen: three groups of (depth - 4) / 6 blocks, then means over blocks of 8 x 8 places, one for pictures of 32 x 32, and a linear layer.

    Sides that are no multiple of 32 have the whole blocks that fit, a little larger; smaller ones have one.
    """

    def __init__(self, *, depth: int, widen: int, classes: int, side: int = BLOCK, channels: int = 3) -> None:
        super().__init__()
        self.means = max(1, side // BLOCK)  # a side
        self.stem = nn.Conv2d(channels, GROUPS[0], 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        before = GROUPS[0]
        for group, filters in enumerate(filters * widen for filters in GROUPS):
            for place in range((depth - 4) // 6):
                blocks.append(Block(before, filters, 2 if group and not place else 1))
                before = filters
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(before)
        self.last = nn.Linear(before * self.means**2, classes)
        self._draw()

    def _draw(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        nn.init.zeros_(self.last.bias)  # its weights PyTorch draws as they are wanted, within 1 / sqrt(inputs)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """`(n, channels, s, s)` to the logits of each class `(n, k)`."""
        maps = torch.relu(self.norm(self.blocks(self.stem(pictures))))
        return self.last(torch.nn.functional.adaptive_avg_pool2d(maps, self.means).flatten(1))
