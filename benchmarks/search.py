"""The search for corresponding descriptors: the compiled kernel, BLAS, FAISS, and the network's forward pass, in one run.

    python benchmarks/search.py DATASET...     # needs FAISS (in the extra `dev`), and the extra `timm` for the sizes of Wide-ResNet-50-2
    python benchmarks/search.py --tiny

For each data set and network a model of 60 normal pictures is fitted, and test pictures are searched among their 50 nearest. Random weights
for the Wide-ResNet-50-2: sizes and times are those of the published one. Medians. The data sets are not part of the project;
docs/datasets.md says where they come from. Two tables: search.json, and search_stages.json with what survives each stage and the time it takes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Row, finish, large_network, parser

from spadework import Spade
from spadework.correspondence import correspond
from spadework.datasets import open_dataset
from spadework.datasets.synthetic import write_dataset
from spadework.gallery import Gallery
from spadework.kernels import blocked, pruned
from spadework.pyramid import Pyramid, descriptors

COLUMNS = {
    "data": "set",
    "network": "network",
    "queries": "queries",
    "rows": "rows",
    "channels": "channels",
    "forward pass ms": "forward_ms",
    "ours ms": "ours_ms",
    "ours, first time ms": "first_ms",
    "blocked s": "blocked_s",
    "blocked, rows at hand s": "blocked_rows_s",
    "FAISS flat s": "faiss_s",
    "of that its build s": "faiss_build_s",
    "blocked / ours": "blocked_ratio",
    "blocked, rows at hand / ours": "blocked_rows_ratio",
    "FAISS / ours": "faiss_ratio",
    "ours / forward pass": "forward_ratio",
}
STAGES = {
    "data": "set",
    "network": "network",
    "pairs": "pairs",
    "groups left after 16 codes, %": "near",
    "pairs left after 32, %": "mid",
    "after 128, %": "far",
    "exact distances a query": "exact",
    "index MiB an image": "index_mb",
    "pyramid MiB an image": "pyramid_mb",
    "coding ms": "coding_ms",
    "starts ms": "start_ms",
    "scan ms": "scan_ms",
    "of that near alone ms": "near_ms",
}
NORMAL, GALLERY = 60, 50


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("dataset", nargs="*")
    arguments.add_argument("--pictures", type=int, default=3, help="test pictures of each data set")
    options = arguments.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        roots = options.dataset
        if not roots:
            roots = [Path(folder) / "rendered"]
            write_dataset(roots[0], categories=["gear"], n_train=12, n_good=2, n_per_defect=0, size=64)
        for root in roots:
            category = open_dataset(root).categories[0]
            normal = [str(sample.path) for sample in category.train][:NORMAL]
            tests = [str(item.path) for item in category.test]
            tests = tests[:: max(1, len(tests) // options.pictures)][: options.pictures]
            for network, model in models(options.tiny):
                model.fit(normal, path=Path(folder) / "m.spade")
                rows.append(measure(model, tests, options.tiny) | {"set": Path(root).name, "network": network})
                print(rows[-1], file=sys.stderr)
    return max(finish("search", rows, COLUMNS, options), finish_stages(rows, options))


def finish_stages(rows: list[Row], options: Any) -> int:
    return 0 if options.json else finish("search_stages", rows, STAGES, options, script="search")


def models(tiny: bool) -> list[tuple[str, Spade]]:
    if tiny:
        return [("embedded", Spade(image_size=64, calibration_images=0))]
    large = Spade.paper(backbone=large_network(), calibration_images=0)
    return [("embedded", Spade(calibration_images=0)), ("Wide-ResNet-50-2", large)]


def median_of(work: Callable[[], Any], times: int) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def measure(model: Spade, tests: list[str], tiny: bool) -> Row:
    """Medians over the pictures of what each takes."""
    gallery = model.gallery_
    found = [measure_picture(model, seen.pyramid, seen.view, tiny) for seen in model._see_each(tests)]
    height, width = gallery.geometry.grid
    row: Row = {key: statistics.median(each[key] for each in found) for key in found[0]}
    images = min(GALLERY, len(gallery))
    row |= {"queries": height * width, "rows": images * height * width, "channels": gallery.geometry.channels}
    row |= {
        "blocked_ratio": 1e3 * row["blocked_s"] / row["ours_ms"],
        "blocked_rows_ratio": 1e3 * row["blocked_rows_s"] / row["ours_ms"],
        "faiss_ratio": 1e3 * row["faiss_s"] / row["ours_ms"] if row["faiss_s"] else None,
        "forward_ratio": row["ours_ms"] / row["forward_ms"],
        "pyramid_mb": gallery.geometry.length * 4 / 2**20,
        "index_mb": gallery.index("bilinear").layout.offsets[-1] / 2**20,
    }
    return row


def measure_picture(model: Spade, pyramid: Pyramid, view: np.ndarray, tiny: bool) -> Row:
    chosen, _ = model.gallery_.nearest_images(pyramid.global_vector, GALLERY)
    images = [int(image) for image in chosen]
    fresh = Gallery(model.folder_)  # nothing held from an earlier search

    def ours() -> None:
        correspond(pyramid.levels, fresh, images, kernel="pruned")

    first = median_of(ours, 1)
    row: Row = {"first_ms": 1e3 * first, "ours_ms": 1e3 * median_of(ours, 3 if tiny else 15)}
    row["forward_ms"] = 1e3 * median_of(lambda: model.backbone_(view[None]), 3 if tiny else 15)
    row["blocked_s"] = median_of(lambda: correspond(pyramid.levels, fresh, images, kernel="blocked"), 3)
    row |= stages(fresh, images, pyramid) | rows_at_hand(fresh, images, pyramid)
    return row


def rows_at_hand(gallery: Gallery, images: list[int], pyramid: Pyramid) -> Row:
    """The kernels that want all descriptors upsampled: that is not counted against them here."""
    queries, rows = descriptors(pyramid.levels), gallery.descriptors(images, upsampling="bilinear")
    row: Row = {"blocked_rows_s": median_of(lambda: blocked.nearest(queries, rows, kappa=1), 3)}
    try:
        import faiss
    except ImportError:
        return row | {"faiss_s": None, "faiss_build_s": None}
    index = faiss.IndexFlatL2(rows.shape[1])
    build = median_of(lambda: index.add(rows), 1)
    search = median_of(lambda: index.search(queries, 1), 3)
    return row | {"faiss_s": build + search, "faiss_build_s": build}


def stages(gallery: Gallery, images: list[int], pyramid: Pyramid) -> Row:
    """Survivors of each stage, and where the time goes."""
    coded, layout, axes = gallery.coded(images, upsampling="bilinear")
    record, queries = gallery.geometry.pack(pyramid.levels), descriptors(pyramid.levels)

    def search() -> pruned.Counts:
        counts = pruned.Counts()
        found = pruned.search(record, layout, coded, layout, axes, kappa=1, counts=counts)
        assert found is not None
        return counts

    runs = [search() for _ in range(9)]
    done = runs[-1]
    times = {
        f"{name}_ms": 1e3 * statistics.median(getattr(run, f"{name}_seconds") for run in runs)
        for name in ("coding", "start", "scan")
    }
    return times | {
        "pairs": done.pairs,
        "near": 100 * 16 * done.mid / done.pairs,  # a query and a group of sixteen positions of which one passed
        "mid": 100 * done.far / done.pairs,
        "far": 100 * (done.deep or done.exact) / done.pairs,
        "exact": done.exact / len(queries),
        "near_ms": 1e3 * near_alone(record, queries, layout, coded, axes),
    }


def near_alone(record: np.ndarray, queries: np.ndarray, layout: Any, coded: list[pruned.Coded], axes: Any) -> float:
    """The scan when every query has found a twin already: nothing but the first look remains."""
    real = pruned._Search._start
    pruned._Search._start = lambda self, own, step: self.distances.fill(0)  # type: ignore[method-assign]
    try:
        runs = []
        for _ in range(5):
            counts = pruned.Counts()
            pruned.search(record, layout, coded, layout, axes, kappa=1, counts=counts)
            runs.append(counts.scan_seconds)
    finally:
        pruned._Search._start = real  # type: ignore[method-assign]
    return statistics.median(runs)


if __name__ == "__main__":
    sys.exit(main())
