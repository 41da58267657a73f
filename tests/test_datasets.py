"""Data sets: each layout read exactly, found out from what is there, refused with what was found and expected."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from spadework.datasets import LAYOUTS, Category, Sample, detect_layout, open_dataset
from spadework.datasets.sample import check_category
from spadework.errors import DatasetError, InputError
from spadework.images import read_image

SIDE = 8


def picture(path: Path, size: tuple[int, int] = (SIDE, SIDE), value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))
    return path


def mask(path: Path, size: tuple[int, int] = (SIDE, SIDE), value: int = 255) -> Path:
    """Black but for its first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size, np.uint8)
    values[0] = value
    assert cv2.imwrite(str(path), values)
    return path


def make_mvtec(root: Path) -> None:
    for name in ("cable", "nut"):
        for split, index in (("train", 0), ("train", 1), ("test", 0)):
            picture(root / name / split / "good" / f"{index:03d}.png")
        picture(root / name / "test" / "hole" / "000.png")
        mask(root / name / "ground_truth" / "hole" / "000_mask.png")


def make_btad(root: Path) -> None:
    picture(root / "01" / "train" / "ok" / "0.bmp")
    picture(root / "01" / "test" / "ok" / "1.bmp")
    picture(root / "01" / "test" / "ko" / "2.bmp")
    mask(root / "01" / "ground_truth" / "ko" / "2.png")


def make_visa(root: Path) -> None:
    lines = ["object,split,label,image,mask"]
    for split, label, file in (
        ("train", "normal", "Normal/0.JPG"),
        ("test", "normal", "Normal/1.JPG"),
        ("test", "anomaly", "Anomaly/2.JPG"),
    ):
        picture(root / "candle" / "Data" / "Images" / file)
        name = mask(root / "candle" / "Data" / "Masks" / "Anomaly" / "2.png", value=2) if label == "anomaly" else None
        lines.append(
            f"candle,{split},{label},candle/Data/Images/{file},{name.relative_to(root).as_posix() if name else ''}"
        )
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines))


def make_magnetic_tile(root: Path) -> None:
    for index in range(5):
        picture(root / "MT_Free" / "Imgs" / f"n{index}.jpg")
    for kind in ("Blowhole", "Crack"):
        picture(root / f"MT_{kind}" / "Imgs" / "a.jpg")
        mask(root / f"MT_{kind}" / "Imgs" / "a.png")


def make_kolektorsdd2(root: Path) -> None:
    for split, value in (("train", 0), ("train", 255), ("test", 0), ("test", 255)):
        picture(root / split / f"1{value}.png")
        mask(root / split / f"1{value}_GT.png", value=value)


def make_folder(root: Path) -> None:
    for index in range(5):
        picture(root / "good" / f"{index}.png")
    picture(root / "dent" / "0.png")
    mask(root / "masks" / "dent" / "0_mask.png")
    picture(root / "dirt" / "0.jpg")
    mask(root / "dirt" / "0_mask.png")


MAKERS = {
    "mvtec": make_mvtec, "btad": make_btad, "visa": make_visa, "magnetic-tile": make_magnetic_tile,
    "kolektorsdd2": make_kolektorsdd2, "folder": make_folder,
}  # fmt: skip
EXPECTED = {  # layout: categories, train, test good, test defective, kinds of the first category
    "mvtec": (["cable", "nut"], 2, 1, 1, ("good", "hole")),
    "btad": (["01"], 1, 1, 1, ("good", "ko")),
    "visa": (["candle"], 1, 1, 1, ("good", "anomaly")),
    "magnetic-tile": (["magnetic-tile"], 4, 1, 2, ("good", "blowhole", "crack")),
    "kolektorsdd2": (["kolektorsdd2"], 1, 1, 1, ("good", "defect")),
    "folder": (["root"], 4, 1, 2, ("good", "dent", "dirt")),
}


@pytest.fixture(params=LAYOUTS)
def made(request, tmp_path) -> tuple[str, Path]:
    MAKERS[request.param](tmp_path / "root")
    return request.param, tmp_path / "root"


