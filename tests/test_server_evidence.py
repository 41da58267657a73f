"""Evidence: from its bytes alone the map and every match, as the detector told them."""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import replace

import numpy as np
import pytest
from builders import defective_picture, normal_picture, normal_pictures, tiny_model

from spadework.detectors.padim import PaDiM
from spadework.errors import InputError
from spadework.server.evidence import DamagedEvidenceError, Evidence

SIZE = (90, 130)


def kept(prediction, detector) -> Evidence:
    return Evidence.from_bytes(Evidence.of(prediction, detector).to_bytes())


MODELS = {
    "everyday": {},
    "not square": {"image_size": (64, 96)},
    "cropped": {"image_size": 80, "crop": 64},
    "ensemble": {"pyramid": "ensemble"},
    "several": {"kappa": 3, "smoothing": 0.0},
    "wide": {"wide_smoothing": 12.0},
}


@pytest.fixture(scope="module", params=MODELS)
def detector(request):
    return tiny_model(**MODELS[request.param])


def test_the_map_is_the_same_to_the_last_bit(detector):
    one = detector.predict(defective_picture(size=SIZE)[0]).only
    back = kept(one, detector)
    assert back.size == SIZE
    assert np.array_equal(back.view_map, one.view_map)
    assert np.array_equal(back.score_map(), one.score_map, equal_nan=True)
    assert back.distances is not None  # the small form


def test_the_match_of_any_pixel_is_that_of_explain(detector):
    one = detector.predict(defective_picture(size=SIZE)[0]).only
    back = kept(one, detector)
    compared = 0
    for y in range(0, SIZE[0], 7):
        for x in range(0, SIZE[1], 7):
            if np.isnan(one.score_map[y, x]):
                continue
            told, match = detector.explain(one, y, x), back.match(y, x)
            entry = detector.gallery_.entries[told.image]
            assert (match.y, match.x, match.box, match.normal_box) == (y, x, told.box, told.normal_box)
            assert (match.name, match.pixel_hash, match.size) == (entry.name, entry.sha256, entry.size)
            assert match.distance == pytest.approx(told.distance, rel=1e-6)
            compared += 1
    assert compared > 50


def test_it_holds_after_the_model_has_changed():
    detector = tiny_model()
    one = detector.predict(normal_picture(50)).only
    data = Evidence.of(one, detector).to_bytes()
    told = detector.explain(one, 20, 30)
    detector.append(normal_pictures(3, start=20))
    match = Evidence.from_bytes(data).match(20, 30)
    assert (match.name, match.normal_box) == (told.name, told.normal_box)


def test_where_the_map_is_not_that_of_the_distances_it_is_kept_itself(model):
    one = model.predict(normal_picture(50, SIZE)).only
    other = replace(one, view_map=one.view_map + np.float32(0.5))
    back = kept(other, model)
    assert back.distances is None
    assert np.array_equal(back.view_map, other.view_map)
    assert back.match(20, 30) == kept(one, model).match(20, 30)


def test_a_detector_without_matches_has_a_map_alone():
    detector = PaDiM(image_size=64).fit(normal_pictures(6))
    one = detector.predict(normal_picture(50, SIZE)).only
    back = kept(one, detector)
    assert np.array_equal(back.score_map(), one.score_map)
    with pytest.raises(InputError, match="does not tell which normal place"):
        back.match(1, 1)


def test_a_detector_without_a_map_has_no_evidence(model):
    one = model.predict(normal_picture(50)).only
    assert Evidence.of(replace(one, view_map=None, score_map=None), model) is None


def test_the_same_prediction_gives_the_same_bytes_and_few(model):
    one = model.predict(normal_picture(50, (640, 480))).only
    data = Evidence.of(one, model).to_bytes()
    assert data == Evidence.of(model.predict(normal_picture(50, (640, 480))).only, model).to_bytes()
    assert len(data) < 4000


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (SIZE[0], 0), (0, SIZE[1])])
def test_a_place_outside_is_refused(model, place):
    back = kept(model.predict(normal_picture(50, SIZE)).only, model)
    with pytest.raises(InputError, match="outside the picture"):
        back.match(*place)


def test_damage_and_newer_versions_are_told(model, tmp_path, monkeypatch):
    data = Evidence.of(model.predict(normal_picture(50)).only, model).to_bytes()
    for wrong in (b"", b"PK\3\4", data[:-30], data[: len(data) // 2], b"x" * 500):
        with pytest.raises(DamagedEvidenceError, match="damaged"):
            Evidence.from_bytes(wrong)
    (tmp_path / "e").write_bytes(data)
    assert Evidence.read(tmp_path / "e").size == (64, 64)
    assert Evidence.read(tmp_path / "gone") is None
    monkeypatch.setattr("spadework.server.evidence.VERSION", 0)
    with pytest.raises(DamagedEvidenceError, match="of version 1, this Spadework reads up to 0"):
        Evidence.from_bytes(data)


def test_every_changed_byte_is_noticed_or_harmless(model):
    """The archive holds checksums: what is read is what was written, or an error."""
    whole = Evidence.of(model.predict(normal_picture(50)).only, model)
    data, wanted = whole.to_bytes(), whole.view_map
    for place in range(0, len(data), max(1, len(data) // 150)):
        changed = bytearray(data)
        changed[place] ^= 1 << (zlib.crc32(bytes([place % 251])) % 8)
        with contextlib.suppress(DamagedEvidenceError):
            assert np.array_equal(Evidence.from_bytes(bytes(changed)).view_map, wanted)
