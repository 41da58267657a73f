"""How large pictures are seen: quality and time against `image_size`, and small defects in large pictures.

    python benchmarks/resolution.py [--data DATASET...] [--sizes SIZE...] [--keep FOLDER] [--seed N] [--only WORD]

"stretched" is what was done before there was a canvas: every picture stretched to a square of 256 pixels. Rendered parts have faint defects, as in
benchmarks/backbone.py. "large" parts are rendered at 2,000 x 1,500 pixels (width x height); their defects are discs of 12 pixels across, 60 grey levels
off. Nothing is learnt from defects, no threshold is set; data sets are real pictures, looked at to report.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from backbone import SEVERITIES, write_parts
from common import Row, finish, parser, peak_mb

from spadework import Spade, evaluate, open_dataset
from spadework.datasets import Category
from spadework.datasets.synthetic import render

MEASURES = ("image_auroc", "pixel_auroc", "pro")
COLUMNS = {
    "pictures": "set",
    "image_size": "image_size",
    "canvas": "canvas",
    "image ROCAUC": "image_auroc",
    "pixel ROCAUC": "pixel_auroc",
    "PRO": "pro",
    "mean of the three": "mean",
    "fit s": "fit_seconds",
    "s a picture": "seconds",
    "model MB a normal picture": "model_mb",
    "peak MiB so far": "peak_mb",
}
HEIGHT, WIDTH, ACROSS = 1500, 2000, 12
LARGE = ("gear", "board", "weave")


class Stretched(Spade):
    """SPADE as it was before there was a canvas."""

    keeps_aspect = False


def write_large(folder: Path, category: str, seed: int, *, n_train: int, n_good: int, n_bad: int, width: int) -> None:
    """Render pictures of a category, cut to 4 x 3, half of the test pictures with one small disc on them, in MVTec AD layout."""
    height, scale = width * HEIGHT // WIDTH, width / WIDTH
    for split, kind, count in (("train", "good", n_train), ("test", "good", n_good), ("test", "disc", n_bad)):
        for index in range(count):
            number = index + (1000 if kind == "disc" else 0)
            picture, _ = render(category, index=number, split=split, seed=seed, size=width)
            top = (width - height) // 2
            picture, mask = picture[top : top + height].copy(), np.zeros((height, width), np.uint8)
            if kind == "disc":
                rng = np.random.default_rng([seed, number])
                y, x = int(rng.integers(height // 6, height * 5 // 6)), int(rng.integers(width // 6, width * 5 // 6))
                cv2.circle(mask, (x, y), max(2, round(ACROSS * scale / 2)), 255, -1)
                level = 60 if picture[y, x].mean() < 128 else -60
                picture[mask > 0] = np.clip(picture[mask > 0].astype(int) + level, 0, 255)
                _save(folder / category / "ground_truth" / kind / f"{index:03d}_mask.png", mask)
            _save(folder / category / split / kind / f"{index:03d}.png", picture[..., ::-1])
    (folder / category / "done").touch()


def _save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def fitted(path: Path, category: Category, how: str, settings: dict[str, Any]) -> tuple[Spade, float]:
    """A model and the seconds that fitting it took; one that is there already is taken up."""
    made = Stretched if how == "stretched" else Spade
    note = path.with_suffix(".json")
    if not note.exists():
        started = time.perf_counter()
        made(**settings, calibration_images=0).fit([sample.path for sample in category.train], path=path)
        note.write_text(json.dumps(time.perf_counter() - started))
    return made.load(path), json.loads(note.read_text())


def measured(name: str, category: Category, how: str, settings: dict[str, Any], folder: Path) -> Row:
    """One row: fitted and measured on a category."""
    place = folder / f"{''.join(letter for letter in name if letter.isalnum())}-{how}.spade"
    place.parent.mkdir(parents=True, exist_ok=True)
    model, took = fitted(place, category, how, settings)
    print(f"{name}, {how}: fitted in {took:.1f} s", file=sys.stderr, flush=True)
    row = evaluate(model, category).row
    canvas = model._view().size
    found = [row[key] for key in MEASURES]
    return {
        "set": name,
        "image_size": how,
        "canvas": f"{canvas[1]} x {canvas[0]}",
        **{key: round(value, 4) for key, value in zip(MEASURES, found, strict=True)},
        "mean": round(float(np.mean(found)), 4),
        "fit_seconds": round(took, 1),
        "seconds": row["predict_seconds_per_image"],
        "model_mb": round(row["model_mb"] / row["n_train"], 2),
        "peak_mb": round(peak_mb()),
    }


def sets(options: argparse.Namespace, temporary: Path) -> list[tuple[str, Category]]:
    """Names and categories, rendered where they are not there yet."""
    folder, tiny = options.keep or temporary, options.tiny
    found = [(Path(root).name, category) for root in options.data for category in open_dataset(root).categories]
    for size in (64,) if tiny else (256, 640):
        parts, few = folder / f"parts-{size}-{options.seed}", size > 256
        counts = (3, 2) if tiny else (24, 8) if few else (50, 30)
        severities = SEVERITIES[-1:] if tiny else SEVERITIES[::4] if few else SEVERITIES
        if _wanted(options, f"rendered, {size}"):
            write_parts(parts, options.seed, n_train=counts[0], n_good=counts[1], severities=severities, size=size)
            found += [(f"rendered, {size}: {category.name}", category) for category in open_dataset(parts).categories]
    large, width = folder / f"large-{options.seed}", 160 if tiny else WIDTH
    counts = {"n_train": 3, "n_good": 1, "n_bad": 1} if tiny else {"n_train": 16, "n_good": 6, "n_bad": 10}
    for category in LARGE[: 1 if tiny else None]:
        if _wanted(options, f"large: {category}"):
            if not (large / category / "done").exists():
                write_large(large, category, options.seed, width=width, **counts)
            found += [(f"large: {each.name}", each) for each in open_dataset(large).categories if each.name == category]
    return found


def _wanted(options: argparse.Namespace, name: str) -> bool:
    return not options.only or options.only in name or name in options.only


def run(options: argparse.Namespace, temporary: Path) -> list[Row]:
    rows: list[Row] = []
    for name, category in sets(options, temporary):
        if not _wanted(options, name):
            continue
        for how in options.sizes or (
            ("stretched", "64") if options.tiny else ("stretched", "256", "384", "512", "auto")
        ):
            side = ("64" if options.tiny else "256") if how == "stretched" else how
            settings = {"image_size": int(side) if side.isdecimal() else side}
            models = (options.keep or temporary) / f"models-{options.seed}"
            rows.append(measured(name, category, how, settings, models))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--data", nargs="*", default=[], help="folders of data sets")
    arguments.add_argument("--sizes", nargs="+", help='values of image_size, or "stretched"')
    arguments.add_argument("--seed", type=int, default=100, help="of the rendered parts")
    arguments.add_argument(
        "--keep", type=Path, help="folder for rendered parts and models; used again if they are there"
    )
    arguments.add_argument("--only", metavar="WORD", help="only pictures whose name holds this")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return finish("resolution", run(options, Path(temporary)), COLUMNS, options)


if __name__ == "__main__":
    sys.exit(main())
