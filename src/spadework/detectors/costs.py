"""How the work of `fit` grows: what a detector knows of its own time, memory and room, for the bill in advance (`spadework.estimates`).

In: the number of normal pictures. Out: for each stage of `fit`, by the name that it reports progress under, how many steps it takes and of what size.
The bill times a small `fit` and scales each stage by these; nothing here is measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from spadework.bill import Bill
from spadework.detectors.reading import Progress
from spadework.images import Picture

READING, THRESHOLD = "reading normal images", "setting the threshold"
PREPARING = "preparing the search"
LEARNING, HOLDING = "learning", "inspecting held-out pictures"
TRAINING, AFTERWARDS = "training", "inspecting what was learnt"
INSPECTING = "inspecting"  # new pictures
PROBED = 6  # pictures at most that set the threshold of a probe


@dataclass(frozen=True)
class Growth:
    """steps: how many a stage takes. size: of one of them; a step's time goes with a power of it, which is measured within these bounds."""

    steps: float
    size: float = 1.0
    powers: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Trial:
    """A training that is only begun, to see how long it takes. seconds: after which it ends, but for two steps. pictures: as many as it stands for."""

    seconds: float
    pictures: int


ON_TRIAL: ContextVar[Trial | None] = ContextVar("ON_TRIAL", default=None)


class Costs:
    """The bill, and hooks for it; the defaults fit a method that reads each picture once and scores some of them against the others."""

    calibration_images: int = 0

    def bill(self, images: Picture | Iterable[Picture], *, path: str | os.PathLike[str] | None = None) -> Bill:
        """Say how long `fit` will take, how much memory and disk, and what to change if that is too much.

        A few of the pictures are learnt from in a temporary folder, in a few seconds; nothing is kept, and the detector is not changed.

        Args:
            images: normal pictures, as in `fit`.
            path: where the model will go: the room there counts. None for the temporary folder.

        Returns:
            `spadework.bill.Bill`: `seconds`, `memory_mb`, `disk_mb`, `stages`, `advice`.

        Raises:
            InputError: as `fit`.
        """
        from spadework.estimates import estimate

        detector: Any = self
        return estimate(detector, images, path=path)

    def _tell(self, what: str, done: int, total: int) -> None:
        """Tell whoever watches `fit` how far `_learn` is."""
        progress: Progress | None = getattr(self, "progress_", None)
        if progress:
            progress(what, done, total)

    def _stages(self, count: int) -> dict[str, Growth]:
        """The stages of `fit` with so many normal pictures."""
        return {READING: Growth(count), THRESHOLD: Growth(self._calibrating(count))}

    def _calibrating(self, count: int) -> int:
        """How many pictures set the threshold."""
        return min(count, int(self.calibration_images))

    def _inspecting(self, count: int) -> Growth:
        """How one new picture's time follows from the number of normal ones."""
        return Growth(1)

    def _probe(self) -> dict[str, Any]:
        """Settings that make a probe quick and scale by `_stages`."""
        calibrates = hasattr(type(self), "calibration_images") and "calibration_images" in vars(self)
        return {"calibration_images": min(int(self.calibration_images), PROBED)} if calibrates else {}

    def _resident(self, count: int, sizes: Mapping[str, float]) -> float:
        """Bytes of memory that grow with the pictures or with what `_probe` makes smaller; `sizes`: of the model's arrays, by name, in bytes."""
        return 0.0

    def _cheaper(self) -> list[dict[str, Any]]:
        """Changes of settings that may lower the bill, the gentlest first."""
        own = vars(self)
        changes: list[dict[str, Any]] = []
        if own.get("calibration_images", 0) > 20:
            changes.append({"calibration_images": 20})
        if own.get("storage") == "float32":
            changes.append({"storage": "float16"})
        if own.get("gallery_k", 0) > 10:
            changes.append({"gallery_k": 10})
        if "grid_stride" in own:
            changes.append({"grid_stride": 2 * int(own["grid_stride"])})
        if own.get("batch_size", 0) > 8:
            changes.append({"batch_size": int(own["batch_size"]) // 4})
        if own.get("image_size") == "auto":
            changes.append({"image_size": 256})
        if isinstance(own.get("image_size"), int) and own["image_size"] >= 128 and own.get("crop") is None:
            changes.append({"image_size": int(own["image_size"]) // 2})
        quick: Mapping[str, Any] = getattr(type(self), "QUICK", {})
        return [*changes, dict(quick)] if quick else changes
