"""Figures of the docs, drawn from the benchmarks' JSON as SVG text. Called by generate_docs.py.

One figure so far: every detector (rows) by image AUROC, pixel AUROC and PRO (panels), a mark a data set, its shape and colour the set's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

PANELS = {"image AUROC": "image_auroc", "pixel AUROC": "pixel_auroc", "PRO": "pro"}
# Okabe and Ito's colours, told apart also by those who see few of them; shapes tell the same.
LOOKS = [
    ("#0072b2", "circle"),
    ("#d55e00", "square"),
    ("#009e73", "triangle"),
    ("#aa4499", "diamond"),
    ("#555555", "cross"),
]
LEFT, PANEL, GAP, TOP, LINE, BOTTOM = 150, 230, 26, 34, 26, 58
SIZE = 5.5


def detectors(results: Path) -> str:
    """The figure of docs/detectors.md, from detectors.json."""
    rows = json.loads((results / "detectors.json").read_text(encoding="utf-8"))["rows"]
    names, sets = list(dict.fromkeys(row["detector"] for row in rows)), list(dict.fromkeys(row["set"] for row in rows))
    width = LEFT + len(PANELS) * (PANEL + GAP)
    height = TOP + len(names) * LINE + BOTTOM
    title = "Every detector by image AUROC, pixel AUROC and PRO; one mark for each data set"
    parts = [f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for index, name in enumerate(names):
        y = TOP + (index + 0.5) * LINE
        parts.append(f'<text x="{LEFT - 14}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
    for panel, (label, key) in enumerate(PANELS.items()):
        parts += _panel(LEFT + panel * (PANEL + GAP), label, key, names, sets, rows)
    for index, each in enumerate(sets):
        x, y = LEFT + index * 140, height - 16
        parts.append(_mark(*LOOKS[index % len(LOOKS)], x, y - 4))
        parts.append(f'<text x="{x + 12}" y="{y}">{escape(each)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
    look = 'font-family="system-ui, sans-serif" font-size="12.5" fill="#1b1b1b"'
    return f"{head} {look}><title>{escape(title)}</title>\n" + "\n".join(parts) + "\n</svg>\n"


def _panel(
    left: float, label: str, key: str, names: list[str], sets: list[str], rows: list[dict[str, Any]]
) -> Iterator[str]:
    """Grid, axis and marks of one measure, 0 to 1."""
    low = TOP + len(names) * LINE
    yield f'<text x="{left + PANEL / 2}" y="{TOP - 14}" text-anchor="middle" font-weight="600">{label}</text>'
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + tick * PANEL
        colour = "#8a8a8a" if tick == 0.5 and key != "pro" else "#dddddd"  # chance, of an AUROC
        yield f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{low}" stroke="{colour}"/>'
        yield f'<text x="{x}" y="{low + 16}" text-anchor="middle" font-size="11">{tick:g}</text>'
    for index, name in enumerate(names):
        y = TOP + (index + 0.5) * LINE
        yield f'<line x1="{left}" x2="{left + PANEL}" y1="{y}" y2="{y}" stroke="#f0f0f0"/>'
        found = {row["set"]: row[key] for row in rows if row["detector"] == name}
        values = [(place, found.get(each)) for place, each in enumerate(sets)]
        if all(value is None for _, value in values):
            yield f'<text x="{left + PANEL / 2}" y="{y + 4}" text-anchor="middle" fill="#666666" font-size="11">gives no map</text>'
        for place, value in values:
            if value is not None:
                yield _mark(*LOOKS[place % len(LOOKS)], left + value * PANEL, y)


def _mark(colour: str, shape: str, x: float, y: float) -> str:
    r = SIZE
    look = f'fill="{colour}" fill-opacity="0.8" stroke="#ffffff" stroke-width="0.8"'
    corners = {
        "square": [(-r, -r), (r, -r), (r, r), (-r, r)],
        "triangle": [(0, -r * 1.2), (r * 1.15, r), (-r * 1.15, r)],
        "diamond": [(0, -r * 1.35), (r * 1.1, 0), (0, r * 1.35), (-r * 1.1, 0)],
    }
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {look}/>'
    if shape == "cross":
        d = f"M{x - r:.1f} {y - r:.1f}L{x + r:.1f} {y + r:.1f}M{x - r:.1f} {y + r:.1f}L{x + r:.1f} {y - r:.1f}"
        return f'<path d="{d}" stroke="{colour}" stroke-width="2.4" fill="none"/>'
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[shape])
    return f'<polygon points="{points}" {look}/>'
