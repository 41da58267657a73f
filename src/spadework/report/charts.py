"""Charts as SVG text: curves and histograms. Colours are CSS variables of the page, so that they follow light and dark.

In: curves and scores. Out: one `<svg>` element each, complete with title, axes, grid and legend.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from spadework.metrics import Curve

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 12, 64
SERIES = ("--series-1", "--series-2", "--series-3")
BINS = 30


def line_chart(
    curves: Sequence[tuple[str, Curve]], *, title: str, x_label: str, y_label: str, x_max: float = 1.0
) -> str:
    """Draw curves with y in 0..1 over x in 0..`x_max`.

    Args:
        curves: (label, curve) each, at most three.
        title: for those who hear the page instead of seeing it.
        x_label: under the axis.
        y_label: beside the axis.
        x_max: right end of the axis.
    """
    parts = [_grid(x_max, 1.0, x_label, y_label)]
    for index, (label, curve) in enumerate(curves):
        points = " ".join(
            f"{_x(x, x_max):.1f},{_y(y, 1.0):.1f}" for x, y in zip(curve.x, curve.y, strict=True) if x <= x_max
        )
        parts.append(f'<polyline points="{points}" style="stroke:var({SERIES[index]})" class="curve"/>')
        parts.append(_legend(index, label, f'class="curve" style="stroke:var({SERIES[index]})"'))
    return _svg(title, parts)


def histogram(
    normal: np.ndarray, anomalous: np.ndarray, *, threshold: float | None, title: str, x_label: str = "image score"
) -> str:
    """Draw how many normal and anomalous pictures score what, and the threshold.

    Args:
        normal: (n,) scores of normal pictures.
        anomalous: (m,) scores of the others.
        threshold: marked; None for none.
        title: for those who hear the page instead of seeing it.
        x_label: under the axis.
    """
    values = np.concatenate([normal, anomalous, [] if threshold is None else [threshold]])
    low, high = min(0.0, float(values.min())), float(values.max())
    high = high if high > low else low + 1.0
    edges = np.linspace(low, high * 1.02 if high > 0 else high, BINS + 1)
    counts = [np.histogram(scores, edges)[0] for scores in (normal, anomalous)]
    tallest = max(1, *(int(count.max()) for count in counts))
    span = float(edges[-1] - low)
    parts = [_grid(span, float(tallest), x_label, "pictures", start=low, whole=True)]
    half = (_x(1 / BINS, 1.0) - _x(0, 1.0)) / 2
    for index, count in enumerate(counts):
        for place, number in enumerate(count):
            if number:
                x = _x(place / BINS, 1.0) + index * half
                y = _y(float(number), float(tallest))
                size = f'width="{half - 0.5:.1f}" height="{HEIGHT - BOTTOM - y:.1f}"'
                parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" {size} style="fill:var({SERIES[index]})"/>')
        parts.append(_legend(index, ("normal", "anomalous")[index], f'style="fill:var({SERIES[index]})"', bar=True))
    if threshold is not None:
        x = _x(threshold - low, span)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="threshold"/>')
        parts.append(_legend(2, f"threshold {threshold:.4g}", 'class="threshold"'))
    return _svg(title, parts)


def _svg(title: str, parts: Sequence[str]) -> str:
    name = escape(title)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}"><title>{name}</title>{"".join(parts)}</svg>'


def _x(value: float, largest: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / largest


def _y(value: float, largest: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / largest


def _grid(x_max: float, y_max: float, x_label: str, y_label: str, *, start: float = 0.0, whole: bool = False) -> str:
    """Axes with round ticks; x runs from `start` to `start + x_max`. `whole`: y counts things."""
    parts = []
    for tick in _ticks(start, start + x_max):
        x = _x(tick - start, x_max)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="grid"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{tick:.4g}</text>')
    for tick in _ticks(0.0, y_max):
        if whole and tick != int(tick):
            continue
        y = _y(tick, y_max)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - BOTTOM + 35}" text-anchor="middle">{escape(x_label)}</text>')
    centre = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text transform="translate(12 {centre}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers from `low` to `high`."""
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = float(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999))
    first = int(np.ceil(low / step - 1e-9))
    return [index * step for index in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def _legend(index: int, label: str, look: str, *, bar: bool = False) -> str:
    """A sample as it looks in the chart, a bar or a line, and its name."""
    x, y = LEFT + index * 112, HEIGHT - 10
    place = f'x1="{x}" x2="{x + 19}" y1="{y - 4}" y2="{y - 4}"'
    sample = f'<rect x="{x}" y="{y - 9}" width="12" height="9" {look}/>' if bar else f"<line {place} {look}/>"
    return f'{sample}<text x="{x + (17 if bar else 24)}" y="{y}">{escape(label)}</text>'
