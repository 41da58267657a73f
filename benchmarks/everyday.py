"""What people wait for, and what it takes: help, a verdict from a cold start, appending, memory with a large network.

python benchmarks/everyday.py            # needs the extra `timm` for the Wide-ResNet-50-2 (random weights: sizes and times are those
                                         # of the published ones) and about 3 GB of disk
python benchmarks/everyday.py --tiny
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from common import Row, finish, large_network, parser, peak_mb

from spadework import Spade, load
from spadework.datasets.synthetic import render

COLUMNS = {"what": "what", "measured": "measured", "unit": "unit", "bar": "bar"}


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--memory", nargs=2, metavar=("MODEL", "PICTURE"), help="predict once in this process; prints its peak"
    )
    options = arguments.parse_args()
    if options.memory:
        model, picture = options.memory
        started = time.perf_counter()
        score = load(model).predict(picture).score
        print(json.dumps({"mb": peak_mb(), "seconds": time.perf_counter() - started, "score": score}))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rows = [*start_rows(Path(folder), options.tiny), *append_rows(Path(folder), options.tiny)]
        rows += [] if options.tiny else memory_rows(Path(folder))
    return finish("everyday", rows, COLUMNS, options)


def pictures(folder: Path, n: int, size: int, *, start: int = 0) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index:04d}.png" for index in range(start, start + n)]
    for index, path in enumerate(paths, start):
        cv2.imwrite(str(path), render("gear", index=index, size=size)[0][..., ::-1])
    return paths


def start_rows(folder: Path, tiny: bool) -> list[Row]:
    """Medians of five processes each."""
    size = 64 if tiny else 256
    paths = pictures(folder / "start", 8 if tiny else 60, size)
    Spade(image_size=size).fit(paths, path=folder / "start.spade")
    spadework = [sys.executable, "-m", "spadework"]
    verdict = timed([*spadework, "predict", str(folder / "start.spade"), str(paths[0])])
    helped = timed([*spadework, "--help"])
    return [
        {
            "what": f"`predict`, one picture, cold start, {len(paths)} normal",
            "measured": verdict,
            "unit": "s",
            "bar": "3",
        },
        {"what": "`spadework --help`", "measured": helped, "unit": "s", "bar": "0.6"},
    ]


def timed(command: list[str]) -> float:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def append_rows(folder: Path, tiny: bool) -> list[Row]:
    """Appending 10 to 200, against the same pictures' forward passes, with and without reading them; medians of nine rounds, in turn."""
    n, size = (12, 64) if tiny else (200, 256)
    old, new = pictures(folder / "grow", n, size), pictures(folder / "grow", 10, size, start=n)
    appended, forward, read = [], [], []
    for _ in range(9):
        model = Spade(image_size=size, calibration_images=0).fit(old)
        views = [seen.view for seen in model._see_each(list(new))]
        started = time.perf_counter()
        list(model._see_each(list(new)))
        read.append(time.perf_counter() - started)
        started = time.perf_counter()
        for view in views:
            model._pyramid(view)
        forward.append(time.perf_counter() - started)
        started = time.perf_counter()
        model.append(new)
        appended.append(time.perf_counter() - started)
    fresh = Spade(image_size=size, calibration_images=0).fit([*old, *new])
    picture = render("gear", index=9999, split="test", defect="crack", size=size)[0]
    same = np.array_equal(model.predict(picture).score_map, fresh.predict(picture).score_map)
    what = f"`append` of 10 to {n}, in times of "
    rows = [
        {"what": what + name, "measured": statistics.median(a / b for a, b in zip(appended, base, strict=True))}
        for name, base in (("reading and forward passes", read), ("forward passes alone", forward))
    ]
    return [
        *(row | {"unit": "", "bar": "1.3"} for row in rows),
        {
            "what": "scores after it equal those of a fresh fit",
            "measured": str(same),
            "unit": "",
            "bar": "True",
            "same_answer": same,
        },
    ]


def memory_rows(folder: Path) -> list[Row]:
    """The paper's settings with a network of the paper's sizes; the prediction in a process of its own."""
    paths = pictures(folder / "large", 400, 256)
    Spade.paper(backbone=large_network(), calibration_images=0).fit(paths, path=folder / "large.spade")
    command = [sys.executable, __file__, "--memory", str(folder / "large.spade"), str(paths[0])]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    what = "`Spade.paper()`, Wide-ResNet-50-2, 400 normal pictures: "
    return [
        {"what": what + "peak memory of a prediction", "measured": found["mb"], "unit": "MiB", "bar": "1500"},
        {"what": what + "one prediction with loading", "measured": found["seconds"], "unit": "s", "bar": ""},
    ]


if __name__ == "__main__":
    sys.exit(main())
