"""Time, memory and answer of all pixel measures together, on maps made on the fly, each case in a process of its own.

    python benchmarks/metrics.py           # 200 maps of 1024 x 1024: few defects, half of all pixels, ties
    python benchmarks/metrics.py --tiny    # seconds, for tests

Normal pixels score evenly in 0..1, defective ones in 0.5..1.5, so the answers are known: ROCAUC 7/8, PRO to 0.3 0.65.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from common import finish, parser, peak_mb, run_apart

from spadework.metrics import PixelAccumulator

EXPECTED = {"auroc": 0.875, "pro": 0.65}
CASES = {  # share of defective pixels in a defective map, every which map has defects, distinct scores per unit
    "few": (0.04, 2, 0),
    "half": (0.5, 1, 0),
    "ties": (0.04, 2, 256),
}


def maps(images: int, side: int, case: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Score maps (side, side) float32 and bool masks of four bars each."""
    share, every, levels = CASES[case]
    rng = np.random.default_rng(0)
    for index in range(images):
        mask = np.zeros((side, side), bool)
        if index % every == 0:
            quarter = side // 4
            for bar in range(4):
                mask[:, bar * quarter : bar * quarter + round(quarter * share)] = True
        score_map = rng.random((side, side), dtype=np.float32)
        score_map += np.float32(0.5) * mask
        if levels:
            np.floor(score_map * np.float32(levels), out=score_map)
        yield score_map, mask


def measure(case: str, images: int, side: int) -> dict[str, Any]:
    """One row: seconds without making the maps, peak resident memory of this process, deviation from the answers."""
    pixels = PixelAccumulator()
    start_mb, adding, defective = peak_mb(), 0.0, 0
    for score_map, mask in maps(images, side, case):
        defective += int(mask.sum())
        started = time.perf_counter()
        pixels.add(score_map, mask)
        adding += time.perf_counter() - started
    started = time.perf_counter()
    found = pixels.result()
    finishing = time.perf_counter() - started
    assert found.auroc is not None
    assert found.pro is not None
    off = {"auroc": abs(found.auroc - EXPECTED["auroc"]), "pro": abs(found.pro - EXPECTED["pro"])}
    tolerance = 3.0 / defective**0.5 + (1.0 / CASES[case][2] if CASES[case][2] else 0.0)  # chance, and steps of ties
    return {
        "case": case,
        "size": f"{images} x {side} x {side}",
        "defective_pixels": defective,
        "add_seconds": round(adding, 3),
        "result_seconds": round(finishing, 3),
        "seconds": round(adding + finishing, 3),
        "start_mb": round(start_mb),
        "peak_mb": round(peak_mb()),
        "auroc": found.auroc,
        "ap": found.ap,
        "f1": found.f1,
        "pro": found.pro,
        "same_answer": max(off.values()) < tolerance,
    }


COLUMNS = {
    "case": "case",
    "maps": "size",
    "defective pixels": "defective_pixels",
    "adding s": "add_seconds",
    "result s": "result_seconds",
    "peak MiB": "peak_mb",
    "ROCAUC": "auroc",
    "PRO": "pro",
    "as expected": "same_answer",
}


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--images", type=int, default=200)
    arguments.add_argument("--side", type=int, default=1024)
    arguments.add_argument("--case", choices=list(CASES), help="one case, in this process; prints JSON")
    options = arguments.parse_args()
    images, side = (6, 128) if options.tiny else (options.images, options.side)
    if options.case:
        print(json.dumps(measure(options.case, images, side)))
        return 0
    rows = [run_apart(__file__, "--case", case, "--images", str(images), "--side", str(side)) for case in CASES]
    return finish("metrics", rows, COLUMNS, options)


if __name__ == "__main__":
    sys.exit(main())
