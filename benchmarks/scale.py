"""What a model costs as its normal images grow from 50 to 100,000: opening, retrieval, a whole prediction, resident memory.

python benchmarks/scale.py             # about 22 GB of disk for some minutes, below --folder; deleted afterwards
python benchmarks/scale.py --tiny

The network sees 128 x 128 pixels, so that 100,000 pyramids fit a disk. The first 50 images are rendered parts; all further ones are made of
the features of 200 such: two of them mixed, with smooth variation added, and written by the package's own `Gallery.append`. Each size is
measured in processes of its own, on rendered test parts with defects, none of them in the model; the sizes take turns, so that what else
the machine does falls on all of them; medians of the rounds. Before, once, each with none of its files in the system's cache ("cold"): what the
disk takes. In the rounds the neighbours' rows are in that cache, but new to the process.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import Row, finish, parser, peak_mb, run_apart

from spadework import Spade, load
from spadework.datasets.synthetic import render
from spadework.gallery import Gallery
from spadework.pyramid import Pyramid, upsample
from spadework.storage import ModelFolder

COUNTS = (50, 100, 1_000, 10_000, 100_000)
TINY_COUNTS = (8, 10, 30)
SOURCES = 200  # rendered parts that the others are made of
FIELDS = 64  # smooth variations to choose from
PICTURES = 24  # predicted in each process
ROUNDS = 5

COLUMNS = {
    "N": "n",
    "open s": "open_seconds",
    "first predict s": "first_seconds",
    "cold disk s": "cold_seconds",
    "predict s": "predict_seconds",
    "ratio to N=100": "ratio",
    "again s": "again_seconds",
    "ratio": "again_ratio",
    "retrieval ms": "retrieval_ms",
    "longest ms": "longest_retrieval_ms",
    "resident MiB": "resident_mb",
    "peak MiB": "peak_mb",
    "same neighbours": "same_answer",
}


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--folder", help="where the model is made; by default where temporary files go")
    arguments.add_argument("--measure", nargs=2, metavar=("MODEL", "PICTURES"), help="one size, in this process")
    options = arguments.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure[0]), int(options.measure[1]))))
        return 0
    size, counts, pictures, rounds = (64, TINY_COUNTS, 3, 1) if options.tiny else (128, COUNTS, PICTURES, ROUNDS)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        many = Spade(image_size=size, calibration_images=0).fit(parts(10 if options.tiny else SOURCES, size))
        source, paths = Source(many), [Path(folder) / f"{n}.spade" for n in counts]
        for n, path in zip(counts, paths, strict=True):
            started = time.perf_counter()
            Spade(image_size=size, calibration_images=5).fit(parts(counts[0], size), path=path)
            grow(path, n, source)
            print(f"{n} images made in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        os.sync()  # nothing is still being written while it is measured
        options_of = [("--measure", str(path), str(pictures)) for path in paths]
        cold = []
        for path, each in zip(paths, options_of, strict=True):
            forget(path)
            cold.append(run_apart(__file__, *each)["predict_seconds"])
        found = [[run_apart(__file__, *each) for each in options_of] for _ in range(rounds)]
    rows = [median_of(same) for same in zip(*found, strict=True)]
    for row, seconds in zip(rows, cold, strict=True):
        row["cold_seconds"] = seconds
        row["ratio"] = row["predict_seconds"] / rows[1]["predict_seconds"]
        row["again_ratio"] = row["again_seconds"] / rows[1]["again_seconds"]
    return finish("scale", rows, COLUMNS, options)


def forget(path: Path) -> None:
    """Have the system let go of what it holds of a model's files, where it can be told so."""
    for file in path.glob("*.bin"):
        with open(file, "rb") as opened:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def median_of(rows: Sequence[Row]) -> Row:
    """Of each measure; the same answer must have come every time."""
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return middle | {"n": rows[0]["n"], "same_answer": all(row["same_answer"] for row in rows)}


def parts(n: int, size: int) -> list[np.ndarray]:
    return [render("gear", index=index, size=size)[0] for index in range(n)]


# ---- images made of others ---------------------------------------------------------------------------------------------------


