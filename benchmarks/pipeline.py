"""Where the time of many pictures goes: each stage alone, and what they cost together, where they overlap.

python benchmarks/pipeline.py            # the embedded network
python benchmarks/pipeline.py --large    # also the paper's settings with a Wide-ResNet-50-2 of random weights (sizes and times are those
                                         # of the published ones); needs the extra `timm` and about 2 GB of disk
python benchmarks/pipeline.py --tiny
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
from common import Row, finish, large_network, parser

from spadework import Prediction, Spade
from spadework.batch import inspect_batch
from spadework.datasets.synthetic import render
from spadework.images import read_image
from spadework.scores import find_regions, to_picture

COLUMNS = {
    "network": "network",
    "what": "what",
    "ms a picture": "ms",
    "times the forward pass": "times_forward",
    "bar": "bar",
}
TOGETHER = {  # key -> what it is, and the bar on its time in times of the forward pass alone
    "reading": ("`fit`, decoding and network only", ""),
    "fit": ("`fit`, all but the calibration", "1.2"),
    "predict": ("`predict_each`", ""),
    "batch": ("a batch with maps, overlays and rows written", ""),
}


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--large", action="store_true", help="also with a network of the paper's sizes")
    arguments.add_argument("--pictures", type=int, default=200, help="normal pictures to fit")
    arguments.add_argument("--inspected", type=int, default=60, help="pictures to inspect")
    arguments.add_argument("--rounds", type=int, default=5, help="rounds, each with everything in turn")
    options = arguments.parse_args()
    counts = (6, 3, 1) if options.tiny else (options.pictures, options.inspected, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        rows = network_rows("embedded", {"image_size": 64} if options.tiny else {}, Path(folder), *counts)
        if options.large:
            paper = Spade.paper(backbone=large_network()).settings()
            rows += network_rows("Wide-ResNet-50-2", paper, Path(folder), *counts)
    return finish("pipeline", rows, COLUMNS, options)


def network_rows(
    network: str, settings: Row, folder: Path, n_normal: int, n_inspected: int, n_rounds: int
) -> list[Row]:
    """Stages by the median picture; what overlaps by the median round, against the forward passes of the same round."""
    size = settings.get("image_size", 256)
    normal = pictures(folder / "normal", n_normal, size)
    test = pictures(folder / "test", n_inspected, size, start=5000)
    model = Spade(**{**settings, "calibration_images": min(10, n_normal)}).fit(normal)
    found = stages(model, test)
    rounds = [together(model, settings, normal, test, folder / f"{network}-{number}") for number in range(n_rounds)]
    alone = statistics.median(each["forward"] for each in rounds)
    rows = [row(network, "forward pass alone", alone, 1.0)]
    rows += [row(network, what, ms, ms / alone) for what, ms in found.items()]
    for key, (what, bar) in TOGETHER.items():
        ms = statistics.median(each[key] for each in rounds)
        ratio = statistics.median(each[key] / each["forward"] for each in rounds)
        rows.append(row(network, what, ms, ratio, bar))
    return [*rows[:-1], rows[-1] | {"same_answer": same_answer(model, test)}]


def same_answer(model: Spade, test: list[Path]) -> bool:
    """Whether many at a time and one at a time say the same, to the byte; of the first few pictures."""
    many, alone = model.predict(test[:4]), [model.predict(path) for path in test[:4]]
    return [p.score_map.tobytes() for p in many] == [p.score_map.tobytes() for p in alone]


def row(network: str, what: str, ms: float, times: float, bar: str = "") -> Row:
    return {"network": network, "what": what, "ms": round(ms, 3), "times_forward": round(times, 3), "bar": bar}


def pictures(folder: Path, n: int, size: int, *, start: int = 0) -> list[Path]:
    """Rendered gears; of those from 5000 on, every other one has a crack."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index:04d}.png" for index in range(start, start + n)]
    for index, path in enumerate(paths, start):
        if not path.exists():
            kind: Row = {"split": "test", "defect": "crack" if index % 2 else None} if start else {}
            cv2.imwrite(str(path), render("gear", index=index, size=size, **kind)[0][..., ::-1])
    return paths


def stages(model: Spade, test: list[Path]) -> dict[str, float]:
    """Milliseconds of each stage, one after another on an idle machine."""
    images = [read_image(path) for path in test]
    view = model._view()
    seen = list(model._see_each(list(test)))
    judged = [model._judge(each) for each in seen]
    maps = [model._scores(each)[1] for each in judged]
    limit = model.map_threshold_.value

    def locate(at: int) -> Any:
        small = model._scores(judged[at])[1]
        return find_regions(to_picture(small, view, images[at].shape), limit)

    places = range(len(test))
    vectors = [each.pyramid.global_vector for each in seen]
    assert all(each is not None for each in maps)
    return {
        "decoding alone": median_ms(read_image, test),
        "bringing to the network's size alone": median_ms(view.see, images),
        "forward pass and pyramid alone": median_ms(model._pyramid, [each.view for each in seen]),
        "finding the nearest images alone": median_ms(
            lambda v: model.gallery_.nearest_images(v, model.gallery_k), vectors
        ),
        "nearest images and search alone": median_ms(model._judge, seen),
        "map and regions alone": median_ms(locate, places),
        "writing alone": writing_ms(model, test),
    }


def median_ms(work: Callable[[Any], Any], items: Iterable[Any]) -> float:
    times = []
    for item in items:
        started = time.perf_counter()
        work(item)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


class Replayed:
    """A detector that has its answers ready: what a batch takes then is writing."""

    def __init__(self, model: Spade, answers: list[Prediction]) -> None:
        self.model, self.answers = model, answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict_each(self, paths: Iterable[Path], **_: Any) -> Iterable[Prediction]:
        return iter(self.answers)


def writing_ms(model: Spade, test: list[Path]) -> float:
    """Median of three: the first batch of a process also loads the fonts."""
    answers = list(model.predict_each(test, keep_images=True))
    times = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as out:
            times.append(each_ms(lambda out=out: inspect_batch(Replayed(model, answers), test, out), len(test)))
    return statistics.median(times)


def together(model: Spade, settings: Row, normal: list[Path], test: list[Path], out: Path) -> dict[str, float]:
    """Milliseconds a picture, of one round."""
    views = [model._view().see(read_image(path)) for path in normal]
    return {
        "forward": each_ms(lambda: [model.backbone_(view[None]) for view in views], len(views)),
        "reading": each_ms(lambda: [None for _ in model._see_each(list(normal))], len(normal)),
        "fit": each_ms(lambda: Spade(**{**settings, "calibration_images": 0}).fit(normal), len(normal)),
        "predict": each_ms(lambda: [None for _ in model.predict_each(test)], len(test)),
        "batch": each_ms(lambda: inspect_batch(model, test, out), len(test)),
    }


def each_ms(work: Callable[[], Any], n: int) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) / n * 1e3


if __name__ == "__main__":
    sys.exit(main())
