"""The report: self-contained, well-formed, honest about what is undefined; overlays and charts checked by hand."""

from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from builders import defective_picture, normal_picture, normal_pictures

from spadework.errors import InputError, OutputError
from spadework.evaluation import MEASURES, Case, Evaluation, MatchedPatch
from spadework.metrics import Curve, image_measures
from spadework.report import charts, data_uri, heat_range, outline, overlay, write_report
from spadework.report import sheet as sheet_module
from spadework.report.html import _spots
from spadework.report.montage import PATCH, VERDICTS, Place, _about, montage, overlay_sheet
from spadework.report.pictures import (
    COLD,
    GROUND,
    HOT,
    MARK,
    STRONGEST,
    draw_boxes,
    heat_scale,
    number_places,
    region_top,
    scaled,
)
from spadework.scores import find_regions

VOID = {"meta", "img", "br", "line", "rect", "polyline"}


class Balance(HTMLParser):
    """Fails on a tag that is closed but not open, or open at the end; collects what the page would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def check_page(path):
    parser = Balance()
    parser.feed(path.read_text(encoding="utf-8"))
    assert parser.open == []
    return parser


def decoded(address):
    data = base64.b64decode(address.partition(",")[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def near(picture, colour):
    """Which pixels have a colour, as far as JPEG keeps it."""
    return np.abs(picture.astype(int) - colour).max(axis=2) < 40


def make_case(**changes) -> Case:
    picture, mask = defective_picture()
    patch = picture[:16, :16]
    match = MatchedPatch(0, (0, 0, 16, 16), patch, patch, "good/<b>.png", 1.5)
    score_map = mask.astype(np.float32) * 9
    fields = {
        "path": "new/bad.png", "kind": "square", "is_anomalous": True, "score": 9.0, "verdict": True, "picture": picture,
        "score_map": score_map, "mask": mask, "matches": (match,), "why": "worst",
    }  # fmt: skip
    return Case(**{**fields, **changes})


def make_evaluation(**changes) -> Evaluation:
    scores, labels = np.array([1.0, 2.0, 3.0, 4.0, 9.0]), np.array([False, False, True, False, True])
    roc = image_measures(scores, labels).roc
    row = {
        "dataset": "folder", "category": "plate", "detector": "spade", "backbone": "embedded", "settings": {"kappa": 1},
        "n_train": 8, "n_test": 5, **{key: 0.1234 + index / 100 for index, key in enumerate(MEASURES)}, "fit_seconds": 1.0,
        "predict_seconds_per_image": 0.1, "peak_memory_mb": 99.0, "model_hash": "f" * 16, "backbone_hash": "a" * 64,
        "spadework": "0", "reasons": {}, "pro_limit": 0.3, "resolution": "original",
    }  # fmt: skip
    fields = {
        "row": row, "image_scores": scores, "image_labels": labels, "kinds": ("good",) * 5, "paths": ("a",) * 5, "threshold": 3.5,
        "max_false_alarms": 0.01, "promised_false_alarms": 0.1, "map_threshold": 4.0, "image_roc": roc, "pixel_roc": roc,
        "pro_curve": Curve(np.array([0.0, 0.3]), np.array([0.0, 0.9])), "cases": (make_case(),),
    }  # fmt: skip
    return Evaluation(**{**fields, **changes})


def test_needs_nothing_else(tmp_path):
    page = check_page(write_report(tmp_path / "a.html", [make_evaluation()]))
    assert page.loads
    assert all(value.startswith(("data:image/", "#")) for value in page.loads)
    text = (tmp_path / "a.html").read_text()
    assert not re.search(r"https?://|@import|url\(|<script", text)


def test_says_every_measure_and_the_counts_at_the_threshold(tmp_path):
    page = check_page(write_report(tmp_path / "a.html", [make_evaluation()]))
    text = " ".join(page.text)
    for index in range(len(MEASURES)):
        assert f"{0.1234 + index / 100:.4f}" in text
    assert "1 of 3 normal pictures alarmed, 1 of 2 defective ones missed" in text  # 4 > 3.5; 3 <= 3.5
    assert "1 % was asked for" in text
    assert "kappa" in text
    assert "at most 10 % of normal pictures are called anomalous" in text


def test_cases_come_in_the_order_of_interest(tmp_path):
    cases = tuple(make_case(why=why) for why in ("false alarm", "missed", "doubtful", "worst"))
    text = write_report(tmp_path / "a.html", [make_evaluation(cases=cases)]).read_text()
    places = [text.index(f"<h3>{word}") for word in ("Highest", "Most doubtful", "Missed", "False alarms")]
    assert places == sorted(places)


def test_maps_have_a_scale_and_places_have_numbers(tmp_path):
    text = write_report(tmp_path / "a.html", [make_evaluation(cases=(make_case(), make_case()))]).read_text()
    keys = re.findall(r'<span class="heat">(\S+) <img src="data:image/jpeg;base64,[^"]+" [^>]*> (\S+)</span>', text)
    assert keys == [("1", "7")] * 3  # a quarter of 4.0 to 1.75 times it: once for the run, once for each map
    assert "White lines surround what lies above 4." in text
    assert text.count("<figcaption>1: this part</figcaption>") == 2
    assert text.count("distance 1.5 before smoothing") == 2
    pictures = [decoded(address) for address in re.findall(r'src="([^"]+)" alt="picture"', text)]
    assert all(near(picture, MARK).sum() > 50 for picture in pictures)  # the box and its tag
    assert not near(normal_picture(), MARK).any()
    bare = write_report(tmp_path / "b.html", [make_evaluation(cases=(make_case(score_map=None),))]).read_text()
    assert 'class="heat"' not in bare


def test_numbers_on_a_map_point_at_the_regions_their_boxes_explain():
    score_map = np.zeros((100, 100), np.float32)
    score_map[40:45, 50:55], score_map[60:70, 30:34] = 9.0, 8.0
    score_map[5, 7], score_map[0, 0] = 3.0, np.nan
    first, second, below = (
        dataclasses.replace(make_case().matches[0], box=box)
        for box in ((30, 25, 62, 60), (35, 20, 67, 55), (0, 0, 20, 20))
    )
    spots = _spots(score_map, [first, second, below], 4.0)
    assert spots == [
        (40, 50, 45, 55),
        (60, 30, 70, 34),
        (5, 7, 6, 8),
    ]  # the second box holds both peaks: the first is taken
    assert _spots(score_map, [first], None) == [(40, 50, 41, 51)]


def test_a_map_in_the_report_is_numbered_at_its_region_not_at_the_corner_of_the_box(tmp_path):
    score_map = np.zeros((320, 320), np.float32)
    score_map[200:210, 250:260] = 9.0
    match = dataclasses.replace(make_case().matches[0], box=(150, 150, 280, 300))
    case = make_case(picture=np.zeros((320, 320, 3), np.uint8), score_map=score_map, mask=None, matches=(match,))
    text = write_report(tmp_path / "a.html", [make_evaluation(cases=(case,))]).read_text()
    rows, columns = np.nonzero(near(decoded(re.search(r'src="([^"]+)" alt="map"', text).group(1)), MARK))
    assert 150 < rows.min() < rows.max() <= 201
    assert 247 < columns.min() < columns.max() < 270


def test_a_place_and_its_match_are_shown_at_one_height(tmp_path):
    picture = normal_picture(size=(64, 96))
    match = MatchedPatch(0, (0, 0, 47, 36), picture[:47, :36], picture[:23, :31], "174.jpg", 190.2)
    text = write_report(tmp_path / "a.html", [make_evaluation(cases=(make_case(matches=(match,)),))]).read_text()
    sizes = re.findall(r'alt="(1: this part|normal)" width="(\d+)" height="(\d+)"', text)
    assert [name for name, _, _ in sizes] == ["1: this part", "normal"]
    assert sizes[0][2] == sizes[1][2] == "96"
    assert int(sizes[0][1]) == pytest.approx(96 * 36 / 47, abs=1)  # aspect kept


def test_undefined_is_said_with_its_reason(tmp_path):
    row = make_evaluation().row | {"pro": None, "reasons": {"pro": "the data set has no masks"}}
    text = " ".join(check_page(write_report(tmp_path / "a.html", [make_evaluation(row=row)])).text)
    assert "undefined" in text
    assert "the data set has no masks" in text


def test_nothing_to_draw_is_fine(tmp_path):
    bare = make_case(score_map=None, mask=None, matches=(), verdict=None)
    empty = make_evaluation(
        threshold=None,
        promised_false_alarms=None,
        map_threshold=None,
        image_roc=None,
        pixel_roc=None,
        pro_curve=None,
        cases=(bare,),
    )
    text = " ".join(check_page(write_report(tmp_path / "a.html", [empty])).text)
    assert "no threshold" in text
    assert "no verdict" in text


def test_names_cannot_break_the_page(tmp_path):
    evil = "<script>alert('x')</script>"
    row = make_evaluation().row | {"category": evil, "settings": {"backbone": evil}}
    target = write_report(
        tmp_path / "a.html", [make_evaluation(row=row, cases=(make_case(path=evil, kind=evil),))], title=evil
    )
    check_page(target)
    assert "<script" not in target.read_text()


def test_names_of_undecodable_bytes_are_written(tmp_path):
    name = "new/\udce4.png"  # what Python makes of a file called b"\xe4.png"
    match = dataclasses.replace(make_case().matches[0], normal_name=name)
    text = write_report(
        tmp_path / "a.html", [make_evaluation(cases=(make_case(path=name, matches=(match,)),))]
    ).read_text()
    assert text.count(r"\udce4.png") == 2


def test_several_runs_have_a_mean_that_is_undefined_if_one_is(tmp_path):
    first = make_evaluation()
    second = make_evaluation(row=first.row | {"image_auroc": 0.3234, "pro": None, "reasons": {"pro": "no masks"}})
    page = check_page(write_report(tmp_path, [first, second]))
    text = " ".join(page.text)
    assert f"{(0.1234 + 0.3234) / 2:.4f}" in text
    assert {"#run-0", "#run-1"} <= set(page.loads)
    assert (tmp_path / "report.html").is_file()


def test_several_detectors_have_a_mean_each(tmp_path):
    first = make_evaluation()
    others = [first.row | {"detector": "padim", "image_auroc": value} for value in (0.2, 0.4)]
    page = check_page(write_report(tmp_path, [first, *(make_evaluation(row=row) for row in others)]))
    text = " ".join(page.text)
    assert ("mean · padim" in text, "0.3000" in text, "mean · spade" in text) == (True, True, False)


def test_cannot_be_written(tmp_path, monkeypatch):
    target = write_report(tmp_path / "a.html", [make_evaluation()])
    before = target.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match=r"a\.html.*No space left"):
        write_report(target, [make_evaluation()], title="other")
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    with pytest.raises(InputError, match="evaluations is empty"):
        write_report(target, [])


def test_overlay_by_hand():
    image = np.full((4, 4, 3), 100, np.uint8)
    score_map = np.zeros((4, 4), np.float32)
    score_map[0, 0], score_map[3, 3] = 10.0, np.nan
    before = image.copy()
    drawn = overlay(image, score_map, low=1.0, high=5.0)
    np.testing.assert_array_equal(image, before)
    assert (drawn[1:3] == 100).all()  # below `low` the picture is as it was
    hottest = cv2.applyColorMap(np.full((1, 1), HOT, np.uint8), cv2.COLORMAP_TURBO)[0, 0, ::-1]
    np.testing.assert_allclose(drawn[0, 0], 55 + 0.45 * hottest, atol=1)  # the part stays visible below the heat
    assert not (drawn[3, 3] == 100).all()  # not inspected is not normal
    above = np.zeros((12, 12), np.float32)
    above[4:9, 4:9] = 1.0
    outlined = overlay(np.full((12, 12, 3), 100, np.uint8), above, low=0.99, high=9.0, threshold=0.5)
    assert (outlined[4, 4:9] == 255).all()  # the border of what lies above the threshold
    assert (outlined[0] == 100).all()


def test_heat_is_blended_as_defined_to_the_byte():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 70, 3), dtype=np.uint8)  # several bands, the last one shorter
    heat = rng.random((300, 70), dtype=np.float32)
    heat[:40] = 0.0
    shade = np.rint(COLD + heat * (HOT - COLD)).astype(np.uint8)
    colours = cv2.applyColorMap(shade, cv2.COLORMAP_TURBO)[..., ::-1]
    opacity = STRONGEST * heat[..., None]
    expected = np.rint(image * (1 - opacity) + colours * opacity).astype(np.uint8)
    np.testing.assert_array_equal(overlay(image, heat, low=0.0, high=1.0), expected)


def test_the_outline_of_a_small_place_leaves_its_inside_visible():
    score_map = np.zeros((40, 40), np.float32)
    score_map[20:24, 20:24] = 1.0
    outlined = overlay(np.full((40, 40, 3), 100, np.uint8), score_map, low=0.99, high=9.0, threshold=0.5)
    assert (outlined[19:21, 20:24] == 255).all()  # two pixels: JPEG loses one
    assert (outlined[18, 20:24] == 0).all()  # dark outside
    assert (np.abs(outlined[21:23, 21:23].astype(int) - 100) < 5).all()


def test_opacity_grows_with_the_score():
    scores = np.linspace(1.0, 5.0, 9, dtype=np.float32)[None]
    drawn = [overlay(np.full((1, 9, 3), shade, np.uint8), scores, low=1.0, high=5.0) for shade in (0, 255)]
    opacity = 1 - (drawn[1].astype(int) - drawn[0]).mean(axis=2)[0] / 255
    np.testing.assert_allclose(opacity, np.linspace(0, 0.45, 9), atol=0.01)


def test_the_scale_shows_what_the_overlay_draws():
    scale = heat_scale(3, 11)
    assert (scale[:, 0] == GROUND).all()
    heated = overlay(
        np.full((3, 11, 3), GROUND, np.uint8), np.tile(np.arange(11.0, dtype=np.float32), (3, 1)), low=0, high=10
    )
    np.testing.assert_array_equal(scale, heated)
    marked = heat_scale(3, 11, mark=0.5)
    assert (marked[:, 5] == 255).all()
    assert (marked[:, [4, 6]] == 0).all()
    np.testing.assert_array_equal(heat_scale(3, 11, mark=2.0), scale)  # a threshold beyond the scale has no place on it


def test_numbers_stand_on_a_solid_tag_in_a_contrasting_colour():
    picture = np.full((400, 400, 3), MARK, np.uint8)  # as bad a ground as there can be
    drawn = draw_boxes(picture, [(100, 100, 200, 200)])
    tag = drawn[70:96, 100:125]
    assert (tag == MARK).all(axis=2).any()
    assert (tag == 0).all(axis=2).any()  # the digit is black
    top = number_places(picture * 0, [(0, 395, 10, 400)])  # no room above, nor at the right: it moves inside
    assert (top[:20, 385:] == MARK).all(axis=2).sum() > 50
    assert not np.array_equal(draw_boxes(picture, [(100, 100, 200, 200)], first=2), drawn)
    small = number_places(picture * 0, [(200, 200, 204, 204)], tail=True)
    assert (small[185:200, 202:] == 0).all()  # what is just beside a small place stays visible
    assert (small[150:180, 200:] == MARK).all(axis=2).any()


def test_a_number_never_covers_a_small_place_and_its_line_shows_on_any_ground():
    for y in (0, 8, 30, 200):
        drawn = number_places(np.zeros((400, 400, 3), np.uint8), [(y, 200, y + 6, 206)], tail=True)
        assert not (drawn[y + 1 : y + 5, 202:206] == MARK).all(axis=2).any()
        assert (drawn == MARK).all(axis=2).sum() > 100
    line = number_places(np.zeros((400, 400, 3), np.uint8), [(200, 200, 206, 206)], tail=True)[190]
    assert (line == MARK).all(axis=1).sum() >= 2  # JPEG loses one pixel
    line = number_places(np.full((400, 400, 3), MARK, np.uint8), [(200, 200, 206, 206)], tail=True)[190]
    assert (line == 0).all(axis=1).sum() >= 2


def test_the_line_to_a_number_is_upright_at_the_edge_of_the_picture():
    drawn = number_places(np.zeros((400, 400, 3), np.uint8), [(200, 395, 206, 400)], tail=True)
    columns = np.flatnonzero((drawn[180:200] == MARK).all(axis=2).any(axis=0))
    assert 392 < columns.min() <= columns.max() < 398  # what is beside the place stays visible


def test_numbers_do_not_hide_each_other():
    picture = np.zeros((400, 400, 3), np.uint8)
    alone = (number_places(picture, [(200, 200, 206, 206)], tail=True) == MARK).all(axis=2).sum()
    both = number_places(picture, [(200, 200, 206, 206), (204, 203, 210, 209)], tail=True)
    assert (both == MARK).all(axis=2).sum() > 1.8 * alone
    assert draw_boxes(picture, [(0, 390, 9, 399)] * 3).shape == picture.shape  # no room left: they lie over each other


def test_boxes_follow_a_picture_to_another_size():
    assert scaled([(1, 2, 3, 4)], (10, 20, 3), (20, 30, 3)) == [(2, 3, 6, 6)]


def test_overlay_takes_maps_of_another_size():
    assert overlay(np.zeros((6, 8, 3), np.uint8), np.ones((3, 4), np.float32), low=0, high=1).shape == (6, 8, 3)


def test_heat_range():
    assert heat_range([], 4.0) == (1.0, 7.0)
    low, high = heat_range([np.array([[0.0, 1.0, np.nan]], np.float32)], None)
    assert low == 0.5 < high
    assert heat_range([np.full((2, 2), np.nan, np.float32)], None) == (0.0, 1.0)


def test_outline_draws_the_border_only():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    drawn = outline(np.zeros((40, 40, 3), np.uint8), mask)
    assert drawn[10, 20].any()
    assert not drawn[20, 20].any()


@pytest.mark.parametrize("size", [(20, 8), (143, 91), (117, 260)])
def test_small_pictures_of_any_shape_are_enlarged_with_their_defect(size, tmp_path):
    picture, mask = defective_picture(size=size)
    case = make_case(picture=picture, mask=mask, score_map=mask * np.float32(9))
    text = write_report(tmp_path / "a.html", [make_evaluation(cases=(case,))]).read_text()
    shown = decoded(re.search(r'src="([^"]+)" alt="true defect"', text).group(1))
    assert max(shown.shape) == 320
    border = np.argwhere(near(shown, (0, 255, 255)))
    inside = np.argwhere(mask)
    scale = np.array(shown.shape[:2]) / size
    np.testing.assert_allclose(border.min(axis=0), inside.min(axis=0) * scale, atol=0.6 * scale.max() + 2)
    np.testing.assert_allclose(border.max(axis=0), (inside.max(axis=0) + 1) * scale, atol=0.6 * scale.max() + 2)


def test_data_uri_holds_the_picture():
    picture = normal_pictures(1)[0]
    again = decoded(data_uri(picture, quality=95))
    assert np.abs(again.astype(int) - picture).mean() < 5


def test_line_chart_places_points():
    chart = charts.line_chart(
        [("roc", Curve(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0])))], title="t", x_label="x", y_label="y"
    )
    points = re.search(r'points="([^"]*)"', chart).group(1).split()
    (x0, y0), (x1, y1), (x2, _) = (map(float, point.split(",")) for point in points)
    assert (x0, y0) == (charts.LEFT, charts.HEIGHT - charts.BOTTOM)
    assert x1 == pytest.approx((x0 + x2) / 2)
    assert y1 == charts.TOP


def test_histogram_counts_everything_and_marks_the_threshold():
    chart = charts.histogram(np.array([0.0, 0.0, 5.0]), np.array([10.0]), threshold=5.0, title="t")
    assert chart.count("<rect") == 3 + 2  # three bars, two legends
    assert chart.count('class="threshold"') == 2  # the line, and the same dashes in the legend
    assert "threshold 5" in chart
    assert charts.histogram(np.array([]), np.array([3.0]), threshold=None, title="t").count("<rect") == 1 + 2
    assert charts.histogram(np.array([0.0]), np.array([]), threshold=None, title="t")  # one score, and that is zero


def test_ticks_are_round():
    assert charts._ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert charts._ticks(0, 0.3) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert all(3 <= len(charts._ticks(0, high)) <= 11 for high in (1e-9, 0.37, 4, 77, 1e7))


def test_montage_shows_place_and_match(model):
    picture = defective_picture()[0]
    found = model.predict(picture)[0]
    places = [
        Place(match, model.gallery_.thumbnail(match.image), model.gallery_.entries[match.image].size)
        for match in model.explain_regions(found)
    ]
    sheet = montage(picture, found, places)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] > PATCH * len(places)
    named = [dataclasses.replace(place, match=dataclasses.replace(place.match, name="größe/π.png")) for place in places]
    assert montage(picture, found, named).shape[1] >= 2 * PATCH  # letters that the font lacks are replaced


def test_a_montage_says_when_it_does_not_show_every_region(model):
    found = model.predict(defective_picture()[0])[0]
    several = dataclasses.replace(found, regions=found.regions[:1] * 5)
    assert _about(several, 3) == "5 regions above the threshold; the 3 highest are shown"
    assert _about(dataclasses.replace(found, regions=found.regions[:1]), 1) == "1 region above the threshold"


@pytest.mark.parametrize("size", [(20, 8), (64, 64), (40, 400), (700, 90)])
def test_an_overlay_sheet_shows_pictures_of_any_shape_with_their_verdict(size, model):
    picture = defective_picture(size=size)[0]
    found = model.predict(picture)[0]
    sheet = overlay_sheet(picture, found, longest=500)
    assert sheet.dtype == np.uint8
    assert 250 <= sheet.shape[1] <= 520  # wide enough for the words
    colour = np.array(VERDICTS[found.verdict])
    assert (np.abs(sheet.astype(int) - colour).max(axis=2) < 3).any()  # the verdict's tag
    tall = min(480, 500) * size[0] / max(size)
    assert sheet.shape[0] > tall + 20  # the picture, and a strip below it


def test_a_number_stands_on_the_outline_of_a_slanted_region():
    score_map = np.zeros((100, 100), np.float32)
    for step in range(30):
        score_map[20 + step, 70 - step : 75 - step] = 9.0
    region = find_regions(score_map, 4.0)[0]
    assert region.box[:2] == (20, 41)
    assert region_top(region, score_map, 4.0)[:2] == (20, 70)


def test_a_flat_picture_leaves_little_paper_empty(model):
    picture = defective_picture(size=(40, 400))[0]
    found = model.predict(picture)[0]
    match = dataclasses.replace(model.explain_regions(found)[0], normal_patch=picture[:30, :200])
    sheet = montage(picture, found, [Place(match, picture, picture.shape[:2])])
    assert sheet.shape[0] < 250
    rows = (sheet != 255).any(axis=(1, 2))
    gaps = np.diff(np.flatnonzero(rows))
    assert gaps.max() < 40  # captions stand directly under what they name


def test_rows_stand_beside_a_tall_picture(model):
    picture = defective_picture(size=(400, 100))[0]
    found = model.predict(picture)[0]
    match = model.explain_regions(found)[0]
    sheet = montage(picture, found, [Place(match, picture, picture.shape[:2])])
    assert sheet.shape[0] < 400 + 100  # the picture, a heading and a caption: nothing below them


def test_blocks_keep_their_pixels():
    first, second = np.full((2, 3, 3), 10, np.uint8), np.full((4, 1, 3), 20, np.uint8)
    row = sheet_module.beside([first, second], gap=2)
    assert row.shape == (4, 6, 3)
    assert (row[:2, :3] == 10).all()
    assert (row[:, 5] == 20).all()
    assert (row[2:, :3] == 255).all()
    column = sheet_module.below([first, second], gap=1)
    assert column.shape == (7, 3, 3)
    assert (column[3:, 0] == 20).all()
    grid = sheet_module.table([[first, second], [second, first]], gap=1)
    assert grid.shape == (4 + 1 + 4, 3 + 1 + 3, 3)
    assert (grid[5:7, 4:7] == 10).all()
    assert sheet_module.flow([first] * 3, 7, gap=1).shape == (2 + 2, 7, 3)


def test_pictures_are_brought_to_one_height_also_where_the_width_is_the_limit():
    shapes = [(47, 36), (20, 400), (69, 95)]
    shown = sheet_module.alike([np.zeros((*shape, 3), np.uint8) for shape in shapes], 168, 336)
    assert [each.shape[:2] for each in shown] == [(17, 13), (17, 336), (17, 23)]


def test_long_names_keep_their_end():
    name = "a/very/long/folder/name/000.png"
    short = sheet_module.shorten(name, 120)
    assert short.startswith("...")
    assert short.endswith("000.png")
    assert sheet_module.width_of(short) <= 120
    assert sheet_module.shorten("000.png", 120) == "000.png"


def test_pictures_are_enlarged_or_shrunk_only_as_far_as_needed():
    for shape, expected in (((20, 8), (480, 192)), ((600, 300), (600, 300)), ((4000, 2000), (1600, 800))):
        assert sheet_module.bounded(np.zeros((*shape, 3), np.uint8), least=480, most=1600).shape[:2] == expected