class Source:
    """The features of a few real images, and new ones made of them: image i is always the same."""

    def __init__(self, model: Spade) -> None:
        gallery = model.gallery_
        self.geometry = gallery.geometry
        self.images = [gallery.thumbnail(index) for index in range(len(gallery))]
        self.records = np.stack([self.geometry.pack(gallery.levels(index)) for index in range(len(gallery))])
        self.vectors = np.array(gallery.globals)
        rng = np.random.default_rng(0)
        self.fields = np.stack([self._field(rng) for _ in range(FIELDS)])

    def _field(self, rng: np.random.Generator) -> np.ndarray:
        """Variation that is smooth in the picture, as strong in each channel as the parts differ in it."""
        levels = []
        for level in self.geometry.unpack(self.records.std(axis=0)):  # (H_l, W_l, C_l)
            height, width, channels = level.shape
            coarse = rng.normal(size=(max(1, height // 4), max(1, width // 4), channels)).astype(np.float32)
            levels.append(upsample(coarse, height, width) * level)
        return self.geometry.pack(levels)

    def make(self, index: int) -> tuple[Pyramid, np.ndarray]:
        """Return the features of image `index`, and a picture for its thumbnail."""
        rng = np.random.default_rng(index)
        one, other = rng.integers(len(self.records), size=2)
        share, strength = (np.float32(value) for value in rng.random(2) * (0.3, 0.5))
        record = self.records[one] + share * (self.records[other] - self.records[one])
        record += strength * self.fields[rng.integers(FIELDS)]
        vector = self.vectors[one] + share * (self.vectors[other] - self.vectors[one])
        vector += 0.1 * self.vectors.std(axis=0) * rng.normal(size=len(vector)).astype(np.float32)
        return Pyramid(self.geometry.unpack(record), vector.astype(np.float32)), self.images[one]


def grow(path: Path, n: int, source: Source) -> None:
    """Append images until there are `n`."""
    folder = ModelFolder.open(path)
    gallery = Gallery(folder)
    with folder.writing():
        for index in range(len(gallery), n):
            pyramid, image = source.make(index)
            gallery.append(pyramid, name=f"made {index}.png", image=image, sha256=f"{index:064x}")
        folder.header["n_normal"] = n
        folder.commit()


# ---- one size ----------------------------------------------------------------------------------------------------------------


def measure(path: Path, pictures: int) -> Row:
    started = time.perf_counter()
    model = load(path)
    open_seconds = time.perf_counter() - started
    asked = watch_retrieval(model.gallery_)
    size = model.image_size
    shown = [render("gear", index=i, split="test", defect="crack", size=size)[0] for i in range(pictures)]
    first, *rest = timed(model, shown)
    again = timed(model, shown)  # rows that are in use are checked and in the system's cache
    retrieval = [seconds for _, seconds in asked]
    return {
        "n": model.n_normal_,
        "open_seconds": open_seconds,
        "first_seconds": first,
        "predict_seconds": statistics.median(rest),
        "again_seconds": statistics.median(again),
        "retrieval_ms": 1000 * statistics.median(retrieval),
        "longest_retrieval_ms": 1000 * max(retrieval),
        "resident_mb": memory_mb("VmRSS"),
        "peak_mb": memory_mb("VmHWM"),
        "same_answer": all(same_neighbours(model.gallery_, vector) for vector, _ in asked[-2:]),
    }


def timed(model: Spade, pictures: list[np.ndarray]) -> list[float]:
    times = []
    for picture in pictures:
        started = time.perf_counter()
        model.predict(picture)
        times.append(time.perf_counter() - started)
    return times


def watch_retrieval(gallery: Gallery) -> list[tuple[np.ndarray, float]]:
    """Let a gallery note the vectors it is asked for, and the seconds each took."""
    noted, ask = [], gallery.nearest_images

    def asking(vector, k, **options):
        started = time.perf_counter()
        found = ask(vector, k, **options)
        noted.append((vector, time.perf_counter() - started))
        return found

    gallery.nearest_images = asking
    return noted


def same_neighbours(gallery: Gallery, vector: np.ndarray) -> bool:
    """Against all distances in float64 and a stable sort."""
    rows, step = gallery.globals, 10_000
    blocks = [rows[start : start + step].astype(np.float64) - vector for start in range(0, len(rows), step)]
    distances = np.concatenate([np.einsum("ij,ij->i", block, block) for block in blocks])
    order = np.argsort(distances, kind="stable")[:50]
    found = gallery.nearest_images(vector, 50)
    return bool(np.array_equal(found[0], order) and np.array_equal(found[1], distances[order]))


def memory_mb(what: str) -> float:
    """Resident memory of this process in MiB, now ("VmRSS") or at its highest ("VmHWM"; that of the process's `getrusage` is at least its
    parent's); where the system does not tell, its peak."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_mb()
    line = next(line for line in status.read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 2**10


if __name__ == "__main__":
    sys.exit(main())
