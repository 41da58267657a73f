"""Tiny ImageNet in memory: uint8 (n, 64, 64, 3) RGB and int64 labels (n,).

In: a folder with `train.npz` and `val.npz`, each with `webp` (all files one after another), `offsets` (n + 1), `labels`.
The decoded pictures are kept as .npy in a cache folder, so that 100,000 are decoded once and not at every start.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

SIDE = 64
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Pictures:
    """One split. pictures: uint8 (n, 64, 64, 3) RGB. labels: int64 (n,)."""

    pictures: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.labels.max()) + 1


def load(folder: Path, split: str, cache: Path) -> Pictures:
    """Read one split, decoded before if the cache has it."""
    source = folder / f"{split}.npz"
    if not source.is_file():
        raise SystemExit(f"{source}: not found. Give the folder with {' and '.join(f'{s}.npz' for s in SPLITS)}.")
    with np.load(source) as packed:
        labels = packed["labels"].astype(np.int64)
        target = cache / f"tiny-imagenet-{split}-{len(labels)}.npy"
        if target.is_file():
            return Pictures(np.load(target), labels)
        pictures = _decode(packed["webp"], packed["offsets"])
    cache.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part.npy")
    np.save(part, pictures)
    part.replace(target)  # a cache is whole or not there
    return Pictures(pictures, labels)


def _decode(stream: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    pictures = np.empty((len(offsets) - 1, SIDE, SIDE, 3), np.uint8)
    for row, (start, end) in enumerate(pairwise(offsets)):
        pictures[row] = cv2.imdecode(stream[start:end], cv2.IMREAD_COLOR)[..., ::-1]
    return pictures
