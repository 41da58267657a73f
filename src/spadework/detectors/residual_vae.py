"""The variational autoencoder of CAVGA: a residual encoder, a code that keeps its places, a residual decoder. Imported only when one is trained or used.

Letters: `n` pictures, `s` their side, `g` the side of the grid of codes, s / 2^(stages + 1), `d` numbers in the code of a place.
Source: He, Zhang, Ren and Sun 2016, Deep Residual Learning for Image Recognition, CVPR (ResNet-18); Venkataramanan et al. 2020, arXiv:1911.08616.
"""

from __future__ import annotations

import torch
from torch import nn


class Residual(nn.Module):  # type: ignore[misc]
    """Two 3 x 3 convolutions beside a way past them."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.way = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        same = before == after and stride == 1
        self.past = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """`(n, before, s, s)` to `(n, after, s / stride, s / stride)`."""
        return torch.relu(self.way(maps) + self.past(maps))


class Encoder(nn.Module):  # type: ignore[misc]
    """ResNet-18 without its last mean and layer, where stages is 4; then the mean and log variance of each place's code."""

    def __init__(self, *, width: int, stages: int, latent: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, width, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
        ]
        before = width
        for stage in range(stages):
            after = width * 2**stage
            layers += [Residual(before, after, 2 if stage else 1), Residual(after, after)]
            before = after
        self.features = nn.Sequential(*layers)
        self.mean, self.log_variance = nn.Conv2d(before, latent, 1), nn.Conv2d(before, latent, 1)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`(n, 3, s, s)` to features `(n, C, g, g)`, means and log variances `(n, d, g, g)`."""
        features = self.features(pictures)
        return features, self.mean(features), self.log_variance(features)


class Decoder(nn.Module):  # type: ignore[misc]
    """Codes grow by doublings, each followed by a residual block, to a picture in -1..1."""

    def __init__(self, *, width: int, stages: int, latent: int) -> None:
        super().__init__()
        before = width * 2 ** (stages - 1)
        layers: list[nn.Module] = [nn.Conv2d(latent, before, 1)]
        for _ in range(stages + 1):
            after = max(width // 2, before // 2)
            layers += [nn.Upsample(scale_factor=2), Residual(before, after)]
            before = after
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 3, 3, padding=1), nn.Tanh())

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """`(n, d, g, g)` to `(n, 3, s, s)`."""
        return self.layers(codes)
