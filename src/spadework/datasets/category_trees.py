"""MVTec AD and BTAD: train/NORMAL, test/KIND, ground_truth/KIND; one category, or a folder of categories.

The split is the data set's own. Where a category has a `ground_truth` folder, every anomalous picture must have its mask there;
where it has none, the category has no masks. Folders beside the categories that have no `train`, `test` or `ground_truth` are
passed over; one that has some of them but not all is refused, for it is a category that was copied half.

Source: Bergmann et al. 2019, MVTec AD; Mishra et al. 2021, VT-ADL (BTAD). Layouts as published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spadework.datasets.layout import Layout, found, need_mask, need_pictures, pictures_in, subfolders
from spadework.datasets.sample import GOOD, Category, Sample
from spadework.errors import DatasetError

_PARTS = ("train", "test", "ground_truth")


@dataclass(frozen=True)
class _Tree:
    """One such layout. normal: the folder name of normal pictures. mask_names: from a picture's stem."""

    layout: str
    normal: str
    mask_names: Callable[[str], list[str]]

    def detect(self, root: Path) -> bool:
        return self._is_category(root) or any(self._is_category(folder) for folder in subfolders(root))

    def read(self, root: Path) -> list[Category]:
        if self._is_category(root):
            return [self._read_category(root.resolve())]
        folders = [folder for folder in subfolders(root) if any((folder / part).is_dir() for part in _PARTS)]
        return [self._read_category(folder) for folder in folders]

    def _is_category(self, folder: Path) -> bool:
        return (folder / "train" / self.normal).is_dir() and (folder / "test").is_dir()

    def _read_category(self, root: Path) -> Category:
        if not self._is_category(root):
            raise DatasetError(
                f"{root}: a {self.layout} category needs the folders train/{self.normal} and test.\nFound:\n{found(root)}"
            )
        train = [
            Sample(path, "train", GOOD, False, None, root.name) for path in need_pictures(root / "train" / self.normal)
        ]
        test = [sample for folder in subfolders(root / "test") for sample in self._read_kind(root, folder)]
        if not test:
            raise DatasetError(f"{root / 'test'}: holds no pictures in folders.\nFound:\n{found(root / 'test')}")
        return Category(self.layout, root.name, root, tuple(train), tuple(test))

    def _read_kind(self, root: Path, folder: Path) -> list[Sample]:
        pictures = pictures_in(folder)
        if folder.name == self.normal:
            return [Sample(path, "test", GOOD, False, None, root.name) for path in pictures]
        has_masks = (root / "ground_truth").is_dir()
        return [
            Sample(path, "test", folder.name, True, self._mask(root, path) if has_masks else None, root.name)
            for path in pictures
        ]

    def _mask(self, root: Path, picture: Path) -> Path:
        return need_mask(picture, [root / "ground_truth" / picture.parent.name], self.mask_names(picture.stem))


_MVTEC = _Tree("mvtec", GOOD, lambda stem: [f"{stem}_mask.png", f"{stem}.png"])
_BTAD = _Tree("btad", "ok", lambda stem: [f"{stem}.png", f"{stem}.bmp"])

MVTEC = Layout(
    name="mvtec",
    title="MVTec AD: one category, or a folder of categories",
    tree="""\
[CATEGORY/]train/good/*         normal pictures to learn from
[CATEGORY/]test/good/*          normal pictures to judge
[CATEGORY/]test/KIND/NAME.*     pictures with the defect KIND
[CATEGORY/]ground_truth/KIND/NAME_mask.png  (or NAME.png)""",
    detect=_MVTEC.detect,
    read=_MVTEC.read,
)

BTAD = Layout(
    name="btad",
    title="BTAD: one category, or a folder of categories",
    tree="""\
[CATEGORY/]train/ok/*           normal pictures to learn from
[CATEGORY/]test/ok/*            normal pictures to judge
[CATEGORY/]test/ko/NAME.*       pictures with a defect
[CATEGORY/]ground_truth/ko/NAME.png  (or NAME.bmp)""",
    detect=_BTAD.detect,
    read=_BTAD.read,
)
