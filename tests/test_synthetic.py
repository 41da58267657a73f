"""Rendered parts: deterministic, exact masks, from faint to plain, in MVTec AD layout."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from spadework.datasets.synthetic import CATEGORIES, render, write_dataset
from spadework.errors import InputError, OutputError

SIDE = 128
DEFECTS = [(category, kind) for category, kinds in CATEGORIES.items() for kind in kinds]


def test_three_categories_of_at_least_four_defects():
    assert set(CATEGORIES) == {"weave", "gear", "board"}
    assert all(len(kinds) >= 4 for kinds in CATEGORIES.values())
    assert {"missing_part", "misplaced_part"} <= set(CATEGORIES["board"])


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_same_arguments_give_the_same_bytes_in_another_process(category):
    code = (
        "import hashlib, sys; from spadework.datasets.synthetic import render;"
        f"print(hashlib.sha256(render({category!r}, index=3, seed=5, size=64)[0].tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert hashlib.sha256(render(category, index=3, seed=5, size=64)[0].tobytes()).hexdigest() == other


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_argument_matters(category):
    def of(**changes):
        return render(category, **{"index": 0, "split": "train", "seed": 0, "size": 64, **changes})[0]

    pictures = [of(), of(index=1), of(split="test"), of(seed=1)]
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert of().tobytes() == pictures[0].tobytes()


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_good_part_is_a_photograph_without_a_mask(category):
    picture, mask = render(category, index=0, size=SIDE)
    assert (picture.shape, picture.dtype) == ((SIDE, SIDE, 3), np.uint8)
    assert (mask.shape, mask.dtype, mask.any()) == ((SIDE, SIDE), np.bool_, False)
    assert picture.std() > 10  # something is on it
    assert (picture == 255).mean() < 0.02  # and it is not burnt out
    assert np.abs(np.diff(picture.astype(int), axis=1)).mean() > 0.5  # noise and structure


@pytest.mark.parametrize(("category", "kind"), DEFECTS)
def test_a_mask_is_what_the_defect_changed(category, kind):
    good, _ = render(category, index=2, split="test", size=SIDE)
    for severity in (0.0, 0.5, 1.0):
        bad, mask = render(category, index=2, split="test", defect=kind, severity=severity, size=SIDE)
        assert 0 < mask.mean() < 0.5
        change = np.abs(bad.astype(int) - good).max(axis=2)
        # The noise is that of the same sensor at the same moment; where the part is as before, so is the picture, but for
        # rounding and a faint rim below four grey levels.
        assert change[~mask].max() <= 6
        assert change[mask].max() > change[~mask].max()


@pytest.mark.parametrize(("category", "kind"), DEFECTS)
def test_plain_defects_change_more_than_faint_ones(category, kind):
    def change(severity):
        total = 0.0
        for index in range(4):
            good, _ = render(category, index=index, split="test", size=SIDE)
            bad, _ = render(category, index=index, split="test", defect=kind, severity=severity, size=SIDE)
            total += np.abs(bad.astype(int) - good).sum()
        return total

    assert change(1.0) > 1.5 * change(0.0)


def test_writes_the_mvtec_layout(tmp_path):
    dataset = write_dataset(tmp_path, categories=["gear"], n_train=3, n_good=2, n_per_defect=2, size=64, seed=4)
    category = dataset.category("gear")
    assert (dataset.layout, len(category.train), len(category.test)) == ("mvtec", 3, 2 + 2 * len(CATEGORIES["gear"]))
    assert category.kinds == ("good", *sorted(CATEGORIES["gear"]))
    for sample in category.test:
        assert sample.read_mask((64, 64)).any() == sample.is_anomalous
    assert len({sample.path.read_bytes() for sample in (*category.train, *category.test)}) == len(
        category.train + category.test
    )


def test_a_larger_set_begins_with_the_same_pictures(tmp_path):
    small = write_dataset(tmp_path / "a", categories=["weave"], n_train=2, n_good=1, n_per_defect=1, size=64)
    large = write_dataset(tmp_path / "b", categories=["weave"], n_train=4, n_good=2, n_per_defect=1, size=64)
    for one, other in zip(small.category("weave").train, large.category("weave").train, strict=False):
        assert one.path.read_bytes() == other.path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"category": "nut"}, "category"), ({"defect": "moth"}, "defect"), ({"severity": 1.5}, "severity"),
        ({"index": -1}, "index"), ({"seed": -1}, "seed"), ({"size": 8}, "size"), ({"split": "val"}, "split"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(changes, word):
    arguments = {"category": "gear", "index": 0, **changes}
    with pytest.raises(InputError, match=word):
        render(arguments.pop("category"), **arguments)


def test_bad_counts_and_places_are_named(tmp_path):
    with pytest.raises(InputError, match="n_train"):
        write_dataset(tmp_path, n_train=0)
    with pytest.raises(InputError, match="categories is empty"):
        write_dataset(tmp_path, categories=[])
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        write_dataset(tmp_path / "file", categories=["gear"], n_train=1, size=32)


def test_rendering_replaces_its_own_and_never_others(tmp_path):
    write_dataset(tmp_path, categories=["gear"], n_train=3, n_good=1, n_per_defect=0, size=64)
    smaller = write_dataset(tmp_path, categories=["gear"], n_train=2, n_good=1, n_per_defect=0, size=64)
    assert len(smaller.categories[0].train) == 2  # nothing is left of the larger one
    own = tmp_path / "weave" / "train" / "good" / "000.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(OutputError, match="not rendered by Spadework"):
        write_dataset(tmp_path, n_train=1, n_good=1, n_per_defect=0, size=64)
    assert own.read_bytes() == b"mine"
