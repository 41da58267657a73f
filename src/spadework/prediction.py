"""What a detector answers: `Prediction`, a sequence of them, and the failures among a batch; `Judgement`, what it is made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from spadework.correspondence import Correspondence
from spadework.errors import InputError, SpadeworkError
from spadework.images import View
from spadework.scores import Region


@dataclass(frozen=True)
class Judgement:
    """What a method says of one picture, before anything is brought to picture size.

    distances: (H, W) on the fine grid, higher is more anomalous; None if the method gives no map.
    image_score: its own image score; None to take the highest value of the smoothed map.
    """

    distances: np.ndarray | None
    image_score: float | None = None
    correspondence: Correspondence | None = None
    nearest_images: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture. A higher score is more anomalous.

    score: image score. threshold: a score above it is an alarm; None if none could be set.
    is_anomalous: the verdict; None without a threshold.
    score_map: float32 (H, W) at the picture's size, NaN where nothing was inspected; None if the detector gives none.
    map_threshold: what regions lie above. regions: highest first.
    path: where the picture came from; None for an array. size: (H, W).
    nearest_images: (name, squared distance) of the nearest normal images, nearest first.
    view_map: float32 (h, w), the map at the size at which the network sees the picture, without padding; None if the detector gives none.
    image: uint8 (H, W, 3), the picture as it was read; None unless `predict_each` was told to keep it.
    """

    score: float
    is_anomalous: bool | None
    score_map: np.ndarray | None
    regions: tuple[Region, ...]
    path: str | None
    size: tuple[int, int]
    threshold: float | None
    map_threshold: float | None
    nearest_images: tuple[tuple[str, float], ...] = ()
    seconds: float = 0.0
    view_map: np.ndarray | None = field(default=None, repr=False)
    correspondence: Correspondence | None = field(default=None, repr=False)
    view: View | None = field(default=None, repr=False)
    image: np.ndarray | None = field(default=None, repr=False)

    @property
    def verdict(self) -> str:
        """ "anomalous", "normal", or "no threshold"."""
        if self.is_anomalous is None:
            return "no threshold"
        return "anomalous" if self.is_anomalous else "normal"

    def to_json(self) -> dict[str, Any]:
        """Return everything but the map as plain JSON values."""
        return {
            "path": self.path,
            "score": self.score,
            "is_anomalous": self.is_anomalous,
            "verdict": self.verdict,
            "threshold": self.threshold,
            "map_threshold": self.map_threshold,
            "size": list(self.size),
            "regions": [
                {"box": list(r.box), "area": r.area, "peak": list(r.peak), "score": r.score} for r in self.regions
            ],
            "nearest_images": [{"name": name, "distance": distance} for name, distance in self.nearest_images],
            "seconds": round(self.seconds, 4),
        }


@dataclass(frozen=True)
class Failure:
    """A picture of a batch that could not be inspected."""

    path: str | None
    error: SpadeworkError


class Predictions(Sequence[Prediction]):
    """What `predict` returns, for one picture or many: a sequence of `Prediction`.

    A sequence of exactly one can be read like the prediction itself: `predict("part.png").score`.
    """

    def __init__(self, predictions: Iterable[Prediction]) -> None:
        self._items = tuple(predictions)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Predictions: ...
    def __getitem__(self, index: int | slice) -> Prediction | Predictions:
        return Predictions(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __repr__(self) -> str:
        lines = "\n".join(f"  {p.score:.4g} {p.verdict} {p.path or '(array)'}" for p in self._items[:20])
        more = f"\n  ... {len(self) - 20} more" if len(self) > 20 else ""
        return f"{len(self)} predictions (score, verdict, path):\n{lines}{more}"

    @property
    def scores(self) -> np.ndarray:
        """(n,) float64."""
        return np.array([item.score for item in self._items], np.float64)

    @property
    def only(self) -> Prediction:
        """The prediction of a sequence of one. Raises InputError for any other length."""
        if len(self) != 1:
            raise InputError(f"there are {len(self)} predictions, not one: take one by its index, e.g. predictions[0].")
        return self._items[0]

    score = property(lambda self: self.only.score)
    is_anomalous = property(lambda self: self.only.is_anomalous)
    score_map = property(lambda self: self.only.score_map)
    regions = property(lambda self: self.only.regions)
    path = property(lambda self: self.only.path)
    threshold = property(lambda self: self.only.threshold)
    verdict = property(lambda self: self.only.verdict)
    nearest_images = property(lambda self: self.only.nearest_images)
