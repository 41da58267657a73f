"""The network: a plain residual pyramid whose cells lie where their pixels are.

In: float32 (n, 3, H, W). Out: levels (n, C_l, H/s, W/s) at strides 4, 8, 16. Every halving is done by windows of even size (6 x 6, 4 x 4, 2 x 2), centred on
the cell they make; the usual odd ones put a stride-16 cell 7.5 pixels off its place, and a map drawn from it too.
A fourth stage may be trained behind the third; it is not exported.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut; the first one is 4 x 4 where the grid is halved."""

    def __init__(self, inner: int, outer: int, *, halve: bool) -> None:
        super().__init__()
        size, stride = (4, 2) if halve else (3, 1)
        self.first = nn.Conv2d(inner, outer, size, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outer)
        self.second = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outer)
        self.shortcut: nn.Module = nn.Identity()
        if halve or inner != outer:
            pool = nn.AvgPool2d(2) if halve else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(n, inner, h, w)` to `(n, outer, h, w)`, or half of it."""
        y = functional.relu(self.first_norm(self.first(x)), inplace=True)
        y = self.second_norm(self.second(y))
        return functional.relu(y + self.shortcut(x), inplace=True)


class Pyramid(nn.Module):
    """Stem and stages; all maps after the stages, finest first."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int], *, calm: bool = True) -> None:
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 6, 2, 2, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        )
        stages, inner = [], first
        for number, (outer, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = [Block(inner if i == 0 else outer, outer, halve=i == 0 and number > 0) for i in range(depth)]
            stages.append(nn.Sequential(*blocks))
            inner = outer
        self.stages = nn.ModuleList(stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Block) and calm:
                nn.init.zeros_(
                    module.second_norm.weight
                )  # each block starts as its shortcut: the first steps are calmer

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """`(n, 3, H, W)` to one map a stage."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
