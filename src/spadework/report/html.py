"""The HTML report: one file that needs no other, no network and no script.

In: evaluations. Out: a page with the measures and their settings, curves, the score histogram with the threshold, and the pictures
worth a look: the highest scores, the most doubtful, missed defects and false alarms, with map, mask and matched normal patches.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from spadework.errors import InputError, OutputError
from spadework.evaluation import MEASURES, Case, Evaluation, MatchedPatch
from spadework.report.charts import histogram, line_chart
from spadework.report.pictures import (
    Box,
    data_uri,
    draw_boxes,
    heat_range,
    heat_scale,
    number_places,
    outline,
    overlay,
    region_top,
    scaled,
)
from spadework.report.sheet import alike, bounded
from spadework.report.style import STYLE
from spadework.scores import find_regions

TITLES = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pro": "PRO",
    "image_ap": "image AP",
    "pixel_ap": "pixel AP",
    "image_f1": "image F1",
    "pixel_f1": "pixel F1",
}
TUNED = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pro": "PRO",
    "mean": "mean",
    "gain": "gain",
    "standard_error": "standard error",
    "least_gain": "gain, worst size",
}
GROUPS = {
    "worst": "Highest scores",
    "doubtful": "Most doubtful: nearest the threshold",
    "missed": "Missed defects",
    "false alarm": "False alarms",
}
LEAST = 320  # longer side of a picture; smaller ones are enlarged, so that numbers do not hide them
PATCH, WIDEST = 96, 200  # height and greatest width of a patch on the page; twice as many pixels are kept


def write_report(
    path: str | os.PathLike[str], evaluations: Sequence[Evaluation], *, title: str = "Spadework report"
) -> Path:
    """Write a report as one self-contained HTML file; an older one is replaced in one step.

    Args:
        path: a file NAME.html, or a folder, in which it is called report.html.
        evaluations: at least one.
        title: headline.

    Returns:
        The file.

    Raises:
        InputError: no evaluation.
        OutputError: the file cannot be written; an older one is unchanged.
    """
    if not evaluations:
        raise InputError("evaluations is empty: a report needs at least one.")
    target = Path(path)
    if target.suffix.lower() not in {".html", ".htm"} or target.is_dir():
        target = target / "report.html"
    text = render(evaluations, title=title)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: the report cannot be written: {error.strerror or error}.") from error
    return target


def render(evaluations: Sequence[Evaluation], *, title: str) -> str:
    """Return the report as HTML text."""
    version = escape(str(evaluations[0].row["spadework"]))
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="quiet">Spadework {version}, {escape(made)}. A higher score is more anomalous. '
        "Thresholds come from normal pictures alone.</p>",
        _summary(evaluations),
        *(_section(index, each) for index, each in enumerate(evaluations)),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
    body = "\n".join(parts)
    page = f'<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body><main>{body}</main></body></html>'
    return f"<!doctype html>\n{page}\n"


def _name(each: Evaluation) -> str:
    return f"{each.row['category']} · {each.row['detector']}"


def _summary(evaluations: Sequence[Evaluation]) -> str:
    """A table of all runs, with the mean of each detector that has several."""
    heads = ["", *TITLES.values(), "false alarms", "missed"]
    titles = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    rows = [f"<tr>{titles}</tr>"]
    for index, each in enumerate(evaluations):
        cells = [f'<th scope="row"><a href="#run-{index}">{escape(_name(each))}</a></th>']
        cells += [_measure_cell(each.row, key) for key in MEASURES_IN_ORDER]
        cells += [f"<td>{escape(text)}</td>" for text in _at_threshold(each)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    names = dict.fromkeys(each.row["detector"] for each in evaluations)
    for name in names:
        own = [each for each in evaluations if each.row["detector"] == name]
        if len(own) > 1:
            title = "mean" if len(names) == 1 else f"mean · {name}"
            cells = [
                f'<th scope="row">{escape(title)}</th>',
                *(f"<td>{_mean(own, key)}</td>" for key in MEASURES_IN_ORDER),
            ]
            rows.append(f'<tr class="mean">{"".join(cells)}<td></td><td></td></tr>')
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


MEASURES_IN_ORDER = tuple(key for key in TITLES if key in MEASURES)


def _measure_cell(row: dict[str, Any], key: str) -> str:
    value = row[key]
    if value is None:
        return f'<td class="quiet" title="{escape(str(row["reasons"].get(key, "")))}">undefined</td>'
    return f"<td>{value:.4f}</td>"


def _mean(evaluations: Sequence[Evaluation], key: str) -> str:
    values = [each.row[key] for each in evaluations]
    return "undefined" if None in values else f"{np.mean(values):.4f}"


def _at_threshold(each: Evaluation) -> tuple[str, str]:
    """False alarms and missed defects at the threshold, as counted in this test."""
    counts = each.counts
    if counts is None:
        return "no threshold", "no threshold"
    missed = counts["anomalous"] - counts["found"]
    return f"{counts['false_alarms']} of {counts['normal']}", f"{missed} of {counts['anomalous']}"


def _section(index: int, each: Evaluation) -> str:
    parts = [
        f'<section id="run-{index}"><h2>{escape(_name(each))}</h2>',
        _facts(each),
        f'<div class="charts">{"".join(_charts(each))}</div>',
        *_cases(each),
        "</section>",
    ]
    return "\n".join(parts)


def _facts(each: Evaluation) -> str:
    row = each.row
    alarms, missed = _at_threshold(each)
    facts = {
        "data": f"{row['dataset']}, {row['n_train']} normal pictures learnt, {row['n_test']} tested",
        "network": f"{row['backbone']} ({str(row['backbone_hash'])[:12]})" if row["backbone"] else "none",
        "threshold": _promise(each),
        "measured at it": f"{alarms} normal pictures alarmed, {missed} defective ones missed",
        "pixels compared": f"at {row.get('resolution', 'original')} size; PRO to a false-positive rate of {row.get('pro_limit', 0.3)}",
        "time": f"fit {_seconds(row['fit_seconds'])}, {_seconds(row['predict_seconds_per_image'])} a picture",
        "peak memory": "unknown" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:.0f} MiB",
        "model": str(row["model_hash"]),
    }
    facts |= {TITLES.get(key, key): f"undefined: {why}" for key, why in row["reasons"].items()}
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    settings = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(repr(value))}</dd>" for name, value in row["settings"].items()
    )
    return (
        f"<dl>{lines}</dl><details><summary>Settings</summary><dl>{settings}</dl></details>{_tuning(row.get('tuning'))}"
    )


def _tuning(tuning: Mapping[str, Any] | None) -> str:
    """What a rehearsal tried before the model was fitted; nothing where there was none."""
    if not tuning:
        return ""
    head = "".join(f"<th>{name}</th>" for name in ("settings", *TUNED.values()))
    lines = []
    for row in tuning["tried"]:
        text = ", ".join(f"{name} {value}" for name, value in row["changes"].items()) or "as given"
        chosen = ' class="chosen"' if row["changes"] == tuning["chosen"] else ""
        numbers = "".join(f"<td>{row[key]:.4f}</td>" if key in row else "<td></td>" for key in TUNED)
        lines.append(f"<tr{chosen}><td>{'→ ' if chosen else ''}{escape(text)}</td>{numbers}</tr>")
    what = f"{tuning['planted']} defects planted on {tuning['tested']} normal pictures, in {tuning['seconds']:.0f} s"
    return (
        f"<details><summary>Tuning: {escape(what)}</summary>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></details>"
    )


def _promise(each: Evaluation) -> str:
    if each.threshold is None or each.promised_false_alarms is None:
        return "none: too few normal pictures"
    asked, promised = each.max_false_alarms or 0.0, each.promised_false_alarms
    text = f"{each.threshold:.4g}; promised: at most {_percent(promised)} of normal pictures are called anomalous"
    return text if promised <= asked else f"{text} ({_percent(asked)} was asked for: more normal pictures are needed)"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g} s"


def _charts(each: Evaluation) -> list[str]:
    name = _name(each)
    charts = []
    roc = [
        (label, curve) for label, curve in (("images", each.image_roc), ("pixels", each.pixel_roc)) if curve is not None
    ]
    if roc:
        chart = line_chart(roc, title=f"ROC of {name}", x_label="false-positive rate", y_label="true-positive rate")
        charts.append(_figure(chart, "ROC"))
    if each.pro_curve is not None:
        limit = float(each.row.get("pro_limit", 0.3))
        chart = line_chart(
            [("regions", each.pro_curve)],
            title=f"PRO of {name}",
            x_label="false-positive rate of pixels",
            y_label="mean overlap",
            x_max=limit,
        )
        charts.append(_figure(chart, f"Per-region overlap to {limit:g}"))
    normal, anomalous = each.image_scores[~each.image_labels], each.image_scores[each.image_labels]
    chart = histogram(normal, anomalous, threshold=each.threshold, title=f"Image scores of {name}")
    return [*charts, _figure(chart, "Image scores")]


def _figure(chart: str, caption: str) -> str:
    return f"<figure>{chart}<figcaption>{escape(caption)}</figcaption></figure>"


@dataclass(frozen=True)
class _Heat:
    """How the maps of a run are drawn: the scores drawn as coldest and hottest, and the one that outlines begin at."""

    low: float
    high: float
    threshold: float | None

    @property
    def key(self) -> str:
        """The colours between the scores they stand for, as HTML."""
        place = None if self.threshold is None else (self.threshold - self.low) / (self.high - self.low)
        bar = f'<img src="{data_uri(heat_scale(12, 160, mark=place))}" alt="from clear to red" width="80" height="12">'
        return f'<span class="heat">{self.low:.4g} {bar} {self.high:.4g}</span>'


def _cases(each: Evaluation) -> list[str]:
    maps = [case.score_map for case in each.cases if case.score_map is not None]
    low, high = heat_range(maps, each.map_threshold) if maps else (0.0, 1.0)
    heat = _Heat(low, high, each.map_threshold)
    parts = [_key(heat)] if maps else []
    for why, heading in GROUPS.items():
        chosen = [case for case in each.cases if case.why == why]
        if chosen:
            parts.append(f"<h3>{escape(heading)}</h3>")
            parts.extend(_case(case, heat) for case in chosen)
    return parts


def _key(heat: _Heat) -> str:
    """How to read the pictures, once for all of a run."""
    line = "" if heat.threshold is None else f" White lines surround what lies above {heat.threshold:.4g}."
    words = "One scale for all pictures of this run; below its lower end nothing is drawn."
    return f'<p class="key">Heat maps: {heat.key}. {words}{line} Numbers mark the places that are shown beside their normal match.</p>'


def _case(case: Case, heat: _Heat) -> str:
    picture = bounded(case.picture, least=LEAST, most=max(LEAST, *case.picture.shape[:2]))
    boxes = scaled([match.box for match in case.matches], case.picture.shape, picture.shape)
    pictures = [_picture(draw_boxes(picture, boxes), "picture")]
    if case.score_map is not None:
        drawn = overlay(picture, case.score_map, low=heat.low, high=heat.high, threshold=heat.threshold)
        spots = scaled(_spots(case.score_map, case.matches, heat.threshold), case.picture.shape, picture.shape)
        pictures.append(_picture(number_places(drawn, spots, tail=True), "map", note=heat.key))
    if case.mask is not None and case.mask.any():
        pictures.append(_picture(outline(picture, case.mask), "true defect"))
    verdict = {True: "anomalous", False: "normal", None: "no verdict"}[case.verdict]
    truth = "normal" if not case.is_anomalous else case.kind
    facts = f"score {case.score:.4g}, called {verdict}; truly {truth}"
    matches = "".join(_match(number, match) for number, match in enumerate(case.matches, 1))
    name = f'<p class="path">{escape(case.path)}</p><p>{escape(facts)}</p>'
    return (
        f'<article>{name}<div class="pictures">{"".join(pictures)}<div class="matches">{matches}</div></div></article>'
    )


def _spots(score_map: np.ndarray, matches: Sequence[MatchedPatch], threshold: float | None) -> list[Box]:
    """What the numbers on a map point at: the outlined region whose peak a match explains, without one the highest pixel."""
    free = list(find_regions(score_map, threshold))
    spots: list[Box] = []
    for match in matches:
        y0, x0, y1, x1 = match.box
        region = next((each for each in free if y0 <= each.peak[0] < y1 and x0 <= each.peak[1] < x1), None)
        if region is None or threshold is None:
            part = np.nan_to_num(score_map[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)], nan=-np.inf)
            y, x = (int(place) for place in np.unravel_index(int(np.argmax(part)), part.shape))
            spots.append((y0 + y, x0 + x, y0 + y + 1, x0 + x + 1))
        else:
            free.remove(region)  # highest first, as the matches are: two boxes that overlap get one region each
            spots.append(region_top(region, score_map, threshold))
    return spots


def _match(number: int, match: MatchedPatch) -> str:
    """A place and its normal match at one height, which is what lets them be compared."""
    shown = alike((match.picture_patch, match.normal_patch), 2 * PATCH, 2 * WIDEST)
    captions = (f"{number}: this part", "normal")
    pair = "".join(_picture(patch, caption, dots=2) for patch, caption in zip(shown, captions, strict=True))
    facts = f"distance {match.distance:.4g} before smoothing<br>{escape(_file_name(match.normal_name))}"
    return f'<div class="match">{pair}<p class="quiet">{facts}</p></div>'


def _picture(image: np.ndarray, caption: str, *, note: str = "", dots: int = 1) -> str:
    """A figure. note: HTML after the caption. dots: pixels of the picture for one of the page."""
    size = f'width="{max(1, image.shape[1] // dots)}" height="{max(1, image.shape[0] // dots)}"'
    words = f"{escape(caption)} {note}" if note else escape(caption)
    return f'<figure><img src="{data_uri(image)}" alt="{escape(caption)}" {size} loading="lazy"><figcaption>{words}</figcaption></figure>'


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
