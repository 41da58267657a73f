"""The report: self-contained, well-formed, honest about what is undefined; overlays and charts checked by hand."""

from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from builders import defective_picture, normal_pictures

from spadework.errors import InputError, OutputError
from spadework.evaluation import MEASURES, Case, Evaluation, MatchedPatch
from spadework.metrics import Curve, image_measures
from spadework.report import charts, data_uri, heat_range, outline, overlay, write_report
from spadework.report.montage import PATCH, VERDICTS, Place, montage, overlay_sheet
from spadework.report.pictures import HOT

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


def test_several_runs_have_a_mean_that_is_undefined_if_one_is(tmp_path):
    first = make_evaluation()
    second = make_evaluation(row=first.row | {"image_auroc": 0.3234, "pro": None, "reasons": {"pro": "no masks"}})
    page = check_page(write_report(tmp_path, [first, second]))
    text = " ".join(page.text)
    assert f"{(0.1234 + 0.3234) / 2:.4f}" in text
    assert {"#run-0", "#run-1"} <= set(page.loads)
    assert (tmp_path / "report.html").is_file()


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


def test_data_uri_holds_the_picture():
    picture = normal_pictures(1)[0]
    data = base64.b64decode(data_uri(picture, quality=95).partition(",")[2])
    again = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
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
