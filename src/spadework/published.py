"""The published tables: what the SPADE paper prints of itself and of the systems it is compared with, and what MVTec AD holds.

Every number is a percentage as printed, with the digits that were printed. `published` gives one with its source and how sure it is:
"printed" stands in the paper's own tables, "secondary" in a source that reports on it. `None` stands for what was not published.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Cohen and Hoshen 2020, arXiv:2005.02357"
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    "bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper",
)  # fmt: skip
CATEGORIES = TEXTURES + OBJECTS  # as the data set's folders are called, in the order of the paper's tables


@dataclass(frozen=True)
class Number:
    """A published percentage. certainty: "printed" or "secondary". digits: after the point, as printed."""

    value: float
    source: str
    certainty: str
    digits: int = 1

    def __str__(self) -> str:
        return f"{self.value:.{self.digits}f}"


@dataclass(frozen=True)
class System:
    """A compared system. title: as the paper's tables call it. detector: its name in the registry here."""

    title: str
    detector: str


# Table 1 and Table 2 of the paper, in their order.
IMAGE_SYSTEMS = (
    System("Geom", "geom"), System("GANomaly", "ganomaly"), System("AE-L2", "ae-l2"), System("ITAE", "itae"), System("SPADE", "spade"),
)  # fmt: skip
PIXEL_SYSTEMS = (
    System("AE-SSIM", "ae-ssim"),
    System("AE-L2", "ae-l2"),
    System("AnoGAN", "anogan"),
    System("CNN dict", "cnn-dictionary"),
    System("texture insp.", "texture-inspection"),
    System("variation model", "variation-model"),
    System("CAVGA-Ru", "cavga-ru"),
    System("SPADE", "spade"),
)
SYSTEMS = tuple(dict.fromkeys((*PIXEL_SYSTEMS, *IMAGE_SYSTEMS)))  # all eleven, each once

_: float | None = None
# One number a category, in the order of CATEGORIES: five textures, then ten objects.
_PIXEL_AUROC: dict[str, tuple[float | None, ...]] = {
    "ae-ssim": (87, 94, 78, 59, 73, 93, 82, 94, 97, 89, 91, 96, 92, 90, 88),
    "ae-l2": (59, 90, 75, 51, 73, 86, 86, 88, 95, 86, 85, 96, 93, 86, 77),
    "anogan": (54, 58, 64, 50, 62, 86, 78, 84, 87, 76, 87, 80, 90, 80, 78),
    "cnn-dictionary": (72, 59, 87, 93, 91, 78, 79, 84, 72, 82, 68, 87, 77, 66, 76),
    "texture-inspection": (88, 72, 97, 41, 78, _, _, _, _, _, _, _, _, _, _),
    "variation-model": (_, _, _, _, _, 82, _, 76, _, 60, 83, 94, 68, _, _),
    "cavga-ru": (_, _, _, _, _, _, _, _, _, _, _, _, _, _, _),
    "spade": (97.5, 93.7, 97.6, 87.4, 88.5, 98.4, 97.2, 99.0, 99.1, 98.1, 96.5, 98.9, 97.9, 94.1, 96.5),
}
_MEANS: dict[str, dict[str, float]] = {
    "image_auroc": {"geom": 67.2, "ganomaly": 76.2, "ae-l2": 75.4, "itae": 83.9, "spade": 85.5},
    "pixel_auroc": {
        "ae-ssim": 87,
        "ae-l2": 82,
        "anogan": 74,
        "cnn-dictionary": 78,
        "texture-inspection": 75,
        "variation-model": 77,
        "cavga-ru": 89,
        "spade": 96.0,
    },
    "pro": {"spade": 91.7},  # to a false-positive rate of 0.3
}
_SOURCES = {
    "image_auroc": (f"{PAPER}, Table 1", "printed"),
    "pixel_auroc": (f"{PAPER}, Table 2", "printed"),
    "pro": ("a secondary source on SPADE's PRO", "secondary"),
}


@dataclass(frozen=True)
class Reimplementation:
    """What another open implementation of SPADE says it reaches: means over MVTec AD in percent, with K nearest images."""

    k: int
    image_auroc: float
    pixel_auroc: float
    source: str = "the implementation's own description"


REIMPLEMENTATIONS = (
    Reimplementation(5, 85.4, 96.4),
    Reimplementation(3, 85.5, 96.2),
    Reimplementation(50, 80.1, 97.1),
)


def published(measure: str, detector: str, category: str | None = None) -> Number | None:
    """Return a published number; None where there is none.

    Args:
        measure: "image_auroc", "pixel_auroc" or "pro".
        detector: a name in the registry.
        category: one of CATEGORIES, or None for the mean as printed.
    """
    value: float | None
    if category is None:
        value = _MEANS[measure].get(detector)
    elif measure == "pixel_auroc" and detector in _PIXEL_AUROC:
        value = dict(zip(CATEGORIES, _PIXEL_AUROC[detector], strict=True)).get(category)
    else:
        value = None
    return (
        None if value is None else Number(float(value), *_SOURCES[measure], digits=0 if isinstance(value, int) else 1)
    )


def categories_of(detector: str) -> tuple[str, ...]:
    """Return the categories that a system's printed mean is over: all, but for the two that were made for some alone."""
    values = _PIXEL_AUROC.get(detector, ())
    printed = tuple(name for name, value in zip(CATEGORIES, values, strict=False) if value is not None)
    return printed or CATEGORIES


@dataclass(frozen=True)
class Counts:
    """What MVTec AD holds of a category: pictures to learn from, normal and defective ones to judge, kinds of defect, defective regions."""

    train: int
    good: int
    defective: int
    groups: int
    regions: int

    @property
    def test(self) -> int:
        """Pictures to judge."""
        return self.good + self.defective


# Bergmann, Fauser, Sattlegger and Steger 2019, MVTec AD, CVPR, the table of the data set. A test holds that they add up to the totals printed there.
COUNTS = {
    "carpet": Counts(280, 28, 89, 5, 97),
    "grid": Counts(264, 21, 57, 5, 170),
    "leather": Counts(245, 32, 92, 5, 99),
    "tile": Counts(230, 33, 84, 5, 86),
    "wood": Counts(247, 19, 60, 5, 168),
    "bottle": Counts(209, 20, 63, 3, 68),
    "cable": Counts(224, 58, 92, 8, 151),
    "capsule": Counts(219, 23, 109, 5, 114),
    "hazelnut": Counts(391, 40, 70, 4, 136),
    "metal_nut": Counts(220, 22, 93, 4, 132),
    "pill": Counts(267, 26, 141, 7, 245),
    "screw": Counts(320, 41, 119, 5, 135),
    "toothbrush": Counts(60, 12, 30, 1, 66),
    "transistor": Counts(213, 60, 40, 4, 44),
    "zipper": Counts(240, 32, 119, 7, 177),
}
TOTAL = Counts(3629, 467, 1258, 73, 1888)
