"""KolektorSDD2 as released: train/ and test/ with NAME.png and NAME_GT.png, the mask; all black means normal.

The split is the data set's own, but for the anomalous pictures of train/: they are left out, since learning takes normal
pictures only and the test set stays what it is in the literature.

Source: Božič et al. 2021, Mixed supervision for surface-defect detection (KolektorSDD2). Layout as published.
"""

from __future__ import annotations

from pathlib import Path

from spadework.datasets.layout import Layout, need_mask, pictures_in
from spadework.datasets.sample import GOOD, Category, Sample, read_mask
from spadework.errors import DatasetError

_NAME = "kolektorsdd2"
_MARK = "_GT"
_SPLITS = ("train", "test")


def _detect(root: Path) -> bool:
    return all(any(path.stem.endswith(_MARK) for path in pictures_in(root / split, (".png",))) for split in _SPLITS)


def _read(root: Path) -> list[Category]:
    train = [sample for sample in _read_split(root, "train") if not sample.is_anomalous]
    test = _read_split(root, "test")
    if not train or not test:
        raise DatasetError(f"{root}: has {len(train)} normal train and {len(test)} test pictures; it needs both.")
    return [Category(_NAME, _NAME, root, tuple(train), tuple(test))]


def _read_split(root: Path, split: str) -> list[Sample]:
    paths = pictures_in(root / split, (".png",))
    stems = {path.stem for path in paths}
    return [_sample(path, split) for path in paths if not _belongs_to_another(path.stem, stems)]


def _belongs_to_another(stem: str, stems: set[str]) -> bool:
    """Whether the file is the mask of a picture, or a copy of one, such as "10301_GT (copy)" beside "10301"."""
    name, mark, _ = stem.partition(_MARK)
    return bool(mark) and name in stems


def _sample(path: Path, split: str) -> Sample:
    mask = need_mask(path, [path.parent], [f"{path.stem}{_MARK}.png"])
    if read_mask(mask).any():
        return Sample(path, split, "defect", True, mask, _NAME)
    return Sample(path, split, GOOD, False, None, _NAME)


KOLEKTORSDD2 = Layout(
    name=_NAME,
    title="KolektorSDD2, the original release",
    tree="""\
train/NAME.png, train/NAME_GT.png   the anomalous ones (mask not all black) are left out
test/NAME.png, test/NAME_GT.png     NAME_GT.png is the mask; all black means normal""",
    detect=_detect,
    read=_read,
)
