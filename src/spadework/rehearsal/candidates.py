"""What a rehearsal tries: for one setting after another, values that may suit a part better, and what they would cost.

In: settings of `Spade`, `Facts` of the pictures and the network. Out: changes of settings, dicts. A setting that the user chose stays: whatever differs from
`Spade`'s own default is not tried. One that `Spade` does not have is passed over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spadework import check
from spadework.canvas import AUTO, LEAST, MOST, SHARE, is_auto
from spadework.detectors.spade import Spade
from spadework.errors import SpadeworkError

Changes = dict[str, Any]

SIZES = (192, 320, 384, 512)  # sides of the view
GROWN = 1.5  # a view is at most so much larger than the pictures are
GRIDS = (12, 96)  # places a side of the fine grid, at least and at most
SMOOTHINGS = (2.0, 4.0, 6.0, 8.0)
# With a second Gaussian: what is large and faint stands out, what is small does not drown. Of 36 ways of seeing and blurring on six renderings (seeds 50
# and 51), the ones that planted defects ask for gained 0.006 on the true defects without it, 0.020 with one of 24 pixels, 0.024 with 32 and 0.022 with 48.
WIDE, WITH_WIDE = 32.0, (2.0, 4.0)
GALLERIES = (100, 200)
POOLED = 3
HEAVIER = 2.0  # what one level counts against the others
SCORES = (1, 5, 50)  # nearest images in the image score


@dataclass(frozen=True)
class Facts:
    """What candidates depend on.

    side: of a square as large as the median picture. pictures: how many stay when a fold is held out.
    strides: of the network's levels. multiple: of its view's sides.
    """

    side: float
    pictures: int
    strides: tuple[int, ...]
    multiple: int


@dataclass(frozen=True)
class Axis:
    """A setting or two that are tried together. names: which must be the user's to give away. changes: the values."""

    name: str
    names: tuple[str, ...]
    values: Callable[[Mapping[str, Any], Facts], Iterator[Changes]]

    def changes(self, settings: Mapping[str, Any], facts: Facts, fixed: frozenset[str]) -> list[Changes]:
        """Return what to try from these settings: never what they are already, nothing that is fixed, nothing unknown, nothing that breaks a rule."""
        found = []
        for changes in self.values(settings, facts):
            if fixed & changes.keys() or all(settings.get(name) == value for name, value in changes.items()):
                continue
            if changes.keys() <= settings.keys() and _allowed({**settings, **changes}):
                found.append(changes)
        return found


def fixed_by_user(settings: Mapping[str, Any]) -> frozenset[str]:
    """The settings that differ from `Spade`'s defaults: whoever set them meant it."""
    parameters = inspect.signature(Spade.__init__).parameters
    return frozenset(name for name, value in settings.items() if parameters[name].default != value)


def _allowed(settings: Mapping[str, Any]) -> bool:
    try:
        Spade(**settings)._check_settings()
    except SpadeworkError:
        return False
    return True


def _sizes(settings: Mapping[str, Any], facts: Facts) -> Iterator[Changes]:
    for size in SIZES:
        if size <= GROWN * facts.side:
            yield {"image_size": size}
            if size > view_side(settings, facts) and settings["pooling"] == 1:
                yield {"image_size": size, "pooling": POOLED}  # a finer view, features as wide as before
    if SHARE * facts.side > SIZES[-1]:
        yield {"image_size": AUTO}
        yield {"image_size": AUTO, "grid_stride": 16}


def _galleries(settings: Mapping[str, Any], facts: Facts) -> Iterator[Changes]:
    for count in GALLERIES:
        if settings["gallery_k"] < facts.pictures and count // 2 < facts.pictures:
            yield {"gallery_k": count}


def _strides(settings: Mapping[str, Any], facts: Facts) -> Iterator[Changes]:
    for stride in (16, 4):
        if stride in facts.strides and GRIDS[0] <= grid({**settings, "grid_stride": stride}, facts) <= GRIDS[1]:
            yield {"grid_stride": stride}


