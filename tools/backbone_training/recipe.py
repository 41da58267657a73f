"""What a training run is made of: every number that shapes the weights, in one record that is written beside them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The settings of a run.

    widths, depths: channels and blocks of each stage; a fourth stage is trained but not exported.
    epochs: passes over the pictures. canvases: of 128 x 128 pixels in a batch; large: the share of them that shows one enlarged picture instead of four.
    pairs: canvases of a batch that are seen a second time, in other light, for the losses that compare places.
    rate, momentum, decay, warm_up: of SGD with Nesterov momentum; the rate rises over the share `warm_up` of all steps and falls along a cosine.
    smoothing: of the labels. average: decay of the averaged weights.
    class_weights: of the class losses, for levels 1, 2, ...; 0 leaves a level without a head.
    search: weight of the search loss. seed: of weights, order and augmentation.
    """

    widths: tuple[int, ...] = (64, 128, 256)
    depths: tuple[int, ...] = (2, 2, 2)
    epochs: int = 10
    canvases: int = 64
    large: float = 0.25
    pairs: int = 32
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4
    warm_up: float = 0.08
    smoothing: float = 0.1
    average: float = 0.998
    class_weights: tuple[float, ...] = (0.0, 0.3, 1.0)
    search: float = 3.0
    seed: int = 0
