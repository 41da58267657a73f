"""Planted changes: copies of canvases in which something small is other than before, and where.

In: float32 (n, 3, H, W) in 0..1. Out: the changed canvases, and bool (n, 1, H, W), True where they differ visibly. Blobs, strokes and smears of
random size, place and strength: nothing is modelled on any real or rendered defect.
"""

from __future__ import annotations

import torch
from torch.nn import functional

ROUNDS = 3  # changes a canvas
VISIBLE = 0.02  # of the range of values: five grey levels


def plant(canvases: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Change a few places of each canvas."""
    changed = canvases
    for _ in range(ROUNDS):
        round_ = (_draw(len(canvases), 1, rng) < 0.5).to(canvases.device)
        alpha = torch.where(round_, _blobs(canvases, rng), _strokes(canvases, rng))
        alpha = alpha * (0.15 + 0.85 * _draw(len(canvases), 1, rng)).to(canvases.device)
        changed = changed + alpha * (_content(changed, rng) - changed)
    return changed, (changed - canvases).abs().amax(1, keepdim=True) > VISIBLE


def shade(canvases: torch.Tensor, rng: torch.Generator, *, width: float = 0.12, shift: float = 1.0) -> torch.Tensor:
    """The same canvases once more: brighter to one side, and moved by up to `shift` pixels."""
    n, _, H, W = canvases.shape
    slopes = (2 * torch.rand(n, 2, generator=rng) - 1).to(canvases.device) * width
    moves = (2 * torch.rand(n, 2, generator=rng) - 1) * shift * 2 / torch.tensor([W, H])
    affine = torch.cat([torch.eye(2).expand(n, 2, 2), moves[:, :, None]], 2).to(canvases.device)
    grid = functional.affine_grid(affine, list(canvases.shape), align_corners=False)
    moved = functional.grid_sample(canvases, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    y, x = _axes(canvases)
    return moved * (1 + slopes[:, 0, None, None, None] * x + slopes[:, 1, None, None, None] * y)


def _content(canvases: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """What a change shows: another canvas, one colour, the place's own colours in other light, or its surroundings smeared."""
    n = len(canvases)
    kind = torch.randint(4, (n, 1, 1, 1), generator=rng).to(canvases.device)
    colour = _draw(n, 3, rng).to(canvases.device).expand_as(canvases)
    light = canvases * (0.4 + 1.2 * _draw(n, 1, rng)).to(canvases.device)
    smeared = functional.interpolate(functional.avg_pool2d(canvases, 4), scale_factor=4, mode="bilinear")
    moved = torch.roll(canvases, (1, *torch.randint(-24, 25, (2,), generator=rng).tolist()), (0, 2, 3))
    chosen = torch.where(kind == 0, moved, colour)
    chosen = torch.where(kind == 2, light, chosen)
    return torch.where(kind == 3, smeared, chosen).clamp(0, 1)


def _blobs(canvases: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Soft-edged ragged discs (n, 1, H, W)."""
    n, _, H, W = canvases.shape
    y, x = _axes(canvases)
    ragged = functional.interpolate(
        torch.randn(n, 1, 12, 12, generator=rng).to(canvases.device), size=(H, W), mode="bilinear"
    )
    at_x, at_y = (1.8 * _draw(n, 1, rng) - 0.9).to(canvases.device), (1.8 * _draw(n, 1, rng) - 0.9).to(canvases.device)
    radius = torch.exp(-3.4 + 2.0 * _draw(n, 1, rng)).to(canvases.device)  # 2 to 16 of 128 pixels
    distance = ((x - at_x) ** 2 + (y - at_y) ** 2).sqrt() / radius - 1 + 0.35 * ragged
    return (0.5 - distance * radius * W / 4).clamp(0, 1)


def _strokes(canvases: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Straight soft-edged lines (n, 1, H, W)."""
    n, _, _, W = canvases.shape
    y, x = _axes(canvases)
    ends = (1.8 * _draw(n, 4, rng) - 0.9).to(canvases.device)
    ax, ay, bx, by = (ends[:, i, None] for i in range(4))
    reach = (0.1 + 0.9 * _draw(n, 1, rng)).to(canvases.device)  # most are short
    dx, dy = (bx - ax) * reach, (by - ay) * reach
    along = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy).clamp(min=1e-6)).clamp(0, 1)
    distance = ((x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2).sqrt() * W / 2  # pixels
    half = (0.4 + 1.6 * _draw(n, 1, rng)).to(canvases.device)
    return (0.5 + half - distance).clamp(0, 1)


def _axes(canvases: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates -1..1 of the pixels: (H, 1) and (1, W)."""
    H, W = canvases.shape[2:]
    y = (2 * torch.arange(H, device=canvases.device) + 1) / H - 1
    x = (2 * torch.arange(W, device=canvases.device) + 1) / W - 1
    return y[:, None], x[None, :]


def _draw(count: int, channels: int, rng: torch.Generator) -> torch.Tensor:
    """Uniform numbers (count, channels, 1, 1)."""
    return torch.rand(count, channels, 1, 1, generator=rng)
