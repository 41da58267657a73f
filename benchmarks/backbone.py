"""Networks beside each other: does the everyday detector see defects with them, and what do they retrieve?

    python benchmarks/backbone.py [--seeds N...] [--data DATASET...] [--detector NAME...] [--keep FOLDER] NETWORK...

NETWORK is what `Spade(backbone=...)` takes, or LABEL=NETWORK. Rendered parts show faint defects only: with plain ones all networks score 1. Seeds 0 to 99 are
for choosing between networks, seeds from 100 on for reporting; they render different parts. A row is the mean over categories and renderings, with the standard
error of the mean of image ROCAUC, pixel ROCAUC and PRO over renderings. DATASETs are real pictures, to be looked at once and not to choose by: a row each.
Nothing is learnt from defects here, no threshold set.

Retrieval: gears lie at any angle. For each of many gears the nearest others by the global vector, and how far those are turned from it: modulo a tooth
(18 degrees, by chance 4.5), modulo a hole (60, by chance 15), and in full (360, by chance 90).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from common import Row, finish, parser

from spadework.backbones import open_backbone
from spadework.benchmark import run_benchmark
from spadework.datasets import open_dataset
from spadework.datasets.synthetic import CATEGORIES, gear_pose, render

SEVERITIES = tuple(round(0.05 + 0.075 * step, 3) for step in range(8))  # 0.05 to 0.575
MEASURES = ("image_auroc", "pixel_auroc", "pro", "pixel_ap")
COLUMNS = {
    "network": "network",
    "detector": "detector",
    "data": "data",
    "image ROCAUC": "image_auroc",
    "pixel ROCAUC": "pixel_auroc",
    "PRO": "pro",
    "pixel AP": "pixel_ap",
    "standard error": "error",
    "turned, tooth": "tooth",
    "turned, hole": "hole",
    "turned, full": "full",
    "turned, tooth, nearest 5": "tooth5",
    "MB": "megabytes",
}


def write_parts(
    folder: Path, seed: int, *, n_train: int, n_good: int, severities: tuple[float, ...], size: int
) -> None:
    """Render all categories in MVTec AD layout, unless the folder holds them already."""
    for category, kinds in CATEGORIES.items():
        if (folder / category / "done").exists():
            continue
        for split, count in (("train", n_train), ("test", n_good)):
            for index in range(count):
                picture, _ = render(category, index=index, split=split, seed=seed, size=size)
                _save(folder / category / split / "good" / f"{index:03d}.png", picture[..., ::-1])
        for number, kind in enumerate(kinds, 1):
            for index, severity in enumerate(severities):
                picture, mask = render(
                    category, index=1000 * number + index, split="test", defect=kind, severity=severity, seed=seed, size=size
                )  # fmt: skip
                _save(folder / category / "test" / kind / f"{index:03d}.png", picture[..., ::-1])
                _save(folder / category / "ground_truth" / kind / f"{index:03d}_mask.png", mask.astype(np.uint8) * 255)
        (folder / category / "done").touch()


def _save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def retrieval(vectors: np.ndarray, angles: np.ndarray) -> Row:
    """How far, in degrees, the nearest images by the global vector are turned from each gear. vectors (n, D); angles (n,) in degrees."""
    squares = (vectors.astype(np.float64) ** 2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :5]  # (n, 5)
    row: Row = {}
    for name, period in (("tooth", 18.0), ("hole", 60.0), ("full", 360.0)):
        error = np.abs((angles[nearest] - angles[:, None] + period / 2) % period - period / 2)
        row[name], row[f"{name}5"] = round(float(error[:, 0].mean()), 2), round(float(error.mean()), 2)
    return row


def gears(seed: int, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, size, size, 3) and how far each gear is turned, in degrees."""
    pictures = np.stack([render("gear", index=index, seed=seed, size=size)[0] for index in range(count)])
    return pictures, np.array([gear_pose(index=index, seed=seed, size=size)[2] for index in range(count)])


def rendered_row(name: str, detector: str, folders: list[Path], settings: Row) -> Row:
    """Means over categories and renderings."""
    each = []  # (renderings, 4)
    for folder in folders:
        found = run_benchmark(open_dataset(folder), detectors=[detector], settings=given(name, settings)).rows
        each.append(np.mean([[row[key] for key in MEASURES] for row in found], axis=0))
    means = np.array(each)
    error = float(means[:, :3].mean(axis=1).std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else None
    numbers = {key: round(float(mean), 4) for key, mean in zip(MEASURES, means.mean(axis=0), strict=True)}
    return {**numbers, "error": None if error is None else round(error, 4)}


def real_row(name: str, detector: str, root: Path, settings: Row) -> Row:
    """Means over the categories of a data set."""
    found = run_benchmark(open_dataset(root), detectors=[detector], settings=given(name, settings)).rows
    return {key: round(float(np.mean([row[key] for row in found])), 4) for key in MEASURES}


def given(name: str, settings: Row) -> Row:
    return {"backbone": name, "calibration_images": 0, **settings}


def about(name: str, pictures: np.ndarray, angles: np.ndarray) -> Row:
    """What does not depend on the detector: what is retrieved, time and size."""
    backbone = open_backbone(name)
    megabytes = round(backbone.path.stat().st_size / 1e6, 2)
    return {
        **retrieval(backbone(pictures)[1], angles),
        "megabytes": megabytes,
    }


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("network", nargs="*", default=["embedded"])
    arguments.add_argument("--seeds", type=int, nargs="*", default=[0], help="of the rendered parts")
    arguments.add_argument("--data", type=Path, nargs="*", default=[], help="folders of real data sets")
    arguments.add_argument(
        "--detector", nargs="+", default=["spade"], help="of the first network; others take the first"
    )
    arguments.add_argument("--keep", type=Path, help="folder for the rendered parts; used again if they are there")
    arguments.add_argument(
        "--levels", type=lambda text: [int(level) for level in text.split(",")], help="as in Spade(levels=...)"
    )
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return finish("backbone", run(options, Path(temporary)), COLUMNS, options)


def run(options: argparse.Namespace, temporary: Path) -> list[Row]:
    size, n_train, n_good, n_gears = (64, 3, 2, 6) if options.tiny else (256, 50, 30, 200)
    severities = SEVERITIES[-1:] if options.tiny else SEVERITIES
    folders = []
    for seed in options.seeds:
        folders.append((options.keep or temporary) / f"parts-{seed}")
        write_parts(folders[-1], seed, n_train=n_train, n_good=n_good, severities=severities, size=size)
    pictures, angles = gears(max(options.seeds, default=0), n_gears, size)
    settings: Row = {"image_size": size} if options.tiny else {}
    if options.levels:
        settings["levels"] = options.levels
    rows: list[Row] = []
    for place, given_name in enumerate(options.network):
        label, _, name = given_name.rpartition("=")
        known = about(name, pictures, angles)
        for detector in options.detector[: 1 if place else None]:
            head = {"network": label or name, "detector": detector}
            if folders:
                seeds = ", ".join(map(str, options.seeds))
                found = rendered_row(name, detector, folders, settings)
                rows.append({**head, "data": f"rendered, {seeds}", **found, **known})
            rows += [{**head, "data": root.name, **real_row(name, detector, root, settings)} for root in options.data]
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    sys.exit(main())
