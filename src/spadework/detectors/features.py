"""What detectors share that compare features of a network: which part of a picture, which levels, which grid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from spadework import check
from spadework.backbones.pieces import WHOLE, levels_in_pieces
from spadework.canvas import LEAST, MOST, choose_canvas, is_auto
from spadework.detectors.base import Detector
from spadework.errors import InputError
from spadework.images import Picture, View
from spadework.pyramid import UPSAMPLINGS, Pyramid, build, padded

LEAST_WEIGHT = 1e-3


def check_smoothing(smoothing: float, view: View, *, name: str = "smoothing") -> None:
    """Raise InputError for a Gaussian on the map that is no number, or wider than the map."""
    if check.not_negative(smoothing, name) > max(view.size):
        raise InputError(f"{name} must be at most {max(view.size)}, the side of what the method sees, not {smoothing}.")


class NetworkDetector(Detector):
    """Base of detectors that run a network; its settings are theirs."""

    needs: ClassVar[str] = "pyramid"

    keeps_aspect: ClassVar[bool] = True  # pictures are fitted into a canvas, not stretched to it

    image_size: int | Sequence[int] | str
    crop: int | Sequence[int] | None

    def _check_network(self) -> None:
        """Raise InputError for a setting of the network or the view that breaks a rule."""
        check.path(self.backbone, "backbone")
        if self.weights is not None:
            check.path(self.weights, "weights")
        if self.crop is not None and is_auto(self.image_size):
            raise InputError('image_size "auto" shows the whole picture: with crop, give a number.')
        if isinstance(self.image_size, str) and not is_auto(self.image_size):
            raise InputError(f'image_size must be a number, (height, width) or "auto", not {self.image_size!r}.')
        view = self._view()
        if self.crop is not None and (view.resize[0] < max(view.size) or len(view.resize) != 1):
            raise InputError(
                f"crop {self.crop} does not fit in image_size {self.image_size}, the shorter side after resizing."
            )

    def _choose_canvas(self, pictures: Sequence[Picture]) -> View | None:
        if self.crop is not None or not self.keeps_aspect:
            return None
        fixed, multiple = self.backbone_.fixed_size, self.backbone_.multiple
        if fixed is not None:  # it sees padded pictures; another size than the network's is refused when it runs
            return View(fixed if is_auto(self.image_size) else check.size(self.image_size, "image_size"), pad=True)
        canvas = choose_canvas(pictures, self.image_size, multiple=multiple)
        self.backbone_.check_size(*canvas)
        return View(canvas, pad=True, step=multiple)

    def _view(self) -> View:
        if self.crop is None and self.keeps_aspect:
            canvas: View | None = getattr(self, "canvas_", None)
            if canvas is not None and self.canvas_of_ == self.settings()["image_size"]:  # else changed since `fit`
                return canvas
            if is_auto(self.image_size):
                return View((LEAST, LEAST), pad=True)  # until `fit` has seen the pictures' sizes
        size = check.size(self.image_size, "image_size")
        if self.crop is None:
            return View(size)
        crop = check.size(self.crop, "crop")
        return View((size[0],) if size[0] == size[1] else size, crop)


class PyramidDetector(NetworkDetector):
    """Base of detectors that compare features place by place; its settings are theirs."""

    levels: Sequence[int] | None
    level_weights: Sequence[float] | None = None
    grid_stride: int
    pooling: int
    upsampling: str

    def _choose_canvas(self, pictures: Sequence[Picture]) -> View | None:
        levels, weights = self._levels(len(self.backbone_.strides)), self._wanted_weights()
        if weights is not None:  # told now, not of the first picture
            self._check_weights(weights, len(levels))
        return super()._choose_canvas(pictures)

    def _check_features(self) -> None:
        """Raise InputError for a setting of the features, the view or the map that breaks a rule."""
        for name in ("grid_stride", "pooling"):
            check.positive_int(getattr(self, name), name)
        if self.pooling % 2 == 0:
            raise InputError(f"pooling must be odd, so that a neighbourhood has a centre, not {self.pooling}.")
        check.one_of(self.upsampling, "upsampling", UPSAMPLINGS)
        self._check_network()
        wanted, weights = self._wanted_levels(), self._wanted_weights()
        if wanted is not None and weights is not None:
            self._check_weights(weights, len(list(self.levels)) if self.levels is not None else 0)
            if len(wanted) != len(weights):
                raise InputError(
                    f"levels names one twice, so level_weights is not clear: {self.levels!r}. Name each once."
                )
        self._check_smoothing()

    def _check_smoothing(self) -> None:
        # With "auto" it is not known yet how large pictures are.
        view = View((MOST, MOST)) if is_auto(self.image_size) else self._view()
        check_smoothing(self.smoothing, view)
        if self.wide_smoothing is None:
            return
        check_smoothing(self.wide_smoothing, view, name="wide_smoothing")
        if self.wide_smoothing <= self.smoothing:
            raise InputError(
                f"wide_smoothing must be larger than smoothing, {self.smoothing:g}, not {self.wide_smoothing:g}. Leave it out for none."
            )

    def _pyramid(self, view: np.ndarray) -> Pyramid:
        maps, vector = self._features(view)
        strides = list(self.backbone_.strides)
        chosen = self._levels(len(maps))
        kept = [strides[index] for index in chosen]
        grid = next((place for place, stride in enumerate(kept) if stride >= self.grid_stride), len(kept) - 1)
        found = build(self._weighted([maps[index] for index in chosen]), vector, grid_level=grid, pooling=self.pooling)
        canvas = self._view()
        return found if view.shape[:2] == canvas.size else padded(found, canvas.place(view.shape), canvas.size)

    def _features(self, view: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Level maps (C_l, H_l, W_l) and a global vector.

        Views run in pieces where the canvas, or the crop, is large: the mean of the deepest level then stands for the whole, also of a picture
        that fills little of it, so that all pictures have the same kind of vector.
        """
        height, width = self._view().size
        if height * width > WHOLE and self.backbone_.reach is not None:
            maps = levels_in_pieces(self.backbone_, view, self.backbone_.reach)
            return maps, maps[-1].mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
        levels, vectors = self.backbone_(view[None])
        return [level[0] for level in levels], vectors[0]

    def _levels(self, available: int) -> list[int]:
        chosen = self._wanted_levels()
        if chosen is None:
            return list(range(available))
        if chosen[-1] >= available:
            raise InputError(
                f"levels must be among 1 to {available} for {os.fspath(self.backbone)}, not {self.levels!r}."
            )
        return chosen

    def _wanted_levels(self) -> list[int] | None:
        """The levels asked for, counted from 0; None for all."""
        if self.levels is None:
            return None
        if not isinstance(self.levels, (Sequence, np.ndarray)) or isinstance(self.levels, str) or len(self.levels) == 0:
            raise InputError(f"levels must be a list of numbers, 1 for the finest level, not {self.levels!r}.")
        return sorted({check.positive_int(level, "levels") - 1 for level in self.levels})

    def _weighted(self, maps: list[np.ndarray]) -> list[np.ndarray]:
        """Level maps whose squared distances count as `level_weights` say."""
        weights = self._wanted_weights()
        if weights is None:
            return maps
        self._check_weights(weights, len(maps))
        if self.levels is not None:  # weights stand as levels were named, maps from the finest
            weights = [weight for _, weight in sorted(zip(self.levels, weights, strict=True))]
        return [level * np.float32(np.sqrt(weight)) for level, weight in zip(maps, weights, strict=True)]

    def _wanted_weights(self) -> list[float] | None:
        """The weights asked for; None for the network's own."""
        if self.level_weights is None:
            return None
        rule = f"level_weights must be a list of numbers above 0, one a level, not {self.level_weights!r}."
        if not isinstance(self.level_weights, (Sequence, np.ndarray)) or isinstance(self.level_weights, str):
            raise InputError(rule)
        weights = [check.not_negative(weight, "level_weights") for weight in self.level_weights]
        if not weights or not all(LEAST_WEIGHT <= weight <= 1 / LEAST_WEIGHT for weight in weights):
            raise InputError(
                rule + f" Each from {LEAST_WEIGHT:g} to {1 / LEAST_WEIGHT:g}; to leave out a level, use levels."
            )
        return weights

    def _check_weights(self, weights: Sequence[float], levels: int) -> None:
        if len(weights) != levels:
            raise InputError(f"level_weights must be one a level: {len(weights)} weights came for {levels} levels.")
