"""VisA as released: pictures by category, and a table that says which picture belongs to which split.

The split is that of `split_csv/1cls.csv`: learning from normal pictures only. Categories of the table whose folder was not
copied are passed over; a picture or mask that is missing inside a folder that is there is refused. Mask values are labels
(1, 2, ...), so that everything above 0 is defect.

Source: Zou et al. 2022, SPot-the-Difference (VisA). Layout as published.
"""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from spadework.datasets.layout import Layout, found
from spadework.datasets.sample import GOOD, Category, Sample
from spadework.errors import DatasetError

_TABLE = Path("split_csv") / "1cls.csv"
_COLUMNS = ("object", "split", "label", "image", "mask")
_SPLITS = ("train", "test")
_LABELS = {"normal": False, "anomaly": True}


def _detect(root: Path) -> bool:
    return (root / _TABLE).is_file()


def _read(root: Path) -> list[Category]:
    table = root / _TABLE
    samples: dict[str, list[Sample]] = {}
    for number, row in _rows(table):
        if (root / _inside(row["object"], f"{table}, line {number}")).is_dir():
            samples.setdefault(row["object"], []).append(_sample(root, row, f"{table}, line {number}"))
    if not samples:
        raise DatasetError(f"{root}: none of the categories in {table} has its folder here.\nFound:\n{found(root)}")
    return [_category(root, name, samples[name]) for name in sorted(samples)]


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            rows = list(enumerate(reader, start=2))
            columns = tuple(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{table}: the table of splits cannot be read: {error}.") from error
    missing = [column for column in _COLUMNS if column not in columns]
    if missing:
        raise DatasetError(
            f"{table}: the column {missing[0]!r} is missing; expected {','.join(_COLUMNS)}, found {','.join(columns)}."
        )
    return rows


def _sample(root: Path, row: dict[str, str], where: str) -> Sample:
    split, label = row["split"], row["label"]
    if split not in _SPLITS or label not in _LABELS:
        raise DatasetError(
            f"{where}: expected split train or test and label normal or anomaly, found {split!r}, {label!r}."
        )
    anomalous = _LABELS[label]
    if anomalous and split == "train":
        raise DatasetError(f"{where}: an anomalous picture in the train split; learning takes normal pictures only.")
    picture = _file(root, row["image"], where)
    mask = _file(root, row["mask"], where) if anomalous and row["mask"] else None
    return Sample(picture, split, label if anomalous else GOOD, anomalous, mask, row["object"])


def _file(root: Path, name: str, where: str) -> Path:
    path = root / _inside(name, where)
    if not path.is_file():
        raise DatasetError(f"{path} is missing; it is named in {where}. Copy the data set again.")
    return path


def _inside(name: str, where: str) -> PurePosixPath:
    """A relative path of the table; one that leads out of the data set is refused."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise DatasetError(f"{where}: {name!r} is no path inside the data set.")
    return path


def _category(root: Path, name: str, samples: list[Sample]) -> Category:
    train = tuple(sample for sample in samples if sample.split == "train")
    test = tuple(sample for sample in samples if sample.split == "test")
    if not train or not test:
        raise DatasetError(
            f"{root / _TABLE}: {name!r} has {len(train)} train and {len(test)} test pictures; it needs both."
        )
    return Category("visa", name, root / name, train, test)


VISA = Layout(
    name="visa",
    title="VisA, the original release",
    tree="""\
split_csv/1cls.csv              columns object,split,label,image,mask
CATEGORY/Data/Images/Normal/*
CATEGORY/Data/Images/Anomaly/NAME.JPG
CATEGORY/Data/Masks/Anomaly/NAME.png""",
    detect=_detect,
    read=_read,
)
