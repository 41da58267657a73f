"""The search within a window around the same place (`search_radius`), beside the search of whole pictures.

    python benchmarks/window.py DATASET...     # the sizes of Wide-ResNet-50-2 need the extra `timm`
    python benchmarks/window.py --tiny

For each data set and network a model of 60 normal pictures is fitted, and test pictures are searched among their 50 nearest. Random weights
for the Wide-ResNet-50-2. Medians. "same answer": every distance against the plain search, query by query, to a relative 1e-9.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from common import Row, finish, parser
from search import GALLERY, NORMAL, median_of, models

from spadework import Spade
from spadework.correspondence import correspond
from spadework.datasets import open_dataset
from spadework.datasets.synthetic import write_dataset
from spadework.kernels.window import Window
from spadework.pyramid import Pyramid

COLUMNS = {
    "data": "set",
    "network": "network",
    "grid": "grid",
    "radius, share of the side": "share",
    "places in a window": "places",
    "window ms": "window_ms",
    "whole ms": "whole_ms",
    "whole / window": "ratio",
    "places with the same match, %": "same_match",
    "same answer": "same_answer",
}
SHARES = (0.0, 0.03, 0.0625, 0.125, 0.25)


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("dataset", nargs="*")
    arguments.add_argument("--pictures", type=int, default=3, help="test pictures of each data set")
    arguments.add_argument(
        "--checked", action="store_true", help="hold every answer against the plain search too: slow"
    )
    options = arguments.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        roots = options.dataset
        if not roots:
            roots = [Path(folder) / "rendered"]
            write_dataset(roots[0], categories=["board"], n_train=12, n_good=2, n_per_defect=0, size=64)
        for root in roots:
            category = open_dataset(root).categories[0]
            normal = [str(sample.path) for sample in category.train][:NORMAL]
            tests = [str(item.path) for item in category.test]
            tests = tests[:: max(1, len(tests) // options.pictures)][: options.pictures]
            for network, model in models(options.tiny):
                model.fit(normal, path=Path(folder) / "m.spade")
                for row in measure(model, tests, options.tiny, options.checked or options.tiny):
                    rows.append({"set": Path(root).name, "network": network} | row)
                    print(rows[-1], file=sys.stderr)
    return finish("window", rows, COLUMNS, options)


def measure(model: Spade, tests: list[str], tiny: bool, checked: bool) -> list[Row]:
    pyramids = [seen.pyramid for seen in model._see_each(tests)]
    found = [measure_picture(model, pyramid, tiny, checked) for pyramid in pyramids]
    rows = []
    for each in zip(*found, strict=True):
        row = dict(each[0])
        for key in ("window_ms", "whole_ms", "same_match"):
            row[key] = statistics.median(other[key] for other in each)
        row["ratio"] = row["whole_ms"] / row["window_ms"]
        row["same_answer"] = all(other["same_answer"] for other in each) if checked else None
        rows.append(row)
    return rows


def measure_picture(model: Spade, pyramid: Pyramid, tiny: bool, checked: bool) -> list[Row]:
    gallery, times = model.gallery_, 3 if tiny else 11
    chosen = gallery.nearest_images(pyramid.global_vector, GALLERY)[0]
    whole = correspond(pyramid.levels, gallery, chosen)
    whole_ms = 1e3 * median_of(lambda: correspond(pyramid.levels, gallery, chosen), times)
    rows = []
    for share in SHARES:
        window, grid = Window(share, share), gallery.geometry.grid
        search = partial(correspond, pyramid.levels, gallery, chosen, within=window)
        found, taken = search(), median_of(search, times)
        reach = window.reach(grid)
        rows.append(
            {
                "grid": f"{grid[0]} x {grid[1]}",
                "share": share,
                "places": int((2 * reach + 1).sum() * 2 - (2 * reach[0] + 1)),
                "window_ms": 1e3 * taken,
                "whole_ms": whole_ms,
                "same_match": 100 * float((found.nearest == whole.nearest).mean()),
                "same_answer": not checked or agrees(model, pyramid, chosen, window, found.distances),
            }
        )
    return rows


def agrees(model: Spade, pyramid: Pyramid, chosen: np.ndarray, window: Window, distances: np.ndarray) -> bool:
    plain = correspond(pyramid.levels, model.gallery_, chosen, within=window, kernel="blocked")
    return bool(np.allclose(plain.distances, distances, rtol=1e-9, atol=0))


if __name__ == "__main__":
    sys.exit(main())
