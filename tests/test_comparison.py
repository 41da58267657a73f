"""Published beside measured: which results stand in the tables, what a mean is over, and the tables in every form."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from spadework.comparison import MEAN, compare
from spadework.errors import InputError
from spadework.fingerprint import key_of
from spadework.published import CATEGORIES, COUNTS, SYSTEMS, published
from spadework.report.tables import FORMS, render
from spadework.results import Record

MEASURES = ("image_auroc", "pixel_auroc", "pro")


def record(
    detector="spade", category="carpet", *, values=(0.9, 0.95, 0.92), whole=True, finished=1.0, **changes
) -> Record:
    """A result as `reproduce` would leave it; `changes` go to the row, or to the identity where it has such a part."""
    pictures = [COUNTS[category].train, COUNTS[category].test] if whole else [3, 3]
    identity = {
        "detector": detector,
        "settings": {"seed": changes.get("seed", 0)},
        "backbone": "abc",
        "dataset": "mvtec",
        "category": category,
        "data": "d",
        "pictures": pictures,
        "pro_limit": 0.3,
        "resolution": "view",
        "versions": {"spadework": "1"},
        "code": "c",
    }
    identity |= {key: value for key, value in changes.items() if key in identity}
    row = {
        "detector": detector,
        "category": category,
        "configuration": "paper",
        "changed": {},
        "scale": "full",
        "seed": 0,
    }
    row |= dict(zip(MEASURES, values, strict=True)) | {"backbone": "net", "fit_seconds": 2.0, "peak_memory_mb": 100.0}
    row |= {"n_train": pictures[0], "n_test": pictures[1], "reasons": {}}
    row |= {key: value for key, value in changes.items() if key not in identity}
    return Record(key_of(identity), identity, row, finished, "here")


def everywhere(detector="spade", **options) -> list[Record]:
    return [record(detector, name, **options) for name in CATEGORIES]


def cell(comparison, table: int, row: str, detector: str):
    found = comparison.tables[table]
    place = [each.detector for each in found.columns].index(detector)
    return dict(found.rows)[row][place]


def test_without_results_the_published_tables_stand_alone():
    comparison = compare()
    assert [len(table.rows) for table in comparison.tables] == [1, 16, 1]
    assert {each.detector for each in SYSTEMS} == {each.detector for each in comparison.tables[0].columns}
    assert (
        cell(comparison, 1, "zipper", "spade").published.value,
        cell(comparison, 1, "zipper", "spade").measured,
    ) == (96.5, None)
    assert cell(comparison, 1, "zipper", "variation-model").published is None
    assert cell(comparison, 2, MEAN, "spade").published.certainty == "secondary"
    assert comparison.series == comparison.left_out == ()


def test_measured_stands_beside_published_with_the_difference():
    comparison = compare(everywhere())
    found = cell(comparison, 1, "carpet", "spade")
    assert (found.measured, found.spread) == (95.0, None)
    assert found.difference == pytest.approx(95.0 - 97.5)
    assert cell(comparison, 1, MEAN, "spade").difference == pytest.approx(-1.0)
    assert cell(comparison, 0, MEAN, "spade").difference == pytest.approx(90 - 85.5)
    assert cell(comparison, 2, MEAN, "spade").difference == pytest.approx(92 - 91.7)
    assert cell(comparison, 0, "carpet", "spade").difference is None
    assert [each.detector for each in comparison.series] == ["spade"]


def test_a_mean_of_some_categories_is_none():
    comparison = compare(everywhere()[1:])
    assert cell(comparison, 1, "grid", "spade").measured == 95.0
    mean = cell(comparison, 1, MEAN, "spade")
    assert (mean.measured, mean.why) == (None, "14 of 15 categories")


def test_a_mean_is_over_the_categories_of_the_published_one():
    textures = [record("texture-inspection", name, values=(0.5, 0.8, 0.5)) for name in CATEGORIES[:5]]
    comparison = compare(textures)
    assert cell(comparison, 1, MEAN, "texture-inspection").measured == pytest.approx(80.0)
    assert cell(comparison, 0, MEAN, "texture-inspection").measured is None  # that is over all
    assert "its mean in Table 2, published and measured, is over carpet, grid, leather, tile, wood" in render(
        comparison
    )


def test_seeds_are_averaged_and_their_spread_is_told():
    one = everywhere("ae-l2", values=(0.7, 0.80, 0.5), seed=1)
    two = everywhere("ae-l2", values=(0.7, 0.84, 0.5), seed=2)
    comparison = compare([*one, *two])
    found = cell(comparison, 1, "tile", "ae-l2")
    assert (found.measured, found.spread) == (pytest.approx(82.0), pytest.approx(8**0.5))
    mean = cell(comparison, 1, MEAN, "ae-l2")
    assert (mean.measured, mean.spread) == (pytest.approx(82.0), pytest.approx(8**0.5))
    text = render(comparison)
    assert "82.0±2.8" in text
    assert "seeds 1, 2" in text


def test_what_was_measured_differently_is_never_mixed_and_the_choice_is_not_by_result():
    paper = everywhere(values=(0.1, 0.2, 0.3))
    quick = everywhere(
        values=(0.9, 0.99, 0.9), configuration="quick", settings={"seed": 0, "image_size": 64}, finished=9.0
    )
    changed = everywhere(values=(0.8, 0.8, 0.8), changed={"kappa": 3}, settings={"seed": 0, "kappa": 3}, finished=9.0)
    comparison = compare([*quick, *changed, *paper])
    assert cell(comparison, 1, "wood", "spade").measured == pytest.approx(20.0)
    assert len(comparison.left_out) == 2
    assert any("15 results of paper configuration with kappa=3" in words for words in comparison.left_out)
    older = [replace(each, identity=each.identity | {"code": "older"}) for each in paper[:3]]
    comparison = compare([*older, *paper])
    assert cell(comparison, 1, MEAN, "spade").measured == pytest.approx(20.0)
    assert any("3 results" in words and "code older" in words for words in comparison.left_out)


def test_other_pictures_than_mvtec_ad_give_no_difference_and_are_told():
    comparison = compare(everywhere(whole=False))
    found = cell(comparison, 1, "carpet", "spade")
    assert (found.measured, found.difference) == (95.0, None)
    assert cell(comparison, 1, MEAN, "spade").difference is None
    assert "NOT MEASURED ON THE WHOLE OF MVTec AD" in render(comparison)
    both = compare([*everywhere(whole=False), *everywhere(values=(0.5, 0.6, 0.7), configuration="quick")])
    assert cell(both, 1, "carpet", "spade").measured == pytest.approx(
        60.0
    )  # the whole set first, whatever the settings


def test_older_results_of_other_pictures_are_named():
    comparison = compare([*everywhere(), record(values=(0.1, 0.1, 0.1), data="older", finished=0.5)])
    assert cell(comparison, 1, "carpet", "spade").measured == 95.0
    assert comparison.left_out == ("spade: 1 older results of the same settings and other pictures",)


def test_what_sets_results_apart_is_told():
    others = [
        record(resolution="original"),
        record(versions={"spadework": "1", "numpy": "1.9"}),
        record(settings={"seed": 0, "max_false_alarms": 0.1}),
    ]
    comparison = compare([*everywhere(), *others])
    for words in ("at the picture's size", "apart by numpy 1.9", "apart by max_false_alarms=0.1"):
        assert sum(words in line for line in comparison.left_out) == 1, comparison.left_out
    assert "pixels compared at the network's size" in render(comparison).replace("\n  ", " ")


def test_a_mean_over_fewer_seeds_in_some_categories_says_so():
    one, two = everywhere("ae-l2", seed=1), everywhere("ae-l2", seed=2)
    text = render(compare([*one, *two[2:]]), width=1000)
    assert "ae-l2: not all seeds were measured of carpet, grid; means take what there is." in text
    assert "not all seeds" not in render(compare([*one, *two]), width=1000)


@pytest.mark.parametrize(
    ("changes", "head"),
    [
        ({}, "here"),
        ({"configuration": "quick", "scale": "quick"}, "quick"),
        ({"configuration": "quick", "changed": {"epochs": 9}}, "quick"),
        ({"scale": "quick", "changed": {"epochs": 1}}, "quick"),
        ({"configuration": "default"}, "default"),
        ({"changed": {"kappa": 3}}, "changed"),
    ],
)
@pytest.mark.parametrize("form", ["text", "markdown", "latex", "html"])
def test_every_table_names_what_is_scaled_down_or_changed(changes, head, form):
    text = render(compare([*everywhere(**changes), *everywhere("patchcore", **changes)]), form, width=1000)
    heads = {
        word: len(re.findall(rf"(?<!\w){word}(?![\w:])", text.partition("Published: ")[0]))
        for word in ("here", "quick", "default", "changed")
    }
    own = heads.pop(head)
    assert own >= 6  # two methods in three tables
    if form != "html":  # its style has a class of that name
        assert set(heads.values()) == {0}
    assert (f"{head}: measured here" in text) == (head != "here")


def test_results_of_other_data_and_other_limits_are_left_out():
    others = [record(dataset="visa"), record(pro_limit=0.1)]
    comparison = compare(others)
    assert comparison.series == ()
    assert comparison.left_out == (
        "1 results of other data sets",
        "1 results of PRO to another false-positive rate than 0.3",
    )


def test_failed_runs_are_shown_with_their_reason():
    nulls = dict.fromkeys(MEASURES)
    failed = record("ae-l2", "carpet", values=(None, None, None), error="out of memory", **{"reasons": nulls})
    comparison = compare([failed, record("ae-l2", "grid")])
    assert cell(comparison, 1, "carpet", "ae-l2").why == "failed: out of memory"
    text = render(comparison)
    assert re.search(r"^carpet .* failed", text, re.MULTILINE)
    assert "ae-l2, carpet: failed: out of memory" in text
    assert "1 of 15 categories" in " ".join(text.split())


def test_image_level_detectors_have_no_place_among_the_maps():
    rows = everywhere("geom", values=(0.7, None, None), reasons={"pixel_auroc": "geom gives no map"})
    comparison = compare([*rows, *everywhere("nearest-thing", values=(0.6, None, None)), *everywhere("patchcore")])
    assert cell(comparison, 0, MEAN, "geom").difference == pytest.approx(70 - 67.2)
    names = [each.detector for each in comparison.tables[1].columns]
    assert "geom" not in names
    assert names[-1] == "patchcore"
    assert [each.detector for each in comparison.tables[0].columns][-2:] == ["nearest-thing", "patchcore"]


# ---------------------------------------------------------------- forms


FULL = [*everywhere(), *everywhere("patchcore"), *everywhere("ae-l2", seed=1), *everywhere("ae-l2", seed=2)]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("records", [[], FULL], ids=["alone", "measured"])
def test_text_fits_the_terminal_and_loses_nothing(width, records):
    text = render(compare(records), width=width)
    assert max(map(len, text.splitlines())) <= width
    for system in SYSTEMS:
        assert system.title in text
    for system in SYSTEMS:
        for name in CATEGORIES:
            number = published("pixel_auroc", system.detector, name)
            row = [line for line in text.splitlines() if line.startswith(name.replace("_", " "))]
            assert number is None or any(str(number) in line.split() for line in row), (system, name)


def test_text_columns_stand_flush():
    text = render(compare(FULL), width=200)
    table = text.partition("Table 2")[2].partition("PRO")[0].splitlines()
    head = next(line for line in table if line.startswith("category"))
    ends = [match.end() for match in re.finditer(r"\S+", head)][1:]
    for line in table:
        if line.startswith(tuple(name.replace("_", " ") for name in CATEGORIES)):
            cells = [match.end() for match in re.finditer(r"\S+", line.removeprefix("metal nut").rjust(len(line)))]
            assert cells[-len(ends) :] == ends


def test_markdown_is_a_table():
    text = render(compare(FULL), "markdown")
    table = text.partition("## Table 2")[2].partition("\n## ")[0].strip().splitlines()[2:]
    assert len({line.count("|") for line in table}) == 1
    assert len(table) == 18
    head = [word.strip() for word in table[0].strip("|").split("|")]
    carpet = dict(zip(head, [word.strip() for word in table[2].strip("|").split("|")], strict=True))
    assert (carpet["SPADE publ."], carpet["SPADE here"], carpet["SPADE diff."]) == ("97.5", "95.0", "-2.5")
    assert carpet["CAVGA-Ru publ."] == "-"
    assert "91.7\\*" in text


def test_latex_escapes_and_balances():
    text = render(compare(everywhere(changed={"image_size": 64}, settings={"seed": 0, "image_size": 64})), "latex")
    assert text.count("\\begin{table}") == text.count("\\end{table}") == 4
    assert text.count("{") == text.count("}")
    assert "image\\_size=64" in text
    assert not re.search(r"(?<!\\)[%#]", text.partition("\n")[2].replace("{%\n", ""))
    for line in text.partition("Table 2")[2].partition("\\end{tabular}")[0].splitlines():
        if line.startswith("carpet"):
            assert line == r"carpet & 87 & 59 & 54 & 72 & 88 & - & - & 97.5 & 95.0 & $-2.5$ \\"


def test_what_a_library_said_as_it_died_spoils_no_form():
    why = "died.\n\nIts last words: \x1b[31mfatal\x1b[0m \x00 100 % of a|b \udc80 in 図 --set x"
    failed = record("ae-l2", "carpet", values=(None, None, None), error=why, reasons={})
    for form in FORMS:
        text = render(compare([failed]), form, width=1000)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\udc80]", text)
        assert len([line for line in text.splitlines() if "last words" in line and "died." in line]) == 1
        text.encode()
    text = render(compare([failed]), "latex")
    assert "100 \\% of a$|$b in [U+56F3] -{}-set x" in text
    assert max(text) < "\u0180"


class Cells(HTMLParser):
    """Cells of each row of each table, spans counted."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: list[int] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.widths.append(0)
        if tag in {"td", "th"}:
            self.widths[-1] += int(dict(attributes).get("colspan", 1))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_one_sound_page_that_needs_no_other():
    text = render(compare(FULL, left_out=["<script>"]), "html")
    cells = Cells()
    cells.feed(text)
    assert cells.open == []
    assert len(set(cells.widths[:18])) == 1  # two heads, fifteen categories, the mean
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=", text)


def test_an_unknown_form_is_refused():
    with pytest.raises(InputError, match="format must be one of html, latex, markdown, text"):
        render(compare(), "pdf")
    assert set(FORMS) == {"html", "latex", "markdown", "text"}
