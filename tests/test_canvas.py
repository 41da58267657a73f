"""The canvas: its size from the normal pictures' sizes, pictures of any shape fitted into it, and padding that never speaks."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from builders import TINY, defective_picture, normal_picture, normal_pictures, write_pictures
from PIL import Image

from spadework import Spade, load
from spadework.canvas import LEAST, MOST, choose_canvas
from spadework.cli.options import chosen_settings
from spadework.datasets.synthetic import render
from spadework.detectors import get_detector
from spadework.errors import InputError
from spadework.images import View, picture_size, read_image
from spadework.pyramid import Pyramid, padded
from spadework.scores import smooth_map
from spadework.storage import HEADER

WIDE, TALL = (60, 90), (90, 60)
MIXED = [WIDE, WIDE, (64, 64), (50, 90), WIDE, (120, 170)]


def pictures_of(sizes, *, start=0):
    return [normal_picture(start + index, size) for index, size in enumerate(sizes)]


# ---- sizes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_a_size_read_from_the_header_is_that_of_the_picture(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(normal_picture(0, (48, 64))).save(path, exif=exif)
    assert picture_size(path) == read_image(path).shape[:2]


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_size_of_16_bits_too(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((7, 11), np.uint16)).save(tmp_path / "a.tif", exif=exif)
    assert picture_size(tmp_path / "a.tif") == read_image(tmp_path / "a.tif").shape[:2]


def test_what_cannot_be_read_has_no_size(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert picture_size(tmp_path / "a.png") is None
    assert picture_size(tmp_path / "none.png") is None
    assert picture_size(np.zeros(3)) is None
    assert picture_size(np.zeros((5, 7, 3), np.uint8)) == (5, 7)


@pytest.mark.parametrize(
    ("sizes", "asked", "canvas"),
    [
        ([(256, 256)], 256, (256, 256)),
        ([(300, 400)], 256, (224, 288)),  # 222 x 296
        ([(300, 400), (300, 400), (1000, 100)], 256, (224, 288)),  # the median does not follow one
        ([(100, 200), (200, 100)], 256, (256, 256)),  # both ways round: a square
        ([(300, 400)], (64, 128), (64, 128)),
        ([(10, 3000)], 64, (16, 1104)),  # never less than the network takes
        ([(256, 256)], "auto", (256, 256)),  # three quarters are less than the least
        ([(800, 800)], "auto", (608, 608)),
        ([(1500, 2000)], "auto", (880, 1184)),  # at most 1,024 x 1,024 in area
        ([], "auto", (256, 256)),
    ],
)
def test_the_canvas_has_the_median_s_aspect_and_the_area_asked_for(sizes, asked, canvas):
    pictures = [np.broadcast_to(np.uint8(0), (*size, 3)) for size in sizes]
    assert choose_canvas(pictures, asked, multiple=16) == canvas
    assert LEAST == 256 and MOST == 1024


@pytest.mark.parametrize("size", [(256, 256), (341, 341), (122, 285), (265, 375)])
def test_small_pictures_are_seen_by_default_as_at_256(size):
    pictures = [np.broadcast_to(np.uint8(0), (*size, 3))]
    assert Spade().image_size == "auto"
    assert choose_canvas(pictures, "auto", multiple=16) == choose_canvas(pictures, 256, multiple=16)


# ---- the view --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 40), (90, 40), (64, 64), (200, 300), (1, 500), (500, 1), (48, 64)])
def test_a_padded_view_holds_the_whole_picture_its_aspect_kept(shape):
    view = View((48, 64), pad=True)
    picture = normal_picture(0, shape)
    seen, (rows, columns) = view.see(picture), view.part(shape)
    assert seen.shape == (48, 64, 3)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    assert (height, width) == view.resized(shape)
    assert height == 48 or width == 64
    assert abs(height / shape[0] - width / shape[1]) <= 1 / min(shape)  # one scale, but for rounding to whole pixels
    shown = seen[rows, columns]
    method = cv2.INTER_AREA if height < shape[0] or width < shape[1] else cv2.INTER_LINEAR
    np.testing.assert_array_equal(shown, cv2.resize(picture, (width, height), interpolation=method))
    np.testing.assert_array_equal(seen[: rows.start, columns], np.repeat(shown[:1], rows.start, axis=0))
    np.testing.assert_array_equal(seen[rows, columns.stop :], np.repeat(shown[:, -1:], 64 - columns.stop, axis=1))


def test_maps_masks_and_boxes_of_a_padded_view_are_the_picture_s():
    view, shape = View((48, 64), pad=True), (90, 60)  # seen as 48 x 32, 16 columns of padding on either side
    assert view.part(shape) == (slice(0, 48), slice(16, 48))
    assert view.box(shape) == (0.0, -30.0, 90.0, 90.0)
    ramp = np.tile(np.arange(32, dtype=np.float32), (48, 1))
    back = view.back(ramp, shape)
    assert back.shape == shape
    assert np.isfinite(back).all()
    np.testing.assert_allclose(back[0], np.clip((np.arange(60) + 0.5) * 32 / 60 - 0.5, 0, 31), atol=1e-3)
    mask = np.zeros(shape, bool)
    mask[:, :30] = True
    np.testing.assert_array_equal(view.see_mask(mask), np.tile(np.arange(32) < 16, (48, 1)))


def test_a_grid_s_places_of_padding_are_told_from_the_picture_s():
    view = View((48, 64), pad=True)
    assert view.cells((90, 60), (6, 8)) == (slice(0, 6), slice(2, 6))
    assert view.cells((48, 64), (6, 8)) == (slice(0, 6), slice(0, 8))
    assert view.cells((1, 500), (6, 8)) == (slice(3, 4), slice(0, 8))  # thinner than a place: one is taken
    assert View((48, 64)).cells((90, 60), (6, 8)) == (slice(0, 6), slice(0, 8))


def test_padding_does_not_bleed_into_the_map():
    distances = np.ones((6, 8))
    distances[:, :2] = distances[:, 6:] = 1e6
    part = View((48, 64), pad=True).part((90, 60))
    small = smooth_map(distances, (48, 64), sigma=4.0, part=part)
    assert small.shape == (48, 32)
    np.testing.assert_allclose(small, 1.0, rtol=1e-6)


@pytest.mark.parametrize("shape", [(30, 40), (90, 40), (64, 64), (200, 300), (1, 500), (500, 1), (48, 64)])
def test_a_picture_seen_alone_has_a_side_and_a_place_that_the_network_takes(shape):
    view = View((48, 64), pad=True, step=16)
    seen, (rows, columns) = view.see(normal_picture(0, shape)), view.part(shape)
    assert seen.shape == (rows.stop - rows.start, columns.stop - columns.start, 3) == (*view.resized(shape), 3)
    assert not any(edge % 16 for edge in (rows.start, rows.stop, columns.start, columns.stop))
    assert min(rows.start, columns.start) >= 0
    assert (rows.stop, columns.stop) <= (48, 64)
    plain = View((48, 64), pad=True).resized(shape)
    assert all(abs(own - other) <= max(8, 16 - other) for own, other in zip(view.resized(shape), plain, strict=True))


def test_features_beyond_the_picture_are_its_nearest():
    levels = [np.arange(24, dtype=np.float32).reshape(4, 6, 1), np.arange(6, dtype=np.float32).reshape(2, 3, 1)]
    found = padded(Pyramid(tuple(levels), np.zeros(1)), (slice(16, 48), slice(0, 48)), (64, 64))  # strides 8 and 16
    assert [level.shape for level in found.levels] == [(8, 8, 1), (4, 4, 1)]
    for level, own, step in zip(found.levels, levels, (8, 16), strict=True):
        rows = np.clip(np.arange(64 // step) - 16 // step, 0, len(own) - 1)
        columns = np.clip(np.arange(64 // step), 0, own.shape[1] - 1)
        np.testing.assert_array_equal(level, own[rows[:, None], columns])


def test_the_edge_of_a_picture_of_another_shape_is_nothing_new():
    """With its edges repeated in pixels before the network, cut textures scored three times as much at the cut."""
    model = get_detector("spade")(calibration_images=0).fit([render("weave", index=index)[0] for index in range(12)])
    for index in range(20, 23):
        picture = render("weave", index=index)[0]
        whole, cut = (model.predict(own)[0].score for own in (picture, picture[20:-20]))
        assert cut < 1.3 * whole


# ---- detectors -------------------------------------------------------------------------------------------------------------

DETECTORS = {
    "spade": TINY,
    "patchcore": {"image_size": 64, "coreset": 0.5},
    "padim": {"image_size": 64},
    "nearest-image": {"image_size": 64},
}


@pytest.fixture(scope="module", params=DETECTORS)
def fitted(request):
    return get_detector(request.param)(**DETECTORS[request.param]).fit(pictures_of(MIXED))


def test_mixed_sizes_make_one_model_with_maps_in_each_picture_s_pixels(fitted):
    assert fitted.folder_.header["canvas"] == [48, 80]  # of 60 x 90, in an area of 64 x 64
    for size in [WIDE, TALL, (64, 64), (31, 200), (200, 31), (5, 5)]:
        found = fitted.predict(normal_picture(70, size))[0]
        assert found.size == size
        assert fitted.localises == (found.score_map is not None)
        if found.score_map is not None:
            assert found.score_map.shape == size
            assert np.isfinite(found.score_map).all()
            assert found.view_map.shape == found.view.resized(size)


def test_a_defect_is_found_where_it_lies_whatever_the_shape(fitted):
    if not fitted.localises:
        return
    for size in (WIDE, TALL, (128, 128)):
        picture, mask = defective_picture(99, size)
        found = fitted.predict(picture)[0]
        assert found.score > fitted.predict(normal_picture(71, size)).score
        place = 8 * size[0] // found.view_map.shape[0]  # one of the grid, in the picture's pixels
        near = cv2.dilate(mask.astype(np.uint8), np.ones((2 * place + 1, 2 * place + 1)))
        assert near[np.unravel_index(found.score_map.argmax(), size)]


def test_the_canvas_is_kept_with_the_model(fitted, tmp_path):
    path = fitted.save(tmp_path / "part.spade")
    again = load(path)
    assert again._view() == fitted._view() == View((48, 80), pad=True, step=16)
    assert again.predict(normal_picture(72, TALL)).score == fitted.predict(normal_picture(72, TALL)).score
    assert again.model_hash() == fitted.model_hash()


def test_what_pads_a_picture_never_speaks(monkeypatch):
    """Padding of other pixels, with its own great distances, changes the score by no more than what it does to features at the edge."""
    model = get_detector("patchcore")(image_size=64, coreset=1, grid_stride=8).fit(pictures_of([WIDE] * 6))
    judged = model._judgement

    def shouting(distances, score):
        changed = distances.reshape(model.grid_).copy()
        changed[:, :2] = changed[:, -2:] = 1e9
        return judged(changed.reshape(-1), score)

    tall = normal_picture(73, (90, 45))  # seen in the middle 24 of 80 columns
    calm = model.predict(tall)[0]
    monkeypatch.setattr(model, "_judgement", shouting)
    loud = model.predict(tall)[0]
    assert loud.score == calm.score
    np.testing.assert_array_equal(loud.score_map, calm.score_map)


def test_the_best_patch_is_not_sought_in_padding():
    model = get_detector("patchcore")(image_size=64, coreset=1, grid_stride=8).fit(pictures_of([WIDE] * 6))
    shown = model._shown((90, 45), model.grid_)
    assert sorted(set(shown % model.grid_[1])) == [4, 5, 6, 7]  # 24 columns, brought to 32 by the step, from 32 to 64
    distances = np.zeros(np.prod(model.grid_))
    distances[0], distances[shown[3]] = 9.0, 1.0
    assert model._score(model.bank_.rows, distances, np.zeros(len(distances), int), model.bank_.rows, shown) == 1.0


def test_a_place_is_explained_in_pixels_of_both_originals():
    sizes = [WIDE, TALL, (120, 170), (64, 64)]
    normal = pictures_of(sizes)
    model = Spade(**TINY).fit(normal)
    for index, size in enumerate(sizes):
        found = model.predict(normal[index])
        for y, x in ((0, 0), (size[0] // 2, size[1] // 3), (size[0] - 1, size[1] - 1)):
            told = model.explain(found, y, x, patch=8)
            assert (told.image, told.distance) == (index, 0.0)
            assert told.box == told.normal_box  # its own copy, at the same place
            y0, x0, y1, x1 = told.box
            assert 0 <= y0 <= y < y1 <= size[0] or size[0] < 8 * size[0] / 48
            assert 0 <= x0 < x1 <= size[1]


def test_a_match_in_another_size_of_picture_lies_at_the_same_part_of_it():
    small = normal_picture(3, (48, 80))
    large = cv2.resize(small, (160, 96), interpolation=cv2.INTER_LINEAR)
    model = Spade(image_size=(48, 80), calibration_images=0).fit([small])
    told = model.explain(model.predict(large), 48, 80, patch=16)
    y0, x0, y1, x1 = told.normal_box
    assert (y1 - y0, x1 - x0) == (16, 16)
    assert abs((y0 + y1) / 2 - 24) <= 8 and abs((x0 + x1) / 2 - 40) <= 8


def test_a_model_from_before_there_was_a_canvas_answers_as_it_did(tmp_path):
    """Pictures were stretched to the square: what a canvas of their own shape with 64 pixels a side gives as well."""
    square = pictures_of([(64, 64)] * 5)
    model = Spade(**TINY).fit(square, path=tmp_path / "old.spade")
    wanted = model.predict(cv2.resize(normal_picture(74, (64, 64)), (64, 64))).score
    assert model.predict(normal_picture(74, (64, 64))).score == wanted
    header = model.folder_.path / HEADER
    model.folder_.header.pop("canvas")
    with model.folder_.writing():
        model.folder_.commit()
    assert "canvas" not in json.loads(header.read_text())
    old = load(model.folder_.path)
    assert old._view() == View((64, 64))
    assert old.predict(normal_picture(74, (64, 64))).score == wanted
    stretched = cv2.resize(normal_picture(75, TALL), (64, 64), interpolation=cv2.INTER_AREA)
    assert old.predict(normal_picture(75, TALL)).score == old.predict(stretched).score


def test_auto_follows_the_pictures_and_an_append_keeps_the_canvas(tmp_path):
    paths = write_pictures(tmp_path, normal_pictures(3, (400, 300)))
    model = Spade(image_size="auto", calibration_images=3).fit(paths)
    assert model.folder_.header["canvas"] == [304, 224]  # 296 x 222
    model.append(pictures_of([(64, 64), (900, 900)], start=20))
    assert model._view().size == (304, 224)
    assert model.settings()["image_size"] == "auto"


def test_a_crop_is_as_in_the_paper_and_wants_a_number():
    model = Spade(**{**TINY, "image_size": 64, "crop": 48}).fit(pictures_of(MIXED))
    assert "canvas" not in model.folder_.header
    assert model._view() == View((64,), (48, 48))
    with pytest.raises(InputError, match="with crop, give a number"):
        Spade(image_size="auto", crop=48).fit(normal_pictures(2))


@pytest.mark.parametrize("size", ["large", "", "AUTO"])
def test_another_word_is_refused(size):
    with pytest.raises(InputError, match='image_size must be a number, .* or "auto"'):
        Spade(image_size=size).fit(normal_pictures(2))


@pytest.mark.parametrize(
    ("text", "size"), [("320", 320), ("480x640", (480, 640)), ("auto", "auto"), ("x", "x"), ("1x2x3", "1x2x3")]
)
def test_a_size_on_the_command_line(text, size):
    assert chosen_settings([], image_size=text) == {"image_size": size}
