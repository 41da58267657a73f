"""Magnetic-tile defects as released: one folder per defect with Imgs/NAME.jpg and Imgs/NAME.png, the mask.

The release has no split. A fifth of the normal pictures (`MT_Free`), drawn with a fixed seed (see `hold_out`), is judged
together with all defects; the rest is learnt from. Masks were saved with soft borders: above 127 is defect.

Source: Huang et al. 2020, Surface defect saliency of magnetic tile. Layout as published.
"""

from __future__ import annotations

from pathlib import Path

from spadework.datasets.layout import Layout, found, hold_out, need_mask, pictures_in, subfolders
from spadework.datasets.sample import GOOD, Category, Sample
from spadework.errors import DatasetError

_NAME = "magnetic-tile"
_PREFIX = "MT_"
_NORMAL = "MT_Free"
_PHOTOS = (".jpg", ".jpeg")
_MASK_ABOVE = 127


def _detect(root: Path) -> bool:
    return (root / _NORMAL / "Imgs").is_dir()


def _read(root: Path) -> list[Category]:
    normal = pictures_in(root / _NORMAL / "Imgs", _PHOTOS)
    if not normal:
        folder = root / _NORMAL / "Imgs"
        raise DatasetError(f"{folder}: holds no .jpg pictures.\nFound:\n{found(folder)}")
    train, held_out = hold_out(normal)
    learnt = [Sample(path, "train", GOOD, False, None, _NAME) for path in train]
    judged = [Sample(path, "test", GOOD, False, None, _NAME) for path in held_out]
    defects = [folder for folder in subfolders(root) if folder.name.startswith(_PREFIX) and folder.name != _NORMAL]
    judged += [sample for folder in defects for sample in _read_kind(folder)]
    return [Category(_NAME, _NAME, root, tuple(learnt), tuple(judged))]


def _read_kind(folder: Path) -> list[Sample]:
    kind = folder.name.removeprefix(_PREFIX).lower()
    pictures = pictures_in(folder / "Imgs", _PHOTOS)
    masks = [need_mask(path, [path.parent], [f"{path.stem}.png"]) for path in pictures]
    return [
        Sample(path, "test", kind, True, mask, _NAME, _MASK_ABOVE) for path, mask in zip(pictures, masks, strict=True)
    ]


MAGNETIC_TILE = Layout(
    name=_NAME,
    title="magnetic-tile defects, the original release",
    tree="""\
MT_Free/Imgs/*.jpg              normal pictures; a fifth is held out for judging
MT_KIND/Imgs/NAME.jpg           pictures with the defect KIND (Blowhole, Break, Crack, Fray, Uneven)
MT_KIND/Imgs/NAME.png           their masks""",
    detect=_detect,
    read=_read,
)
