"""Time, memory and answer of all pixel measures together, on maps made on the fly, each case in a process of its own.

    python benchmarks/metrics.py                      # 200 maps of 1024 x 1024: few defects, half of all pixels, ties
    python benchmarks/metrics.py --json FILE          # the same as JSON; - for standard output
    python benchmarks/metrics.py --tiny               # seconds, for tests

Normal pixels score evenly in 0..1, defective ones in 0.5..1.5, so the answers are known: ROCAUC 7/8, PRO to 0.3 0.65.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

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
        "maps": images,
        "side": side,
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


def peak_mb() -> float:
    """Peak resident memory of this process in MB (2**20 bytes)."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def run_apart(case: str, images: int, side: int) -> dict[str, Any]:
    """Measure in a fresh process, so that the peak is this case's own."""
    command = [sys.executable, __file__, "--case", case, "--images", str(images), "--side", str(side), "--json", "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout)["results"][0]
    return row


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| case | maps | defective pixels | add s | result s | peak MB | ROCAUC | PRO | answer |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = f"{row['maps']} x {row['side']} x {row['side']}"
        numbers = f"{row['add_seconds']:.1f} | {row['result_seconds']:.1f} | {row['peak_mb']}"
        verdict = "as expected" if row["same_answer"] else "WRONG"
        answer = f"{row['auroc']:.4f} | {row['pro']:.4f} | {verdict}"
        lines.append(f"| {row['case']} | {size} | {row['defective_pixels']:,} | {numbers} | {answer} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Time, memory and answer of the pixel measures.")
    parser.add_argument("--tiny", action="store_true", help="6 maps of 128 x 128")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--case", choices=list(CASES), help="one case, in this process")
    parser.add_argument("--json", metavar="FILE", help="write JSON; - for standard output")
    options = parser.parse_args()
    images, side = (6, 128) if options.tiny else (options.images, options.side)
    cases = [options.case] if options.case else list(CASES)
    rows = [measure(case, images, side) if options.case else run_apart(case, images, side) for case in cases]
    document = {"machine": platform.machine(), "numpy": np.__version__, "results": rows}
    if options.json == "-":
        print(json.dumps(document))
    else:
        if options.json:
            Path(options.json).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(table(rows))
    return 0 if all(row["same_answer"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
