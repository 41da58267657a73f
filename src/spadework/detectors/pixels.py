"""What detectors share that work on pixels, without a network: the view, the rules of their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from spadework import check
from spadework.detectors.features import check_smoothing
from spadework.detectors.held_out import HeldOut, dealt
from spadework.images import View


class PixelDetector(HeldOut):
    """Base of detectors that learn from a random draw of pictures, on pixels; its settings are theirs."""

    needs: ClassVar[str] = "pixels"

    image_size: int | Sequence[int] | None
    training_images: int
    seed: int

    def _check_pixels(self) -> None:
        """Raise InputError for a setting of the view, the draw or the map that breaks a rule."""
        if self.image_size is None:
            check.not_negative(self.smoothing, "smoothing")  # how large pictures are is not known yet
        else:
            check_smoothing(self.smoothing, self._view())
        check.positive_int(self.training_images, "training_images")
        check.share(self.max_false_alarms, "max_false_alarms")
        check.whole(self.calibration_images, "calibration_images")
        check.thread_count(self.threads)
        check.whole(self.seed, "seed")

    def _calibrating(self, count: int) -> int:
        return dealt(count, learn=int(self.training_images), hold=int(self.calibration_images))[1]

    def _resident(self, count: int, sizes: Mapping[str, float]) -> float:
        drawn = min(count, int(self.training_images) + int(self.calibration_images))
        held = self._calibrating(count)
        pixels = sizes.get("held_out", 0.0) / 4 / held if held else 0.0  # of one map, which is as large as the view
        return drawn * pixels * 3

    def _view(self) -> View:
        assert self.image_size is not None  # who allows None has a view of its own
        return View(check.size(self.image_size, "image_size"))
