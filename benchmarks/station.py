"""What the inspection station costs over the model alone, without HTTP: throughput of its batches, one client alone, "this is normal", its undoing.

python benchmarks/station.py           # 100 normal pictures, 256 x 256, and rendered parts of 512 x 512
python benchmarks/station.py --tiny
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from common import Row, finish, parser

from spadework import Spade
from spadework.datasets.synthetic import CATEGORIES, render
from spadework.server.history import History
from spadework.server.inspecting import Candidate
from spadework.server.pictures import Pictures
from spadework.server.station import Station

COLUMNS = {
    "clients": "clients",
    "model alone, pictures/s": "alone_rate",
    "station, pictures/s": "station_rate",
    "ratio": "ratio",
    "model alone, CPU ms a picture": "alone_cpu_ms",
    "station, CPU ms a picture": "station_cpu_ms",
    "model alone, ms": "alone_ms",
    "station, ms": "station_ms",
    "normal to next verdict, ms": "normal_ms",
    "undo, ms": "undo_ms",
}


def main() -> int:
    options = parser(__doc__ or "").parse_args()
    size, n_normal, n_new, rounds = (64, 6, 6, 2) if options.tiny else (512, 100, 64, 7)
    category = sorted(CATEGORIES)[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        normal = [render(category, index=index, size=size)[0] for index in range(n_normal)]
        path = Spade(image_size=64 if options.tiny else 256).fit(normal).save(root / "part.spade")
        history = History(f"sqlite:///{root / 'history.sqlite'}", Pictures(root / "files"))
        history.upgrade()
        station = Station("part", path, history, history.pictures)
        try:
            new = [render(category, index=index, split="test", size=size)[0] for index in range(n_new)]
            rows = [measure(station, new, rounds)]
        finally:
            station.close()
            history.close()
    return finish("station", rows, COLUMNS, options)


def measure(station: Station, pictures: list[np.ndarray], rounds: int) -> Row:
    """Medians of rounds, the model alone and the station in turn."""
    ready = [candidate(station, picture) for picture in pictures]
    clients = 8

    def alone() -> None:
        assert sum(1 for _ in station.snapshot().predict_each(pictures)) == len(pictures)

    def served() -> None:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda one: station.submit(one).result(), ready))

    one = [seconds(lambda: station.snapshot().predict(pictures[0])) for _ in range(3 * rounds)]
    answered = [seconds(lambda: station.submit(ready[0]).result()) for _ in range(3 * rounds)]
    pairs = [(seconds(alone), seconds(served)) for _ in range(rounds)]
    used = [(seconds(alone, time.process_time), seconds(served, time.process_time)) for _ in range(rounds)]
    taught, undone = [], []
    for candidate_ in ready[:rounds]:
        found = station.submit(candidate_).result()
        started = time.perf_counter()
        decision = station.mark_normal(found.id, "benchmark")
        station.submit(candidate_).result()
        taught.append(time.perf_counter() - started)
        undone.append(seconds(lambda decision=decision: station.undo(decision.id, "benchmark")))
    return {
        "clients": clients,
        "alone_rate": len(pictures) / statistics.median(a for a, _ in pairs),
        "station_rate": len(pictures) / statistics.median(s for _, s in pairs),
        "ratio": statistics.median(a / s for a, s in pairs),
        "alone_cpu_ms": 1000 * statistics.median(a for a, _ in used) / len(pictures),
        "station_cpu_ms": 1000 * statistics.median(s for _, s in used) / len(pictures),
        "alone_ms": 1000 * statistics.median(one),
        "station_ms": 1000 * statistics.median(answered),
        "normal_ms": 1000 * statistics.median(taught),
        "undo_ms": 1000 * statistics.median(undone),
    }


def candidate(station: Station, picture: np.ndarray) -> Candidate:
    """A picture whose bytes are kept, as after an upload."""
    _, data = cv2.imencode(".png", picture[..., ::-1])
    return Candidate(
        picture, station.pictures.keep_bytes(data.tobytes()), "new.png", "upload", "benchmark", "image/png"
    )


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long it takes; with `time.process_time`, of all cores together, which a busy machine changes little."""
    started = clock()
    work()
    return clock() - started


if __name__ == "__main__":
    sys.exit(main())
