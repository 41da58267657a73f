"""What every data set is read into: samples, categories, data sets; and how a mask becomes a boolean array.

A `Dataset` holds categories (one product each); a `Category` holds the normal pictures to learn from (`train`) and the pictures
to judge (`test`); a `Sample` is one picture with what is known of it. Nothing here decodes a picture: samples hold paths.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from spadework.errors import DatasetError, InputError
from spadework.images import FORMATS, QUIET

GOOD = "good"
_ORIENTATION = 0x0112  # the EXIF tag; values 5 to 8 turn a picture by a quarter
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257  # as stored; whether Pillow's `size` of a TIFF is turned depends on its version
_PICTURE_ERRORS = (
    OSError, UnidentifiedImageError, ValueError, SyntaxError, TypeError, KeyError, struct.error, Image.DecompressionBombError,
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One picture of a data set.

    path: the picture. split: "train" or "test". kind: "good" or the name of the defect. is_anomalous: the truth.
    mask_path: the mask file, None for normal pictures and where no mask is known. category: the product's name.
    mask_above: a mask's pixel is defect where its value is above this (0 but for masks saved with blurred borders).
    """

    path: Path
    split: str
    kind: str
    is_anomalous: bool
    mask_path: Path | None
    category: str
    mask_above: int = 0

    def read_mask(self, shape: tuple[int, int]) -> np.ndarray | None:
        """Return the truth as bool (H, W), True where defect: all False for a normal sample, None where no mask is known.

        shape: (H, W) of the picture as it is meant to be seen.

        Raises:
            DatasetError: the mask cannot be read, or its size is not `shape`.
        """
        if not self.is_anomalous:
            return np.zeros(shape, dtype=bool)
        if self.mask_path is None:
            return None
        mask = read_mask(self.mask_path, above=self.mask_above)
        if mask.shape != tuple(shape):
            raise _wrong_size(self.mask_path, mask.shape, self.path, (shape[0], shape[1]))
        return mask


@dataclass(frozen=True)
class Category:
    """One product: `train` holds normal samples only, `test` normal and anomalous ones."""

    dataset: str
    name: str
    root: Path
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]

    @property
    def has_masks(self) -> bool:
        """Whether every anomalous test sample has a mask, and there is at least one."""
        anomalous = [sample for sample in self.test if sample.is_anomalous]
        return bool(anomalous) and all(sample.mask_path is not None for sample in anomalous)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds in `test`, "good" first, then the defects by name."""
        return tuple(sorted({sample.kind for sample in self.test}, key=lambda kind: (kind != GOOD, kind)))


@dataclass(frozen=True)
class Dataset:
    """Categories found under `root`, read as `layout` (a name in `LAYOUTS`)."""

    layout: str
    root: Path
    categories: tuple[Category, ...]

    def category(self, name: str) -> Category:
        """Return the category called `name`.

        Raises:
            InputError: there is none of that name; the message lists those there are.
        """
        for category in self.categories:
            if category.name == name:
                return category
        names = ", ".join(category.name for category in self.categories)
        raise InputError(f"{self.root} has no category {name!r}; it has: {names}.")


def read_mask(path: Path, *, above: int = 0) -> np.ndarray:
    """Read a mask file as bool (H, W): True where any colour channel is above `above`.

    Palette pictures are taken by index, so that the labels 1, 2, 3 of some data sets count whatever colour they are drawn in.

    Raises:
        DatasetError: the file is missing or no picture.
    """
    try:
        with QUIET, Image.open(path, formats=FORMATS) as stored:
            picture = ImageOps.exif_transpose(stored)
            values = np.asarray(picture.convert("L") if picture.mode == "P" and above else picture)
            bands = picture.getbands()
    except _PICTURE_ERRORS as error:
        raise DatasetError(f"{path}: the mask cannot be read: {error}. Restore this file from the data set.") from error
    if values.ndim == 2:
        return values > above
    colours = [index for index, band in enumerate(bands) if band != "A"]
    return np.asarray((values[..., colours] > above).any(axis=-1))


def check_category(category: Category) -> None:
    """Check that masks are there for all anomalous samples or for none, and that each has its picture's size.

    Only headers are read. A picture that cannot be opened is let pass: whoever reads it reports it by name.

    Raises:
        DatasetError: a mask is missing, cannot be read, or differs in size.
    """
    anomalous = [sample for sample in category.test if sample.is_anomalous]
    with_mask = [sample for sample in anomalous if sample.mask_path is not None]
    without = [sample for sample in anomalous if sample.mask_path is None]
    if with_mask and without:
        raise DatasetError(
            f"{without[0].path} has no mask, while {len(with_mask)} of {len(anomalous)} anomalous pictures of "
            f"{category.name!r} have one (such as {with_mask[0].mask_path}). Add the missing masks, or remove all of them."
        )
    for sample in with_mask:
        _check_size(sample)


def _check_size(sample: Sample) -> None:
    assert sample.mask_path is not None
    picture = _size(sample.path)
    mask = _size(sample.mask_path)
    if mask is None:
        raise DatasetError(f"{sample.mask_path}: the mask cannot be read. Restore this file from the data set.")
    if picture is not None and picture != mask:
        raise _wrong_size(sample.mask_path, mask, sample.path, picture)


def _size(path: Path) -> tuple[int, int] | None:
    """(H, W) as the picture is meant to be seen, from its header; None where it cannot be opened."""
    try:
        with QUIET, Image.open(path, formats=FORMATS) as picture:
            turned = picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            width, height = picture.size
            if picture.format == "TIFF":
                tags = picture.tag_v2  # type: ignore[attr-defined]
                width, height = int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
    except _PICTURE_ERRORS:
        return None
    return (width, height) if turned else (height, width)


def _wrong_size(mask: Path, got: tuple[int, ...], picture: Path, want: tuple[int, int]) -> DatasetError:
    return DatasetError(
        f"{mask} is {got[1]} x {got[0]} pixels, its picture {picture} is {want[1]} x {want[0]}: "
        "a mask must have its picture's size. Was one of them resized?"
    )