def test_each_layout_is_found_out_and_read(made):
    layout, root = made
    dataset = open_dataset(root)
    names, train, good, bad, kinds = EXPECTED[layout]
    assert (dataset.layout, [each.name for each in dataset.categories]) == (layout, names)
    first = dataset.categories[0]
    assert len(first.train) == train
    assert [sum(each.is_anomalous is truth for each in first.test) for truth in (False, True)] == [good, bad]
    assert first.kinds == kinds
    assert first.has_masks
    assert all(each.split == "train" and not each.is_anomalous for each in first.train)
    assert not {each.path for each in first.train} & {each.path for each in first.test}


def test_masks_are_read_as_what_they_are(made):
    _, root = made
    for sample in open_dataset(root).categories[0].test:
        truth = sample.read_mask((SIDE, SIDE))
        assert truth.dtype == bool
        assert truth.sum() == (SIDE if sample.is_anomalous else 0)
        assert not truth[1:].any()


def test_a_named_layout_must_fit(made):
    layout, root = made
    other = "visa" if layout != "visa" else "kolektorsdd2"
    with pytest.raises(DatasetError, match=f"not laid out as {other}"):
        open_dataset(root, other)
    with pytest.raises(InputError, match="there is no 'coco'"):
        open_dataset(root, "coco")


def test_one_category_is_a_data_set_too(tmp_path):
    make_mvtec(tmp_path)
    dataset = open_dataset(tmp_path / "nut")
    assert [each.name for each in dataset.categories] == ["nut"]
    with pytest.raises(InputError, match=r"no category 'cable'; it has: nut"):
        dataset.category("cable")


def test_the_refusal_shows_what_is_there_and_what_is_expected(tmp_path):
    picture(tmp_path / "images" / "a.png")
    with pytest.raises(DatasetError) as caught:
        detect_layout(tmp_path)
    text = str(caught.value)
    assert "images" in text.partition("Found:")[2].partition("Expected:")[0]
    for layout in LAYOUTS.values():
        assert layout.title in text
    with pytest.raises(DatasetError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="a file, not a folder"):
        open_dataset(tmp_path / "images" / "a.png")


def test_only_exact_suffixes_are_pictures(tmp_path):
    make_mvtec(tmp_path)
    for name in ("a.json", "a.png.txt", "apng", ".hidden.png", "Thumbs.db"):
        (tmp_path / "nut" / "train" / "good" / name).write_text("x")
    picture(tmp_path / "nut" / "train" / "good" / "UPPER.PNG")
    names = [sample.path.name for sample in open_dataset(tmp_path).category("nut").train]
    assert names == ["000.png", "001.png", "UPPER.PNG"]


def test_a_mask_of_another_size_is_refused_naming_both(tmp_path):
    make_mvtec(tmp_path)
    mask(tmp_path / "nut" / "ground_truth" / "hole" / "000_mask.png", (SIDE, SIDE + 1))
    with pytest.raises(DatasetError, match=r"000_mask\.png is 9 x 8 pixels.*000\.png is 8 x 8") as caught:
        open_dataset(tmp_path)
    assert "resized" in str(caught.value)


def test_a_mask_of_a_turned_picture_fits_it_as_seen(tmp_path):
    """EXIF orientation 6 turns a 12 x 8 picture to 8 wide and 12 high; its mask is drawn on what is seen."""
    from PIL import Image

    make_mvtec(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 8)).save(tmp_path / "nut" / "test" / "hole" / "000.png", exif=exif)
    mask(tmp_path / "nut" / "ground_truth" / "hole" / "000_mask.png", (12, 8))
    assert open_dataset(tmp_path).category("nut").has_masks


def test_a_missing_mask_is_refused_but_none_at_all_is_fine(tmp_path):
    make_mvtec(tmp_path)
    picture(tmp_path / "nut" / "test" / "hole" / "001.png")
    with pytest.raises(DatasetError, match=r"001\.png has no mask: expected 001_mask\.png or 001\.png"):
        open_dataset(tmp_path)
    for file in (tmp_path / "nut" / "ground_truth" / "hole").iterdir():
        file.unlink()
    (tmp_path / "nut" / "ground_truth" / "hole").rmdir()
    (tmp_path / "nut" / "ground_truth").rmdir()
    category = open_dataset(tmp_path).category("nut")
    assert not category.has_masks
    assert [sample.read_mask((SIDE, SIDE)) for sample in category.test if sample.is_anomalous] == [None, None]


