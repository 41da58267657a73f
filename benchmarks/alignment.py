"""Whether normal pictures are aligned, as `spadework info MODEL --alignment` tells it: of parts laid in a known way, and of data sets.

    python benchmarks/alignment.py DATASET...
    python benchmarks/alignment.py --tiny

Rendered parts as they are, shifted by up to so many pixels, turned by multiples of 90 degrees or by any angle; then the first category of each data set.
Shares and scores are those at 1/32, 1/16, 1/8 and 1/4 of the side.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import cv2
import numpy as np
from common import Row, finish, parser

from spadework import Spade
from spadework.datasets import open_dataset
from spadework.datasets.synthetic import render
from spadework.images import load

COLUMNS = {
    "pictures": "set",
    "normal": "normal",
    "verdict": "verdict",
    "to within, pixels": "radius",
    "best matches within 1/32, 1/16, 1/8, 1/4 of the side": "shares",
    "by chance": "by_chance",
    "times as high normal parts score": "rises",
    "seconds": "seconds",
}
AT = (1 / 32, 1 / 16, 1 / 8, 1 / 4)
Pictures = list[np.ndarray]


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("dataset", nargs="*")
    options = arguments.parse_args()
    rows = []
    for name, pictures in sets(options.dataset, options.tiny):
        rows.append(measure(name, pictures, 64 if options.tiny else 256))
        print(rows[-1], file=sys.stderr)
    return finish("alignment", rows, COLUMNS, options)


def sets(roots: list[str], tiny: bool) -> Iterator[tuple[str, Pictures]]:
    count, size = (4, 64) if tiny else (24, 256)
    rng = np.random.default_rng(0)
    board = [render("board", index=index, size=size)[0] for index in range(count)]
    yield "rendered board, in place", board
    if not tiny:
        yield "board, shifted by up to 8 pixels", [laid(each, rng, shift=8) for each in board]
        yield "board, shifted by up to 20 pixels", [laid(each, rng, shift=20) for each in board]
        yield "board, turned by any multiple of 90°", [np.rot90(each, rng.integers(4)).copy() for each in board]
    yield "board, turned by any angle", [laid(each, rng, turn=180) for each in board]
    if not tiny:
        for name, words in (("gear", "rendered gear, at any angle"), ("weave", "rendered weave")):
            yield words, [render(name, index=index, size=size)[0] for index in range(count)]
        yield "a block on plain ground", [block(rng) for _ in range(count)]
    for root in roots:
        samples = open_dataset(root).categories[0].train[:60]
        yield root.rstrip("/").rpartition("/")[2], [load(sample.path) for sample in samples]


def laid(picture: np.ndarray, rng: np.random.Generator, *, turn: float = 0.0, shift: float = 0.0) -> np.ndarray:
    side = picture.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-turn, turn), 1)
    matrix[:, 2] += rng.uniform(-shift, shift, 2)
    return np.asarray(cv2.warpAffine(picture, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE))


def block(rng: np.random.Generator) -> np.ndarray:
    flat = np.full((256, 256, 3), 120, np.float32)
    flat[96:160, 96:160] = 200
    flat[110:130, 110:150] = 60
    return np.clip(laid(flat, rng, shift=3) + rng.normal(0, 4, flat.shape), 0, 255).astype(np.uint8)


def measure(name: str, pictures: Pictures, image_size: int) -> Row:
    model = Spade(image_size=image_size, calibration_images=0).fit(pictures)
    began = time.perf_counter()
    found = model.alignment()
    seconds = time.perf_counter() - began
    assert found is not None
    near = [min(found.rows, key=lambda row: abs(row.radius - found.side * share)) for share in AT]
    return {
        "set": name,
        "normal": len(pictures),
        "verdict": found.verdict,
        "radius": None if found.best is None else found.best.radius,
        "shares": ", ".join(f"{row.share:.2f}" for row in near),
        "by_chance": ", ".join(f"{row.by_chance:.2f}" for row in near),
        "rises": ", ".join(f"{row.rise:.2f}" for row in near),
        "seconds": seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
