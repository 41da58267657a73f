"""What the maps are judged by.

Classes: the mean of a level over a quarter of a canvas must tell the picture's class, at more than one level, so that
the levels that are kept are near to meaning.
Search: what a detector does with the maps. Places that were changed must be far from all places of the same picture before the change, the others
near to one of them, in other light and with other noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from backbone_training.recipe import Recipe

if TYPE_CHECKING:
    from backbone_training.augmentation import Batch


COVERED = 0.04  # of a cell's pixels, from which on it counts as changed


class Objective(nn.Module):
    """All heads and the sum of all losses."""

    def __init__(self, recipe: Recipe, classes: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.heads = nn.ModuleDict(
            {str(i): nn.Linear(recipe.widths[i], classes) for i, w in enumerate(recipe.class_weights) if w}
        )
        if recipe.search:
            self.steepness, self.border = nn.Parameter(torch.tensor(1.6)), nn.Parameter(torch.tensor(-2.4))
            self.level_weights = nn.Parameter(torch.zeros(3))

    def forward(self, maps: list[torch.Tensor], batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss to follow, and its parts before weighting."""
        parts = {}
        total = torch.zeros((), device=maps[0].device)
        for name, head in self.heads.items():
            loss = self._class_loss(head, maps[int(name)], batch)
            parts[f"class{int(name) + 1}"] = loss.item()
            total = total + self.recipe.class_weights[int(name)] * loss
        if self.recipe.search:
            loss = self._search_loss(maps, batch)
            parts["search"] = loss.item()
            total = total + self.recipe.search * loss
        return total, parts

    def _search_loss(self, maps: list[torch.Tensor], batch: Batch) -> torch.Tensor:
        """SPADE with a gallery of one picture: a changed place must be far from all places of the first view, the others near to one of them.

        One threshold for all pictures, and one weight a level.
        """
        pairs = len(batch.changed)
        views = [level.split((pairs, len(level) - 2 * pairs, pairs)) for level in maps[:3]]
        one, two = ([_on_grid(view[which].float(), maps[1].shape[2:]) for view in views] for which in (0, 2))
        weights = torch.softmax(self.level_weights, 0)
        scales = [(w / level.var((0, 2)).sum().clamp(min=1e-6)).sqrt() for w, level in zip(weights, one, strict=True)]
        one, two = (
            torch.cat([level * scale for level, scale in zip(view, scales, strict=True)], 1).transpose(1, 2)
            for view in (one, two)
        )  # (p, places, C)
        with torch.no_grad():  # which place is nearest may be told roughly, how far it is may not
            middle = one.mean((0, 1))
            shifted = one - middle
            products = ((two - middle).bfloat16() @ shifted.bfloat16().transpose(1, 2)).float()
            nearest = (products - 0.5 * (shifted**2).sum(2)[:, None]).argmax(2)
        found = one.gather(1, nearest[:, :, None].expand(-1, -1, one.shape[2]))
        distance = ((two - found) ** 2).sum(2)  # (p, places)
        logits = self.steepness * ((distance + 1e-3).log() - self.border)
        other, same = (each.flatten(1) for each in _labels(batch.changed, maps[1].shape[2:]))
        return (_mean(functional.softplus(-logits), other) + _mean(functional.softplus(logits), same)) / 2

    def _class_loss(self, head: nn.Module, level: torch.Tensor, batch: Batch) -> torch.Tensor:
        quarters = functional.adaptive_avg_pool2d(level.float(), 2).flatten(2).transpose(1, 2)  # (n, 4, C)
        whole = quarters.mean(1, keepdim=True).expand_as(quarters)
        logits = head(torch.where(batch.single[:, None, None], whole, quarters))
        return functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), label_smoothing=self.recipe.smoothing
        )

    def classify(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """The class of each picture by the deepest head."""
        name = max(self.heads)
        return self.heads[name](maps[int(name)].float().mean((2, 3))).argmax(1)


def _mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """The mean of the values that are meant, 0 if none is."""
    return (values * where).sum() / where.sum().clamp(min=1)


def _labels(changed: torch.Tensor, grid: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells (p, h, w) that are changed, and cells that are not and have no changed neighbour; the rest is left open."""
    cell = changed.shape[2] // grid[0]
    share = functional.avg_pool2d(changed.float(), cell)
    near = functional.max_pool2d(share, 3, 1, 1)
    return (share >= COVERED)[:, 0], (near == 0)[:, 0]


def _on_grid(level: torch.Tensor, grid: torch.Size) -> torch.Tensor:
    """Bring a level to the grid that is searched, as a detector does: finer ones averaged, coarser ones interpolated. (p, C, places)"""
    if level.shape[2] > grid[0]:
        level = functional.avg_pool2d(level, level.shape[2] // grid[0])
    elif level.shape[2] < grid[0]:
        level = functional.interpolate(level, size=grid, mode="bilinear")
    return level.flatten(2)
