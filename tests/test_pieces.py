"""Large views in pieces: the network's reach, pieces that agree with the whole, few pixels held at a time; a picture of 100 megapixels."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from builders import TINY, normal_pictures, rng_of

from spadework import Spade
from spadework.backbones import open_backbone, pieces
from spadework.backbones.pieces import levels_in_pieces, measure_reach
from spadework.detectors import features, reading
from spadework.detectors.reading import pixels_of, read_ahead, work_ahead
from spadework.images import View

TOLERANCE = 1e-5  # of the largest feature of a level: the runtime orders sums by the shape it is given


@pytest.fixture(scope="module")
def embedded():
    return open_backbone("embedded")


def farthest(ours, theirs) -> float:
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
def test_pieces_agree_with_the_whole_and_less_overlap_would_not_do(embedded):
    view = rng_of("pieces").integers(0, 256, (416, 480, 3), np.uint8)
    whole = embedded.levels_of(view)
    assert embedded.reach == 112
    assert farthest(whole, levels_in_pieces(embedded, view, embedded.reach, side=192)) < TOLERANCE
    assert farthest(whole, levels_in_pieces(embedded, view, embedded.reach - 32, side=192)) > 10 * TOLERANCE


def test_a_network_of_patches_reaches_nowhere(tmp_path):
    onnx = pytest.importorskip("onnx")
    assert onnx
    from tiny_onnx import make_tiny_onnx

    tiny = open_backbone(str(make_tiny_onnx(tmp_path / "tiny.onnx")))
    assert tiny.reach == 16  # no pixel beyond a cell, rounded up to a cell
    view = rng_of("tiny").integers(0, 256, (80, 112, 3), np.uint8)
    assert farthest(tiny.levels_of(view), levels_in_pieces(tiny, view, 16, side=32)) < TOLERANCE
    fixed = open_backbone(str(make_tiny_onnx(tmp_path / "fixed.onnx", size=(224, 224))))
    assert fixed.reach is None


def test_a_network_that_looks_at_all_of_a_picture_has_no_reach():
    class Global:
        multiple, strides, fixed_size = 16, (16,), None

        def levels_of(self, view):
            cells = view.reshape(len(view) // 16, 16, view.shape[1] // 16, 16, 3).mean(axis=(1, 3, 4))
            return [(cells + view.mean())[None].astype(np.float32)]

    assert measure_reach(Global()) is None


@pytest.mark.slow
def test_a_large_view_runs_in_pieces_and_answers_as_a_whole(monkeypatch):
    pictures, new = normal_pictures(3, (192, 256)), normal_pictures(2, (192, 256), start=30)
    settings = {**TINY, "image_size": (192, 256), "calibration_images": 2}
    whole = Spade(**settings).fit(pictures).predict(new)
    monkeypatch.setattr(features, "WHOLE", 128 * 128)
    monkeypatch.setattr(pieces, "SIDE", 96)
    monkeypatch.setattr(
        features, "levels_in_pieces", lambda backbone, view, reach: levels_in_pieces(backbone, view, reach, side=96)
    )
    parts = Spade(**settings).fit(pictures)
    assert parts.gallery_.globals.shape[1] == 256  # the mean of the deepest level stands for the whole
    assert parts.predict(new[0][:, :64])[0].nearest_images  # seen smaller than the canvas, by the same kind of vector
    for one, other in zip(whole, parts.predict(new), strict=True):
        np.testing.assert_allclose(other.score_map, one.score_map, rtol=1e-3, atol=1e-4 * float(one.score_map.max()))


# ---- reading ---------------------------------------------------------------------------------------------------------------


def test_few_pixels_are_decoded_ahead_where_pictures_are_large(monkeypatch):
    monkeypatch.setattr(reading, "PIXELS_AHEAD", 10_000)
    small, large = np.zeros((50, 50, 3), np.uint8), np.zeros((100, 120, 3), np.uint8)
    for picture, ahead in ((small, 3), (large, 1)):  # READ_AHEAD, or 12,000 pixels that are too many beside any other
        decoded = []
        monkeypatch.setattr(reading, "load", lambda picture, name, seen=decoded: seen.append(name) or picture)
        source = read_ahead([picture] * 8, View((16, 16)))
        next(source)[2].result()
        threading.Event().wait(0.2)  # whatever is to be decoded ahead has been by now
        assert len(decoded) <= ahead + 1
        assert len(list(source)) == 7
        assert len(decoded) == 8
    assert pixels_of(large) == 12_000
    assert pixels_of(np.zeros(3)) == 0


def test_work_that_weighs_much_is_done_one_by_one():
    for weight, most_at_once in ((1, 3), (10, 1)):
        begun, finished, most = [], [], 0
        for result in work_ahead(
            range(8),
            lambda item, seen=begun: seen.append(item) or item,
            threads=2,
            weight=lambda _, own=weight: own,
            most=9,
        ):
            finished.append(result)
            most = max(most, len(begun) - len(finished) + 1)
        assert finished == list(range(8))
        assert most <= most_at_once


# ---- 100 megapixels --------------------------------------------------------------------------------------------------------

LARGE = """
import json, sys
import cv2, numpy as np
from spadework import Spade
from spadework.evaluation import peak_memory_mb

side, size, folder = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]

def texture(seed):
    '''A texture of period 20, so that every place of the map has the same to say, with a little noise.'''
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:20, :20]
    period = (100 + 60 * ((y // 10 + x // 10) % 2)).astype(np.uint8)
    row = np.tile(period, (side // 20 + 1, side // 20 + 1))[:side, :side]
    row = row + rng.integers(0, 9, (side, side), np.uint8)
    return cv2.merge([row, row, row])

paths = []
for index in range(3):
    path = f"{folder}/{index}.png"
    quickly = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    cv2.imwrite(path, texture(index), quickly)
    paths.append(path)
model = Spade(image_size=size, calibration_images=0, gallery_k=4).fit(paths[:2])
found = model.predict(paths[2])[0]
small, tiling = found.view_map, model.gallery_.tiling
steps = np.abs(np.diff(small, axis=1)).mean(axis=0)
starts = {start for begin in tiling.columns for start in (begin, begin + tiling.tile[1]) if 0 < start < small.shape[1]}
near = [at for start in starts for at in range(start - 3, start + 2)]
inner = np.ones(len(steps), bool)
inner[near] = inner[:64] = inner[-64:] = False
print(json.dumps({
    "peak": peak_memory_mb(), "size": found.score_map.shape, "tiles": len(tiling), "pixels": found.size,
    "at": float(steps[[at for at in near if 64 <= at < len(steps) - 64]].max()), "elsewhere": float(steps[inner].max()),
    "finite": bool(np.isfinite(found.score_map).all()), "spread": float(small.std() / small.mean()),
}))
"""


def told_of(side: int, size: object, folder) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LARGE), str(side), json.dumps(size), str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_picture_of_100_megapixels_is_mapped_in_bounded_memory_without_a_seam(tmp_path):
    told = told_of(10_000, "auto", tmp_path)
    assert told["size"] == [10_000, 10_000]
    assert told["finite"]
    assert told["peak"] < 3 * 1024
    assert told["tiles"] > 1
    assert (
        told["at"] <= told["elsewhere"]
    )  # steps from column to column where tiles end are no larger than anywhere else


@pytest.mark.slow
def test_a_view_in_pieces_has_no_seam(tmp_path):
    told = told_of(2048, 2048, tmp_path)  # four pieces, 25 tiles
    assert told["tiles"] == 25
    assert told["peak"] < 3 * 1024
    assert told["at"] <= told["elsewhere"]
