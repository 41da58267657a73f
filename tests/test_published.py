"""The published numbers, typed here a second time, as tables, independently of the module that holds them."""

from __future__ import annotations

from dataclasses import astuple

import pytest

from spadework.published import (
    CATEGORIES,
    COUNTS,
    IMAGE_SYSTEMS,
    PIXEL_SYSTEMS,
    REIMPLEMENTATIONS,
    SYSTEMS,
    TOTAL,
    categories_of,
    published,
)

TABLE_1 = """
| system | Geom | GANomaly | AE-L2 | ITAE | SPADE |
|---|---|---|---|---|---|
| mean | 67.2 | 76.2 | 75.4 | 83.9 | 85.5 |
"""
TABLE_2 = """
| category | AE-SSIM | AE-L2 | AnoGAN | CNN dict | texture insp. | variation model | CAVGA-Ru | SPADE |
|---|---|---|---|---|---|---|---|---|
| carpet | 87 | 59 | 54 | 72 | 88 | - | - | 97.5 |
| grid | 94 | 90 | 58 | 59 | 72 | - | - | 93.7 |
| leather | 78 | 75 | 64 | 87 | 97 | - | - | 97.6 |
| tile | 59 | 51 | 50 | 93 | 41 | - | - | 87.4 |
| wood | 73 | 73 | 62 | 91 | 78 | - | - | 88.5 |
| bottle | 93 | 86 | 86 | 78 | - | 82 | - | 98.4 |
| cable | 82 | 86 | 78 | 79 | - | - | - | 97.2 |
| capsule | 94 | 88 | 84 | 84 | - | 76 | - | 99.0 |
| hazelnut | 97 | 95 | 87 | 72 | - | - | - | 99.1 |
| metal nut | 89 | 86 | 76 | 82 | - | 60 | - | 98.1 |
| pill | 91 | 85 | 87 | 68 | - | 83 | - | 96.5 |
| screw | 96 | 96 | 80 | 87 | - | 94 | - | 98.9 |
| toothbrush | 92 | 93 | 90 | 77 | - | 68 | - | 97.9 |
| transistor | 90 | 86 | 80 | 66 | - | - | - | 94.1 |
| zipper | 88 | 77 | 78 | 76 | - | - | - | 96.5 |
| mean | 87 | 82 | 74 | 78 | 75 | 77 | 89 | 96.0 |
"""
MVTEC_AD = """
| category | train | good | defective | groups | regions |
|---|---|---|---|---|---|
| carpet | 280 | 28 | 89 | 5 | 97 |
| grid | 264 | 21 | 57 | 5 | 170 |
| leather | 245 | 32 | 92 | 5 | 99 |
| tile | 230 | 33 | 84 | 5 | 86 |
| wood | 247 | 19 | 60 | 5 | 168 |
| bottle | 209 | 20 | 63 | 3 | 68 |
| cable | 224 | 58 | 92 | 8 | 151 |
| capsule | 219 | 23 | 109 | 5 | 114 |
| hazelnut | 391 | 40 | 70 | 4 | 136 |
| metal nut | 220 | 22 | 93 | 4 | 132 |
| pill | 267 | 26 | 141 | 7 | 245 |
| screw | 320 | 41 | 119 | 5 | 135 |
| toothbrush | 60 | 12 | 30 | 1 | 66 |
| transistor | 213 | 60 | 40 | 4 | 44 |
| zipper | 240 | 32 | 119 | 7 | 177 |
"""


def read(table: str) -> tuple[list[str], dict[str, list[str]]]:
    """The titles of a Markdown table's columns, and its cells by the name of the row."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    return lines[0][1:], {line[0].replace(" ", "_"): line[1:] for line in lines[2:]}


def test_table_1_is_as_printed():
    titles, rows = read(TABLE_1)
    assert [each.title for each in IMAGE_SYSTEMS] == titles
    for system, cell in zip(IMAGE_SYSTEMS, rows["mean"], strict=True):
        number = published("image_auroc", system.detector)
        assert (str(number), number.certainty, "Table 1" in number.source) == (cell, "printed", True)
        assert [published("image_auroc", system.detector, name) for name in CATEGORIES] == [None] * 15


def test_table_2_is_as_printed():
    titles, rows = read(TABLE_2)
    assert [each.title for each in PIXEL_SYSTEMS] == titles
    assert list(rows) == [*CATEGORIES, "mean"]
    for name, cells in rows.items():
        for system, cell in zip(PIXEL_SYSTEMS, cells, strict=True):
            number = published("pixel_auroc", system.detector, None if name == "mean" else name)
            assert ("-" if number is None else str(number)) == cell, (name, system)
            assert number is None or number.value == float(cell)
            assert number is None or (number.certainty == "printed" and "Table 2" in number.source)


@pytest.mark.parametrize("system", PIXEL_SYSTEMS, ids=lambda each: each.detector)
def test_printed_means_are_the_means_of_what_is_printed(system):
    values = [published("pixel_auroc", system.detector, name) for name in CATEGORIES]
    known = [each.value for each in values if each is not None]
    mean = published("pixel_auroc", system.detector).value
    if known:
        assert abs(sum(known) / len(known) - mean) <= (0.05 if system.detector == "spade" else 0.5)
    assert len(categories_of(system.detector)) == (len(known) or 15)


def test_other_numbers():
    pro = published("pro", "spade")
    assert (pro.value, pro.certainty) == (91.7, "secondary")
    assert published("pro", "ae-l2") is None
    assert published("pro", "spade", "carpet") is None
    assert published("pixel_auroc", "patchcore") is None
    found = {(each.k, each.image_auroc, each.pixel_auroc) for each in REIMPLEMENTATIONS}
    assert found == {(5, 85.4, 96.4), (3, 85.5, 96.2), (50, 80.1, 97.1)}
    assert len({each.detector for each in SYSTEMS}) == len(SYSTEMS) == 11


def test_counts_of_the_data_set_add_up_to_the_totals_that_are_published():
    _, rows = read(MVTEC_AD)
    assert {name: astuple(each) for name, each in COUNTS.items()} == {n: tuple(map(int, r)) for n, r in rows.items()}
    assert tuple(COUNTS) == CATEGORIES
    sums = tuple(map(sum, zip(*(astuple(each) for each in COUNTS.values()), strict=True)))
    assert sums == astuple(TOTAL) == (3629, 467, 1258, 73, 1888)
