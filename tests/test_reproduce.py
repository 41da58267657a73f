"""The paper's tables measured: the check of the data set, the way round it, and all of it on a tiny set in MVTec AD's layout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import mvtec_category

from spadework import open_dataset
from spadework.datasets import Category, Dataset, Sample
from spadework.errors import DatasetError, InputError
from spadework.published import CATEGORIES, COUNTS, TEXTURES, Counts
from spadework.reproduce import check_regions, check_whole, reproduce
from spadework.results import Results, read_folder

TINY = {
    "backbone": "embedded", "image_size": 48, "crop": None, "grid_stride": 8, "coreset": 0.5, "reweighting": 0,
    "kernel": "blocked", "calibration_images": 0,
}  # fmt: skip
SETTINGS = [word for name, value in TINY.items() for word in ("--set", f"{name}={json.dumps(value)}")]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """All fifteen categories, six small pictures each."""
    folder = tmp_path_factory.mktemp("mvtec")
    for name in CATEGORIES:
        mvtec_category(folder, name)
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "spadework", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def listed(name: str, *, less: int = 0, masks: bool = True) -> Category:
    """A category with as many samples as MVTec AD has, less some good ones to learn from; no files."""
    counts, place = COUNTS[name], Path(name)
    train = [Sample(place / f"{n}.png", "train", "good", False, None, name) for n in range(counts.train - less)]
    test = [Sample(place / f"g{n}.png", "test", "good", False, None, name) for n in range(counts.good)]
    for n in range(counts.defective):
        mask = place / f"m{n}.png" if masks else None
        test.append(Sample(place / f"d{n}.png", "test", f"kind{n % counts.groups}", True, mask, name))
    return Category("mvtec", name, place, tuple(train), tuple(test))


def test_the_whole_of_mvtec_ad_passes_the_check():
    assert check_whole(Dataset("mvtec", Path("root"), tuple(map(listed, CATEGORIES)))) == ()


def test_what_is_missing_is_said_by_category_with_numbers():
    found = [listed(name) for name in CATEGORIES if name not in {"cable", "tile"}]
    found[0] = listed("carpet", less=2)
    found[1] = listed("grid", masks=False)
    extra = Category("mvtec", "brick", Path("brick"), found[0].train, found[0].test)
    lines = check_whole(Dataset("mvtec", Path("root"), (*found, extra)))
    assert lines == (
        "carpet: found 278 to learn from, 28 good and 89 defective in 5 kinds to judge; "
        "expected 280 to learn from, 28 good and 89 defective in 5 kinds to judge",
        "grid: its masks are missing (the folder ground_truth)",
        "tile: missing; expected 230 to learn from, 33 good and 84 defective in 5 kinds to judge",
        "cable: missing; expected 224 to learn from, 58 good and 92 defective in 8 kinds to judge",
        "brick: is no category of MVTec AD and is passed over",
    )


def test_regions_are_counted_as_the_measures_count_them(root, monkeypatch):
    dataset = open_dataset(root)
    assert check_regions(dataset) == ()  # of categories whose pictures lack, there is nothing more to say
    monkeypatch.setattr(
        "spadework.reproduce.COUNTS", {name: Counts(3, 1, 2, 1, 2 if name != "grid" else 5) for name in CATEGORIES}
    )
    assert check_whole(dataset) == ()
    assert check_regions(dataset) == ("grid: found 2 defective regions in its masks; MVTec AD has 5",)


def test_where_the_tables_go_is_looked_at_before_the_work(root, tmp_path):
    done = run("reproduce", root, "--results", tmp_path / "results", "--partial", "--out", tmp_path, *SETTINGS)
    assert (done.returncode, "is a folder; name a file" in done.stderr) == (2, True)
    assert not list((tmp_path / "results").glob("*.json"))


def test_a_set_that_is_not_whole_is_refused_before_any_work(root, tmp_path):
    done = run("reproduce", root, "--results", tmp_path / "results", *SETTINGS)
    assert (done.returncode, done.stdout) == (2, "")
    for name in CATEGORIES:
        assert f"{name}: found 3 to learn from, 1 good and 2 defective in 1 kinds" in done.stderr
    assert "expected 391 to learn from, 40 good and 70 defective in 4 kinds" in done.stderr
    assert "--partial" in done.stderr
    assert list((tmp_path / "results").glob("*.json")) == []
    with pytest.raises(DatasetError, match="is not the whole of MVTec AD"):
        reproduce(root, Results(tmp_path / "results"))


@pytest.mark.slow
def test_all_fifteen_categories_from_end_to_end(root, tmp_path, monkeypatch):
    results = Results(tmp_path / "results")
    options = {"settings": TINY, "partial": True, "jobs": None, "detectors": ["spade", "patchcore"]}
    found = reproduce(root, results, **options)
    assert not found.benchmark.failed
    assert len(found.missing) == 15
    assert len(read_folder(results.path)[0]) == 30
    image, pixel, pro = found.comparison.tables
    assert [name for name, _ in pixel.rows] == [*CATEGORIES, "mean"]
    for table in (image, pixel, pro):
        for detector in ("spade", "patchcore"):
            place = [each.detector for each in table.columns].index(detector)
            assert all(0 <= cells[place].measured <= 100 for _, cells in table.rows)
            assert all(cells[place].difference is None for _, cells in table.rows)  # other pictures than the paper's
    rows = {(row["category"], row["detector"]): row for row in found.benchmark.rows}
    place = [each.detector for each in pixel.columns].index("spade")
    assert dict(pixel.rows)["zipper"][place].measured == 100 * rows["zipper", "spade"]["pixel_auroc"]
    monkeypatch.setattr("spadework.benchmark.perform", None)  # nothing is left to do
    again = reproduce(root, results, **options)
    assert again.benchmark.reused == 30
    assert again.comparison.tables == found.comparison.tables


@pytest.mark.slow
def test_from_the_command_line_interrupted_and_taken_up(root, tmp_path):
    few = tmp_path / "few"
    for name in ("carpet", "zipper"):
        shutil.copytree(root / name, few / name)
    chosen = [
        word
        for name in TINY
        if name not in {"coreset", "reweighting"}
        for word in ("--set", f"{name}={json.dumps(TINY[name])}")
    ]
    options = ["--results", tmp_path / "results", "--partial", "--detector", "spade", "--jobs", 2, *chosen]
    done = run("reproduce", few, *options)
    assert done.returncode == 0, done.stderr
    assert "not whole: bottle: missing" in done.stderr
    assert "2 of 15 categories" in " ".join(done.stdout.split())
    spoilt, whole = sorted((tmp_path / "results").glob("*.json"))
    before = whole.read_bytes()
    spoilt.write_text(spoilt.read_text()[:300])
    shown = run("tables", "--results", tmp_path / "results")
    assert (shown.returncode, spoilt.name in shown.stderr) == (1, True)
    assert "1 files of results that cannot be used" in shown.stdout
    again = run("reproduce", few, *options, "--out", tmp_path / "tables.html")
    assert again.returncode == 0, again.stderr
    assert "measured again" in again.stderr
    assert "1 of 2 runs are in the folder of results already" in again.stderr
    assert whole.read_bytes() == before
    assert (tmp_path / "tables.html").read_text().startswith("<!doctype html>")
    assert run("tables", "--results", tmp_path / "results").returncode == 0


def test_by_default_the_systems_of_the_paper_run_on_their_own_categories(root, tmp_path, monkeypatch):
    import spadework.reproduce as module
    from spadework.benchmark import Benchmark

    asked = []

    def do_runs(planned, **options):
        asked.extend(planned)
        return Benchmark((), ())

    monkeypatch.setattr(module, "do_runs", do_runs)
    monkeypatch.setattr(module, "categories_of", lambda name: TEXTURES)
    found = reproduce(root, Results(tmp_path), partial=True)
    assert {run.category.name for run in asked} == set(TEXTURES)
    assert "patchcore" not in {run.detector for run in asked}
    assert all(run.configuration == "paper" for run in asked)
    registered = {run.detector for run in asked}
    absent = [words for words in found.comparison.left_out if "this version has no detector" in words]
    assert len(registered) + len(absent) == 11


def test_other_folders_are_refused(root, tmp_path):
    mvtec_category(tmp_path, "brick")
    with pytest.raises(DatasetError, match="has none of the categories of MVTec AD"):
        reproduce(tmp_path, Results(tmp_path / "r"), partial=True)
    with pytest.raises(InputError, match="sponge"):
        reproduce(root, Results(tmp_path / "r"), partial=True, detectors=["sponge"])
    assert open_dataset(root).layout == "mvtec"


def test_the_folder_that_was_meant_is_named(root, tmp_path):
    with pytest.raises(DatasetError, match=f"{root} holds 15 of its categories: give that folder"):
        reproduce(root / "bottle", Results(tmp_path / "r"))
    with pytest.raises(DatasetError) as refused:
        reproduce(root, Results(tmp_path / "r"))
    assert "give that folder" not in str(refused.value)


@pytest.mark.slow
def test_tables_refuse_before_they_read(tmp_path):
    refused = run("tables", "--out", tmp_path / "tables.pdf")
    assert (refused.returncode, ".tex" in refused.stderr, (tmp_path / "tables.pdf").exists()) == (2, True, False)
    assert "no such folder of results" in run("tables", "--results", tmp_path / "none").stderr
    refused = run("tables", "--format", "pdf")
    assert (refused.returncode, "latex" in refused.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    assert "holds no results" in run("tables", "--results", tmp_path / "empty").stderr
    alone = run("tables")
    assert (alone.returncode, "Nothing measured here yet" in alone.stdout) == (0, True)
