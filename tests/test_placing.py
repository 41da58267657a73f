"""Whether normal pictures are aligned: parts laid in a known way, by Python, at `fit`, on the command line."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
from builders import TINY, normal_pictures, write_pictures
from test_cli import only_json, run
from test_search_radius import SIDE, plate

from spadework import Spade
from spadework.datasets.synthetic import render
from spadework.detectors.placing import Alignment, SearchRadiusWarning, Within, _Searched, measure

SETTINGS = {"image_size": SIDE, "calibration_images": 0}


def laid(pictures, *, turn: float = 0.0, shift: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    """Pictures turned by up to `turn` degrees and shifted by up to `shift` pixels, at random."""
    rng = np.random.default_rng(seed)
    moved = []
    for picture in pictures:
        side = picture.shape[0]
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-turn, turn), 1)
        matrix[:, 2] += rng.uniform(-shift, shift, 2)
        moved.append(cv2.warpAffine(picture, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE))
    return moved


@pytest.fixture(scope="module")
def boards() -> list[np.ndarray]:
    return [render("board", index=index, size=128)[0] for index in range(16)]


def fitted(pictures, **changes) -> Spade:
    return Spade(**{"image_size": 128, "calibration_images": 0, **changes}).fit(pictures)


def test_aligned_parts(boards):
    found = fitted(boards).alignment()
    assert found.verdict == "aligned"
    assert found.best.radius <= 16
    assert found.best.radius < found.advice <= 32
    assert "aligned to within" in str(found)
    assert found.pictures == 12
    assert found.side == 128
    assert found.spacing == 8


@pytest.mark.slow
def test_parts_that_are_a_little_out_of_place_need_more(boards):
    close, far = fitted(boards).alignment(), fitted(laid(boards, shift=14)).alignment()
    shares = [(row.share, other.share) for row, other in zip(close.rows, far.rows, strict=True)]
    assert all(one > other for one, other in shares[:2])
    assert far.best is None or far.best.radius > close.best.radius


@pytest.mark.slow
def test_turned_parts_and_textures_are_not_aligned(boards):
    for pictures in (laid(boards, turn=180), [render("weave", index=index, size=128)[0] for index in range(16)]):
        found = fitted(pictures).alignment()
        assert found.verdict == "not aligned"
        assert found.advice is None
        assert "would miss the best match" in str(found)


def test_plain_ground_hides_no_alignment():
    """On it the best match lies anywhere: but one from the same place is as good."""
    rng = np.random.default_rng(3)
    flat = np.full((128, 128, 3), 120, np.float32)
    flat[48:80, 48:80] = 200
    pictures = [np.clip(flat + rng.normal(0, 4, flat.shape), 0, 255).astype(np.uint8) for _ in range(12)]
    found = fitted(pictures).alignment()
    assert found.rows[0].share < 0.8
    assert found.verdict == "aligned"


def test_what_is_measured_can_be_counted():
    """Pictures of which each has a copy but for a little noise: every match is the place itself, and chance is that of a shuffle."""
    rng = np.random.default_rng(4)
    pictures = []
    for _ in range(4):
        scene = cv2.resize(rng.integers(0, 255, (12, 12, 3)).astype(np.uint8), (SIDE, SIDE))
        pictures += [np.clip(scene + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    found = measure(Spade(**SETTINGS).fit(pictures), radii=[0, 8, 48, 500])
    assert [row.radius for row in found.rows] == [0, 8, 48, 500]
    assert found.rows[0].share == pytest.approx(1, abs=0.02)
    assert [row.rise for row in found.rows] == pytest.approx([1, 1, 1, 1], abs=0.02)
    y, x = np.divmod(np.arange(144), 12)
    apart = 8 * np.hypot(y[:, None] - y, x[:, None] - x)
    for row in found.rows:
        assert row.by_chance == pytest.approx((apart <= row.radius).mean(), abs=0.03)


def test_the_radius_is_in_pixels_of_the_pictures(boards):
    large = [cv2.resize(picture, (256, 256), interpolation=cv2.INTER_NEAREST) for picture in boards]
    small, found = fitted(boards).alignment(), fitted(large).alignment()
    assert [row.radius for row in found.rows] == [2 * row.radius for row in small.rows]
    assert [row.share for row in found.rows] == pytest.approx([row.share for row in small.rows], abs=0.02)


def test_verdicts_and_advice_from_numbers():
    def of(*rows):
        return Alignment(tuple(Within(*row) for row in rows), 128, 8, 12)

    assert of((8, 0.95, 0.0, None), (16, 0.97, 0.1, None)).advice == 16
    assert of((8, 0.5, 0.0, 1.01), (16, 0.6, 0.1, 1.0)).verdict == "aligned"  # plain ground
    assert of((8, 0.5, 0.0, 2.0), (16, 0.6, 0.1, 1.0)).verdict == "not aligned"  # 16 is too wide to say so
    loose = of((8, 0.5, 0.0, 2.0), (32, 0.95, 0.1, 1.2))
    assert (loose.verdict, loose.advice, loose.best.radius) == ("loosely aligned", None, 32)
    chance = of((8, 0.5, 0.5, None), (16, 0.92, 0.9, None))
    assert chance.verdict == "not aligned"
    assert chance.rows[0].beyond_chance == 0
    assert of((8, 1.0, 1.0, None)).rows[0].beyond_chance == 0


def test_fewer_than_three_pictures_tell_nothing():
    assert Spade(**TINY).fit(normal_pictures(2)).alignment() is None


def test_the_kernels_that_take_seconds_tell_no_rise():
    found = Spade(**TINY, kernel="blocked").fit(normal_pictures(5)).alignment()
    assert {row.rise for row in found.rows} == {None}


# ---------------------------------------------------------------- at `fit`


def test_a_radius_on_pictures_that_are_not_aligned_is_warned_of(boards):
    with pytest.warns(
        SearchRadiusWarning, match=r"search_radius=8: the normal pictures are not aligned so well. Only \d+%"
    ):
        fitted(laid(boards, turn=180), search_radius=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SearchRadiusWarning)
        fitted(boards, search_radius=16)
        fitted(laid(boards, turn=180))
        fitted(boards[:2], search_radius=8)  # too few to tell


def test_a_radius_that_a_rehearsal_chose_is_not_warned_of(boards, monkeypatch):
    monkeypatch.setattr(Spade, "_tune", lambda *given: ({}, {"tuning": {"chosen": {"search_radius": 8.0}}}))
    pictures = laid(boards, turn=180)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SearchRadiusWarning)
        Spade(**TINY, search_radius=8).fit(pictures, tune=True)
        with pytest.raises(SearchRadiusWarning):
            Spade(**TINY, search_radius=9).fit(pictures, tune=True)


# ---------------------------------------------------------------- on the command line


@pytest.fixture(scope="module")
def folders(tmp_path_factory, boards):
    root = tmp_path_factory.mktemp("placing")
    write_pictures(root / "aligned", [plate(index) for index in range(30)])
    write_pictures(root / "few", [plate(index) for index in range(10)])
    write_pictures(root / "turned", laid(boards, turn=180))
    return root


FIT = ["--image-size", SIDE, "--set", "calibration_images=4"]


@pytest.mark.slow
def test_fit_advises_where_it_is_clear_and_info_tells_more(folders):
    done = run("fit", folders / "aligned", "-o", folders / "a.spade", *FIT)
    assert done.returncode == 0, done.stderr
    assert "advice: aligned to within 8 pixels" in done.stdout
    told = run("info", folders / "a.spade", "--alignment")
    assert "alignment   aligned to within 8 pixels" in told.stdout
    assert "within 24 pixels:" in told.stdout
    assert "alignment" not in run("info", folders / "a.spade").stdout
    document = only_json(run("info", folders / "a.spade", "--alignment", "--json"))["alignment"]
    assert (document["verdict"], document["radius"]) == ("aligned", 8)
    assert set(document["within"][0]) == {"radius", "share", "by_chance", "rise"}


@pytest.mark.slow
def test_fit_takes_a_radius_and_warns(folders):
    done = run("fit", folders / "aligned", "-o", folders / "r.spade", *FIT, "--search-radius", 16, "--json")
    document = only_json(done)
    assert document["settings"]["search_radius"] == 16
    assert (document["warnings"], document["advice"]) == ([], None)
    done = run("fit", folders / "turned", "-o", folders / "t.spade", *FIT, "--search-radius", 8)
    assert done.returncode == 0
    assert "warning: search_radius=8: the normal pictures are not aligned so well." in done.stderr
    assert "advice" not in run("fit", folders / "turned", "-o", folders / "t2.spade", *FIT).stdout


@pytest.mark.slow
def test_what_has_no_alignment_says_so(folders, tmp_path):
    write_pictures(tmp_path / "few", normal_pictures(2))
    assert run("fit", tmp_path / "few", "-o", tmp_path / "few.spade", *FIT).returncode == 0
    done = run("info", tmp_path / "few.spade", "--alignment", "--json")
    assert only_json(done)["alignment"] is None
    assert "from 3 normal pictures on" in done.stderr
    other = run("fit", folders / "aligned", "-o", tmp_path / "n.spade", "--detector", "nearest-image", *FIT)
    assert other.returncode == 0, other.stderr
    assert "--alignment is for spade, not for nearest-image" in run("info", tmp_path / "n.spade", "--alignment").stderr


def test_padding_tells_nothing(boards):
    """Pictures of another shape than the canvas: where their edges are repeated, every match lies at the same place."""
    wide = [np.ascontiguousarray(board[24:88] if index < 3 else board[:, 24:88]) for index, board in enumerate(boards)]
    model = fitted(wide)
    assert model.canvas_ is not None
    padded = next(index for index in range(16) if model.gallery_.entries[index].size == (64, 128))
    searched = _Searched(model, padded, np.random.default_rng(0))
    grid = model.judge_normal(padded, None).correspondence.positions.shape
    assert len(searched.far) < 0.8 * grid[0] * grid[1]
    np.testing.assert_allclose(searched.cell[0], searched.cell[1], rtol=0.05)  # aspect is kept


def test_a_radius_is_not_advised_where_few_pictures_set_the_threshold(folders):
    assert "advice" not in run("fit", folders / "few", "-o", folders / "few.spade", *FIT).stdout


def test_a_grid_too_coarse_for_any_small_radius_is_told_of_all_the_same():
    found = fitted(normal_pictures(4, (96, 96)), image_size=64, grid_stride=16).alignment()
    assert str(found)
    assert found.to_json()["text"] == str(found)
