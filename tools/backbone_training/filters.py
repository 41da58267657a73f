"""Hand-made filters in the shape of the trained network: what can be had without any training.

Each level is the local energy of a bank of Gabor filters on brightness and two colour differences, beside their local means. Level `l` looks at the picture
shrunk by `2 ** (l - 1)`: the same bank one octave lower each time.
Source of the energy of a quadrature pair: Adelson and Bergen 1985.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

SIDE = 15  # of a filter, in pixels
LONGEST, SHORTEST = 10.0, 2.8  # wavelengths
OPPONENT = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))
GOLDEN = (math.sqrt(5) - 1) / 2


class Filters(nn.Module):
    """Levels of as many channels as asked for, and the mean of the deepest one."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.register_buffer("opponent", torch.tensor(OPPONENT)[:, :, None, None])
        for number, count in enumerate(self.channels):
            self.register_buffer(f"bank{number}", _bank(_pairs(count)))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`(n, 3, H, W)` to `(n, C_l, H/s, W/s)` each, then `(n, C_L)`."""
        maps = []
        seen = functional.conv2d(image, self.opponent)
        for number, count in enumerate(self.channels):
            if number:
                seen = functional.avg_pool2d(seen, 2)
            maps.append(self._level(seen, getattr(self, f"bank{number}"), count))
        return (*maps, maps[-1].mean((2, 3)))

    def _level(self, seen: torch.Tensor, bank: torch.Tensor, count: int) -> torch.Tensor:
        energies = [self._energy(seen[:, i : i + 1], bank) for i in range(3)]
        level = torch.cat([functional.avg_pool2d(seen, 4), *energies], 1)
        return level[:, :count]

    def _energy(self, seen: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
        even, odd = functional.conv2d(seen, bank, stride=2, padding=SIDE // 2).chunk(2, 1)
        return functional.avg_pool2d((even**2 + odd**2 + 1e-6).sqrt(), 2)


def _pairs(channels: int) -> int:
    """How many pairs of filters fill the channels that three means leave, for three colours."""
    return math.ceil((channels - 3) / 3)


def _bank(pairs: int) -> torch.Tensor:
    """Even filters, then odd ones: (2 * pairs, 1, SIDE, SIDE), each without mean and of norm 1. The golden ratio spreads any number of them evenly."""
    axis = torch.arange(SIDE) - SIDE // 2.0
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    even, odd = [], []
    for index in range(pairs):
        wavelength = LONGEST * (SHORTEST / LONGEST) ** (index / max(pairs - 1, 1))
        angle = math.pi * ((index * GOLDEN) % 1)
        along = x * math.cos(angle) + y * math.sin(angle)
        window = torch.exp(-(x**2 + y**2) / (2 * (0.45 * wavelength) ** 2))
        for kept, wave in ((even, torch.cos), (odd, torch.sin)):
            filter_ = window * wave(2 * math.pi * along / wavelength)
            filter_ = filter_ - window * filter_.sum() / window.sum()
            kept.append(filter_ / filter_.norm())
    return torch.stack(even + odd)[:, None]
