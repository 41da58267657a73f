"""What rehearsal teaches about the defaults: one setting is changed at a time, on many kinds of parts, defects planted on normal pictures.

    python benchmarks/rehearsed.py [--data DATASET...] [--seeds 0] [--keep FOLDER] [--only WORD]

Rendered parts of several seeds, printed labels, and the normal pictures of data sets of real parts. No test picture and no true defect is read. A value
was to become the default if its mean gain over kinds is more than 0.01 and more than twice its standard error, and it is clearly worse on no kind.
"Clearly": by more than one standard error of the difference, as in `fit --tune`. With --keep what was measured is written as it ends and not made again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import Row, finish, parser
from tuning import label

from spadework import Spade, open_backbone, open_dataset
from spadework.datasets.synthetic import render
from spadework.errors import SpadeworkError
from spadework.images import Picture
from spadework.rehearsal.measuring import gain
from spadework.rehearsal.network import RememberingNetwork
from spadework.rehearsal.stage import set_stage
from spadework.rehearsal.trial import AFTER_SEARCH, run

COLUMNS = {
    "setting": "setting",
    "value": "value",
    "gain": "gain",
    "its standard error": "error",
    "kinds": "kinds",
    "clearly better on": "better",
    "clearly worse on": "worse",
    "least": "least",
    "most": "most",
}
PARTS = ("gear", "board", "weave")
SIDE = 0.05  # of a picture's side: the radius that is tried
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("smoothing 2", {"smoothing": 2.0}),
    ("smoothing 6", {"smoothing": 6.0}),
    ("image_score nearest-images", {"image_score": "nearest-images"}),
    ("kappa 3", {"kappa": 3}),
    ("pooling 3", {"pooling": 3}),
    ("levels 1, 2", {"levels": [1, 2]}),
    ("levels 2, 3", {"levels": [2, 3]}),
    ("level_weights 2, 1, 1", {"level_weights": [2.0, 1.0, 1.0]}),
    ("level_weights 1, 2, 1", {"level_weights": [1.0, 2.0, 1.0]}),
    ("level_weights 1, 1, 2", {"level_weights": [1.0, 1.0, 2.0]}),
    ("gallery_k 20", {"gallery_k": 20}),
    ("gallery_k 100", {"gallery_k": 100}),
    ("search_radius 0.05 of the side", {"search_radius": SIDE}),
    ("grid_stride 16", {"grid_stride": 16}),
    ("image_size 192", {"image_size": 192}),
    ("image_size 320", {"image_size": 320}),
    ("image_size 384", {"image_size": 384}),
]


def kinds(options: argparse.Namespace) -> dict[str, Sequence[Picture]]:
    """Normal pictures of each kind of part."""
    count, size = (8, 64) if options.tiny else (50, 256)
    found: dict[str, Sequence[Picture]] = {}
    for seed in options.seeds[: 1 if options.tiny else None]:
        for name in PARTS[: 1 if options.tiny else None]:
            found[f"{name} {seed}"] = [render(name, index=index, seed=seed, size=size)[0] for index in range(count)]
    if options.tiny:
        return found
    found["label"] = [label(index)[0] for index in range(count)]
    for root in options.data:
        for category in open_dataset(root).categories:
            found[category.name] = [sample.path for sample in category.train]
    return found


def measure(pictures: Sequence[Picture], options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Gain and its standard error of each setting over the defaults, on one kind of part."""
    counts: Row = {"tested": 4, "planted": 8} if options.tiny else {"tested": 24, "planted": 48}
    stage = set_stage(pictures, seed=0, **counts)
    side = float(np.median([math.sqrt(height * width) for height, width in stage.shapes]))
    network = RememberingNetwork(open_backbone("embedded"))
    usual = Spade(**({"image_size": 64} if options.tiny else {})).settings()
    found: dict[str, tuple[float, float]] = {}
    try:
        first = run(stage, usual, network, lambda share: None)
        before = first.outcome(usual)
        for name, changes in VARIANTS[:: 8 if options.tiny else 1]:
            if options.only and options.only not in name:
                continue
            settings = {**usual, **changes}
            if "search_radius" in changes:
                settings["search_radius"] = max(4, round(changes["search_radius"] * side))
            try:
                trial = (
                    first if changes.keys() <= set(AFTER_SEARCH) else run(stage, settings, network, lambda share: None)
                )
            except SpadeworkError:
                continue  # not for these pictures
            told = gain(trial.outcome(settings), before)
            found[name] = (told.value, told.error)
            print(f"  {name}: {told.value:.4f} +- {told.error:.4f}", file=sys.stderr, flush=True)
    finally:
        network.close()
    return found


def as_row(name: str, found: list[tuple[float, float]]) -> Row:
    setting, _, value = name.partition(" ")
    values = np.array([gained for gained, _ in found])
    return {
        "setting": setting,
        "value": value,
        "gain": round(float(values.mean()), 4),
        "error": round(float(values.std(ddof=1) / np.sqrt(len(values))), 4) if len(values) > 1 else 0.0,
        "kinds": len(values),
        "better": sum(gained > error for gained, error in found),
        "worse": sum(gained < -error for gained, error in found),
        "least": round(float(values.min()), 4),
        "most": round(float(values.max()), 4),
    }


def rows_of(options: argparse.Namespace, folder: Path) -> list[Row]:
    told: dict[str, dict[str, tuple[float, float]]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for kind, pictures in kinds(options).items():
        kept = folder / f"rehearsed-{kind.replace(' ', '-')}.json"
        print(kind, file=sys.stderr, flush=True)
        if not kept.exists():
            kept.write_text(json.dumps(measure(pictures, options)))
        told[kind] = json.loads(kept.read_text())
    rows = []
    for name, _ in VARIANTS:
        found = [tuple(each[name]) for each in told.values() if name in each]
        if found:
            rows.append(
                {**as_row(name, found), "each": {kind: each[name] for kind, each in told.items() if name in each}}
            )
    return rows


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--data", type=Path, nargs="+", default=[], help="data sets of real pictures; only their normal ones are read"
    )
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the rendered parts")
    arguments.add_argument("--keep", type=Path, help="folder for what was measured; used again if it is there")
    arguments.add_argument("--only", metavar="WORD", help="only settings whose name holds this")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return finish("rehearsed", rows_of(options, options.keep or Path(temporary)), COLUMNS, options)


if __name__ == "__main__":
    sys.exit(main())
