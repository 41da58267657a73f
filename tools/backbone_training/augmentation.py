"""From pictures to canvases: whole batches at once, nothing picture by picture.

In: uint8 (4n, 64, 64, 3). Out: float32 (n, 3, 128, 128), normalised. A canvas is a mosaic of four pictures at their own
sharpness, or a single one enlarged. Mosaics cost what four small pictures cost, yet show the network a large field: fewer of
the places it learns from lie at a border. Letters: `B` pictures, `n` canvases, `S` side of a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from backbone_training.changes import plant, shade
from backbone_training.recipe import Recipe

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CELL = 64
CELLS = 4  # of a mosaic


@dataclass(frozen=True)
class Strength:
    """How far pictures are changed. area: the smallest share of a picture that a crop keeps; turn: degrees; light, contrast, tint: widths of factors around 1;
    grey, blur, noise: shares of pictures."""

    area: float = 0.3
    turn: float = 10.0
    light: float = 0.3
    contrast: float = 0.4
    tint: float = 0.15
    saturation: float = 0.6
    grey: float = 0.2
    blur: float = 0.2
    noise: float = 0.3
    noise_width: float = 0.08


# What differs between two pictures of an inspection: far less than between two of the world.
WORLD = Strength()
SESSION = Strength(
    light=0.08, contrast=0.12, tint=0.03, saturation=0.1, grey=0.0, blur=0.3, noise=0.7, noise_width=0.03
)


def crop(pictures: torch.Tensor, side: int, strength: Strength, rng: torch.Generator) -> torch.Tensor:
    """Random resized crops, turned a little, half of them mirrored: float (B, 3, H, W) to (B, 3, side, side)."""
    B = len(pictures)
    area = _uniform(B, strength.area, 1.0, rng)
    aspect = torch.exp(_uniform(B, -0.25, 0.25, rng))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    mirrored = torch.where(_uniform(B, 0, 1, rng) < 0.5, -1.0, 1.0)
    turn = torch.deg2rad(_uniform(B, -strength.turn, strength.turn, rng))
    cos, sin = turn.cos(), turn.sin()
    x = _uniform(B, -1, 1, rng) * (1 - width)
    y = _uniform(B, -1, 1, rng) * (1 - height)
    affine = torch.stack(
        [
            torch.stack([width * cos * mirrored, -width * sin, x], 1),
            torch.stack([height * sin * mirrored, height * cos, y], 1),
        ],
        1,
    ).to(pictures.device)
    grid = functional.affine_grid(affine, [B, 3, side, side], align_corners=False)
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def recolour(pictures: torch.Tensor, strength: Strength, rng: torch.Generator) -> torch.Tensor:
    """Brightness, contrast, saturation, tint and grey of pictures in 0..1: all of it is one affine map of RGB for each."""
    B, device = len(pictures), pictures.device
    luma = torch.tensor([0.299, 0.587, 0.114])
    keep = 1 + _uniform(B, -strength.saturation, strength.saturation, rng)
    keep = torch.where(_uniform(B, 0, 1, rng) < strength.grey, torch.zeros(B), keep)[:, None, None]
    matrix = keep * torch.eye(3) + (1 - keep) * luma.expand(3, 3)
    gain = (1 + _uniform(B, -strength.contrast, strength.contrast, rng))[:, None]
    gain = gain * (1 + strength.tint * (2 * torch.rand(B, 3, generator=rng) - 1))
    matrix = gain[:, :, None] * matrix
    mean = pictures.mean((2, 3)).cpu()  # contrast turns around a picture's own mean
    light = _uniform(B, -strength.light, strength.light, rng)[:, None]
    shift = mean * (1 + light) - torch.einsum("bij,bj->bi", matrix, mean)
    matrix, shift = matrix.to(device), shift.to(device)
    flat = pictures.flatten(2)
    return torch.baddbmm(shift[:, :, None], matrix, flat).view_as(pictures).clamp_(0, 1)


def degrade(pictures: torch.Tensor, strength: Strength, rng: torch.Generator) -> torch.Tensor:
    """Blur some pictures, add sensor noise to others."""
    B = len(pictures)
    blurred = (_uniform(B, 0, 1, rng) < strength.blur).nonzero()[:, 0].to(pictures.device)
    if len(blurred):
        sigma = float(_uniform(1, 0.4, 1.5, rng))
        pictures[blurred] = _blur(pictures[blurred], sigma)
    noisy = (_uniform(B, 0, 1, rng) < strength.noise).nonzero()[:, 0].to(pictures.device)
    if len(noisy):
        width = _uniform(len(noisy), 0, strength.noise_width, rng)[:, None, None, None]
        noise = torch.randn((len(noisy), *pictures.shape[1:]), generator=rng) * width
        pictures[noisy] += noise.to(pictures.device)
    return pictures


def normalise(pictures: torch.Tensor) -> torch.Tensor:
    """From 0..1 to what the network expects, channels last."""
    mean = torch.tensor(MEAN, device=pictures.device)[:, None, None]
    std = torch.tensor(STD, device=pictures.device)[:, None, None]
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


def mosaic(cells: torch.Tensor) -> torch.Tensor:
    """(4n, 3, S, S) to (n, 3, 2S, 2S): four consecutive pictures, row by row."""
    B, C, S, _ = cells.shape
    return cells.view(B // 4, 2, 2, C, S, S).permute(0, 3, 1, 4, 2, 5).reshape(B // 4, C, 2 * S, 2 * S)


def _blur(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    reach = 3
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=pictures.device) / sigma) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    padded = functional.pad(pictures, (reach, reach, reach, reach), mode="reflect")
    return functional.conv2d(functional.conv2d(padded, weights, groups=3), weights.transpose(2, 3), groups=3)


def _uniform(count: int, low: float, high: float, rng: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, generator=rng)


@dataclass(frozen=True)
class Batch:
    """canvases: float32 (n + p, 3, 128, 128), the last p being the first p once more, in other light and with planted changes.
    labels: int64 (n + p, 4), of the quarters, row by row. single: bool (n + p,), one picture fills the canvas.
    changed: bool (p, 1, 128, 128), where the second view differs.
    """

    canvases: torch.Tensor
    labels: torch.Tensor
    single: torch.Tensor
    changed: torch.Tensor


def make_batch(
    pictures: torch.Tensor, labels: torch.Tensor, recipe: Recipe, rng: torch.Generator, strength: Strength = WORLD
) -> Batch:
    """Turn uint8 (B, 64, 64, 3) into canvases; which pictures share a canvas is drawn anew."""
    order = torch.randperm(len(pictures), generator=rng)
    pictures = pictures[order.to(pictures.device)].permute(0, 3, 1, 2).contiguous().float().div_(255)
    labels = labels[order]
    unique = recipe.canvases - recipe.pairs
    n_large = round(unique * recipe.large)
    large = crop(pictures[:n_large], 2 * CELL, strength, rng)
    small = crop(pictures[n_large:], CELL, strength, rng)
    plain = torch.cat([recolour(large, strength, rng), mosaic(recolour(small, strength, rng))])
    again = torch.randperm(unique, generator=rng)[: recipe.pairs]  # which canvases are seen a second time
    order = torch.cat([again, torch.tensor(sorted(set(range(unique)) - set(again.tolist())), dtype=torch.int64), again])
    second, changed = _second_view(plain[again.to(plain.device)], rng)
    first = degrade(plain[order[:unique].to(plain.device)], strength, rng)
    canvases = normalise(torch.cat([first, second]))

    def spread(values: torch.Tensor) -> torch.Tensor:
        quarters = torch.cat([values[:n_large, None].expand(-1, CELLS), values[n_large:].view(-1, CELLS)])
        return quarters[order].to(canvases.device)

    single = (order < n_large).to(canvases.device)
    return Batch(canvases, spread(labels), single, changed)


def _second_view(canvases: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    if not len(canvases):
        return canvases, canvases[:, :1] > 1
    changed, where = plant(canvases, rng)
    return degrade(recolour(shade(changed, rng).clamp(0, 1), SESSION, rng), SESSION, rng), where