def test_some_with_masks_and_some_without_are_refused(tmp_path):
    make_folder(tmp_path)
    picture(tmp_path / "dirt" / "1.jpg")
    (tmp_path / "masks" / "dent" / "0_mask.png").unlink()
    with pytest.raises(DatasetError, match="mask"):
        open_dataset(tmp_path)


def test_a_folder_without_masks(tmp_path):
    for index in range(3):
        picture(tmp_path / "good" / f"{index}.png")
    picture(tmp_path / "bad" / "0.png")
    category = open_dataset(tmp_path).categories[0]
    assert (category.has_masks, category.kinds) == (False, ("good", "bad"))


def test_the_held_out_pictures_are_always_the_same(tmp_path):
    for name in ("one", "two"):
        for index in range(20):
            picture(tmp_path / name / "good" / f"{index:02d}.png")
    split = [
        {sample.path.name for sample in open_dataset(tmp_path / name).categories[0].test} for name in ("one", "two")
    ]
    assert split[0] == split[1]
    assert len(split[0]) == 4


def test_half_a_category_is_refused(tmp_path):
    make_mvtec(tmp_path)
    (tmp_path / "bolt" / "test").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"bolt.*needs the folders train/good and test"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("candle,train,anomaly,candle/Data/Images/Anomaly/2.JPG,", "anomalous picture in the train split"),
        ("candle,test,normal,candle/Data/Images/Normal/9.JPG,", r"9\.JPG is missing"),
        ("candle,test,normal,../secret.JPG,", "no path inside the data set"),
        ("candle,later,normal,candle/Data/Images/Normal/0.JPG,", "train or test"),
    ],
)
def test_a_visa_table_that_does_not_fit_is_refused(tmp_path, line, words):
    make_visa(tmp_path)
    table = tmp_path / "split_csv" / "1cls.csv"
    table.write_text(f"{table.read_text()}\n{line}")
    with pytest.raises(DatasetError, match=words):
        open_dataset(tmp_path)


def test_soft_borders_of_magnetic_tile_masks_are_no_defect(tmp_path):
    make_magnetic_tile(tmp_path)
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[0], values[1], values[2] = 255, 128, 127
    cv2.imwrite(str(tmp_path / "MT_Crack" / "Imgs" / "a.png"), values)
    (sample,) = [each for each in open_dataset(tmp_path).categories[0].test if each.kind == "crack"]
    assert sample.read_mask((SIDE, SIDE)).sum() == 2 * SIDE


def test_nothing_is_taken_by_a_part_of_its_path(tmp_path):
    """A data set below a folder called good or test is still read right."""
    make_mvtec(tmp_path / "good" / "test")
    category = open_dataset(tmp_path / "good" / "test").category("nut")
    assert [sample.kind for sample in category.test] == ["good", "hole"]


def test_a_mask_is_refused_when_read_for_another_size(tmp_path):
    picture, mask = tmp_path / "a.png", tmp_path / "m.png"
    Image.new("RGB", (8, 6)).save(picture)
    Image.new("L", (6, 8), 255).save(mask)
    sample = Sample(picture, "test", "hole", True, mask, "part")
    with pytest.raises(DatasetError, match="6 x 8 pixels"):
        sample.read_mask((6, 8))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_sizes_of_turned_pictures_of_every_format_are_as_seen(suffix, tmp_path):
    turned = Image.new("RGB", (8, 6))
    turned.getexif()[274] = 6
    exif = turned.getexif()
    turned.save(tmp_path / f"a.{suffix}", exif=exif)
    Image.new("L", (6, 8), 255).save(tmp_path / "m.png")  # (H, W) = (8, 6), as the picture is seen
    sample = Sample(tmp_path / f"a.{suffix}", "test", "hole", True, tmp_path / "m.png", "part")
    check_category(Category("mvtec", "part", tmp_path, (), (sample,)))
    assert sample.read_mask(read_image(sample.path).shape[:2]).all()
