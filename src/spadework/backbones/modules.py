"""The two torch modules that turn a published network into a backbone. Imported only when a network is exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class TimmLevels(torch.nn.Module):  # type: ignore[misc]
    """Chosen intermediate maps of a timm network, then its pooled last stage.

    A transformer's single map is normalised (`norm=True`), as its own head sees it; a pyramid's maps are raw.
    """

    def __init__(self, net: Any, indices: Sequence[int]) -> None:
        super().__init__()
        self.net = net
        self.indices = list(indices)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`(n, 3, H, W)` to `(n, C_l, H_l, W_l)` each, then `(n, D)`."""
        final, maps = self.net.forward_intermediates(image, indices=self.indices, norm=len(self.indices) == 1)
        return (*maps, self.net.forward_head(final, pre_logits=True))


class StageLevels(torch.nn.Module):  # type: ignore[misc]
    """Stages that follow each other; the maps after some of them, then the mean of the last one."""

    def __init__(self, stages: Sequence[torch.nn.Module], indices: Sequence[int]) -> None:
        super().__init__()
        self.stages = torch.nn.ModuleList(stages)
        self.indices = tuple(indices)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`(n, 3, H, W)` to `(n, C_l, H_l, W_l)` each, then `(n, D)`."""
        maps = []
        for index, stage in enumerate(self.stages):
            image = stage(image)
            if index in self.indices:
                maps.append(image)
        return (*maps, image.mean(dim=(2, 3)))