def _levels(settings: Mapping[str, Any], facts: Facts) -> Iterator[Changes]:
    count = len(facts.strides)
    for length in range(count - 1, 0, -1):
        for first in range(1, count - length + 2):
            if first == count:
                continue  # the coarsest level alone sees no small defect
            yield {"levels": list(range(first, first + length))}


def _level_weights(settings: Mapping[str, Any], facts: Facts) -> Iterator[Changes]:
    count = len(settings["levels"] or facts.strides)
    for heavy in range(count if count > 1 else 0):
        yield {"level_weights": [HEAVIER if level == heavy else 1.0 for level in range(count)]}


def _pooling(settings: Mapping[str, Any], facts: Facts) -> Iterator[Changes]:
    yield {"pooling": POOLED}


def _radii(settings: Mapping[str, Any], facts: Facts) -> Iterator[Changes]:
    for share in (0.05, 0.15):
        yield {"search_radius": max(4, round(share * facts.side))}


AXES = (
    Axis("input size", ("image_size", "grid_stride", "pooling"), _sizes),
    Axis("nearest images searched", ("gallery_k",), _galleries),
    Axis("levels", ("levels",), _levels),
    Axis("level weights", ("level_weights",), _level_weights),
    Axis("search radius", ("search_radius",), _radii),
    Axis("pooling", ("pooling",), _pooling),
    Axis("grid", ("grid_stride",), _strides),
)


def after_search(settings: Mapping[str, Any], fixed: frozenset[str]) -> list[Changes]:
    """Return what can be told from the same search: other smoothings, and the image score from the nearest images."""
    found: list[Changes] = [{}]
    if not fixed & {"smoothing", "wide_smoothing"}:
        now = (settings["smoothing"], settings["wide_smoothing"])
        tried = [*((value, None) for value in SMOOTHINGS), *((value, WIDE) for value in WITH_WIDE)]
        found += [{"smoothing": value, "wide_smoothing": wide} for value, wide in tried if (value, wide) != now]
    return [changes for changes in found if not changes or _allowed({**settings, **changes})]


def other_scores(settings: Mapping[str, Any], fixed: frozenset[str]) -> list[Changes]:
    """Return other image scores, likewise."""
    if fixed & {"image_score", "image_k"} or settings["image_score"] != "map":
        return []
    return [{"image_score": "nearest-images", "image_k": count} for count in SCORES]


def view_side(settings: Mapping[str, Any], facts: Facts) -> float:
    """Return the side of a square as large as what the network sees of a picture."""
    size = settings["crop"] or settings["image_size"]
    if is_auto(size):
        return min(max(SHARE * facts.side, LEAST), MOST)
    return float(np.sqrt(np.prod(check.size(size, "image_size"))))


def grid(settings: Mapping[str, Any], facts: Facts) -> float:
    """Return the places a side of the fine grid that settings make."""
    levels = settings["levels"] or range(1, len(facts.strides) + 1)
    kept = [facts.strides[level - 1] for level in levels if level <= len(facts.strides)]
    stride = next((stride for stride in kept if stride >= settings["grid_stride"]), kept[-1])
    return view_side(settings, facts) / stride


def cost(settings: Mapping[str, Any], facts: Facts) -> float:
    """Return roughly what a picture costs, in milliseconds of two cores with the embedded network; for comparing, not for promising.

    Measured there: a forward pass goes with the pixels (6 ms at 256 x 256), a search less than with the pairs (25 ms for 32 x 32 places
    in 50 images; four times the places take about eight times as long, twice the images half as long again).
    """
    images = min(settings["gallery_k"], facts.pictures)
    search = 25.0 * (grid(settings, facts) / 32) ** 3 * (images / 50) ** 0.6
    if settings.get("search_radius") is not None:
        search *= min(1.0, 0.1 + (2 * settings["search_radius"] / facts.side) ** 2)
    if settings["image_score"] == "nearest-images":
        search += 0.1 * settings["image_k"] / 50
    return float(6.0 * (view_side(settings, facts) / 256) ** 2 + search)
