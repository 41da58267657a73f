"""A plain folder: `good` with normal pictures, any other folders with whatever else there is, masks or not.

A fifth of the good pictures (drawn with a fixed seed, see `hold_out`) is kept from learning and judged with the others, so that
false alarms can be counted. Every other folder with pictures is a kind of defect. Masks stand in `masks/KIND` or
`ground_truth/KIND`, as NAME_mask.png or NAME.png, or beside the picture as NAME_mask.png.
"""

from __future__ import annotations

from pathlib import Path

from spadework.datasets.layout import Layout, hold_out, match_mask, need_mask, need_pictures, pictures_in, subfolders
from spadework.datasets.sample import GOOD, Category, Sample

_MASK_FOLDERS = ("masks", "ground_truth")


def _detect(root: Path) -> bool:
    return bool(pictures_in(root / GOOD))


def _read(root: Path) -> list[Category]:
    name = root.resolve().name
    train, held_out = hold_out(need_pictures(root / GOOD))
    learnt = [Sample(path, "train", GOOD, False, None, name) for path in train]
    judged = [Sample(path, "test", GOOD, False, None, name) for path in held_out]
    others = [folder for folder in subfolders(root) if folder.name not in (GOOD, *_MASK_FOLDERS)]
    judged += [sample for folder in others for sample in _read_kind(root, folder, name)]
    return [Category("folder", name, root, tuple(learnt), tuple(judged))]


def _read_kind(root: Path, folder: Path, category: str) -> list[Sample]:
    pictures = pictures_in(folder)
    names = {path.name for path in pictures}
    return [
        Sample(path, "test", folder.name, True, _mask(root, path), category)
        for path in pictures
        if not _is_mask_beside(path, names)
    ]


def _is_mask_beside(path: Path, names: set[str]) -> bool:
    """Whether NAME_mask.png stands beside a picture NAME.*."""
    stem = path.stem.removesuffix("_mask")
    return path.name == f"{stem}_mask.png" and any(Path(name).stem == stem for name in names)


def _mask(root: Path, picture: Path) -> Path | None:
    beside = match_mask([picture.parent], [f"{picture.stem}_mask.png"])
    folders = [root / name / picture.parent.name for name in _MASK_FOLDERS if (root / name).is_dir()]
    if beside or not folders:
        return beside
    return need_mask(picture, folders, [f"{picture.stem}_mask.png", f"{picture.stem}.png"])


FOLDER = Layout(
    name="folder",
    title="a folder `good` of normal pictures, beside any other folders",
    tree="""\
good/*                          normal pictures; a fifth is held out for judging
KIND/NAME.*                     pictures with the defect KIND, any number of such folders
masks/KIND/NAME_mask.png        (or NAME.png; or in ground_truth/KIND; or KIND/NAME_mask.png beside the picture)""",
    detect=_detect,
    read=_read,
)
