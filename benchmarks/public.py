"""PatchCore and PaDiM beside a public implementation, anomalib, on the same features of the same pictures.

    pip install anomalib torch torchvision    # beside Spadework; no part of its requirements
    python benchmarks/public.py DATASET...
    python benchmarks/public.py --tiny        # skipped, with a word, where anomalib is not installed

Of anomalib's models one thing is replaced: the network. In place of its feature extractor stands one that returns what Spadework's embedded network
says of the picture, levels finer than the grid averaged down to it, as here. All else is the library's own code, called as its own training and
inference call it: pooling, the joining of levels, random projection and coreset, nearest neighbours, means and inverse covariances, Mahalanobis
distances, bringing the map to picture size, blur. PaDiM's channels are a random draw; both take the same.

Where the library chose otherwise than the paper's authors, a row has it "as it is", and others set its map generator to what they have:
squared distances, brought to picture size bilinearly. Its blur is kept. Both maps are measured by Spadework, at the network's size.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common import Row, finish, import_torchvision, parser

from spadework.datasets import Category, open_dataset
from spadework.datasets.synthetic import write_dataset
from spadework.detectors import get_detector
from spadework.detectors.features import PyramidDetector
from spadework.images import load
from spadework.metrics import Measures, PixelAccumulator

MISSING = "anomalib is not installed: pip install anomalib torch torchvision, in an environment that has Spadework"
BOUND = 0.005
COLUMNS = {
    "data": "set",
    "detector": "detector",
    "settings": "settings",
    "anomalib": "public",
    "seed": "seed",
    "pixel AUROC": "auroc",
    "anomalib's": "public_auroc",
    "difference": "auroc_difference",
    "PRO": "pro",
    "anomalib's ": "public_pro",
    "difference ": "pro_difference",
    "within 0.005": "within",
}
AS_IT_IS, SAME = "as it is", "same settings"


@dataclass(frozen=True)
class Case:
    """What both are set to, and the seeds of the library's random choices."""

    detector: str
    settings: dict[str, Any]
    seeds: tuple[int, ...] = (0,)

    @property
    def words(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.settings.items())


CASES = (
    Case("patchcore", {"coreset": 0.1}),
    Case("patchcore", {"coreset": 0.01}, seeds=(0, 1, 2)),
    Case("padim", {"grid_stride": 8}),
    Case("padim", {"grid_stride": 4}),
)


# ---- the public implementation, with another network -------------------------------------------------------------------------


def with_our_network(model: Any, detector: PyramidDetector) -> Any:
    """The model, its feature extractor replaced by one that gives what the detector's network says of a picture, uint8 (1, 3, h, w)."""
    import torch

    class Extractor(torch.nn.Module):
        def forward(self, picture: Any) -> dict[str, Any]:
            seen = picture[0].permute(1, 2, 0).numpy().astype(np.uint8)
            maps, _ = detector.backbone_(np.ascontiguousarray(seen)[None])
            strides = detector.backbone_.strides
            chosen = [(maps[level - 1], strides[level - 1]) for level in detector.levels or range(1, len(maps) + 1)]
            found = {}
            for name, (level, stride) in zip(model.layers, chosen, strict=True):
                shrink = max(1, detector.grid_stride // stride)
                found[name] = torch.nn.functional.avg_pool2d(torch.from_numpy(level), shrink)
            return found

    model.feature_extractor = Extractor()
    return model


def patchcore(detector: PyramidDetector) -> Any:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    return with_our_network(PatchcoreModel(["layer2", "layer3"], "resnet18", pre_trained=False), detector)


def padim(detector: PyramidDetector) -> Any:
    """With the detector's draw of channels: ResNet-18, whose place our network takes, has as many to draw from."""
    import torch
    from anomalib.models.image.padim.torch_model import PadimModel

    channels = torch.from_numpy(detector.channels_.astype(np.int64))
    layers = ["layer1", "layer2", "layer3"]
    model = PadimModel("resnet18", layers, pre_trained=False, n_features=len(channels))
    model.idx = channels
    return with_our_network(model, detector)


def fit_public(detector: PyramidDetector, pictures: list[Any], *, seed: int) -> Any:
    """The library's model, fitted as its own training does it: every picture passed once, then the coreset or the Gaussians."""
    import torch

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the library's projection draws from it
    model = {"patchcore": patchcore, "padim": padim}[detector.name](detector)
    model.train()
    for picture in pictures:
        model(picture)
    if detector.name == "patchcore":
        model.subsample_embedding(detector.coreset)
    else:
        model.fit()
    return model.eval()


def generators(model: Any) -> dict[str, Any]:
    """Map generators of a fitted PatchCore: the library's, and the same with the authors' choices; the blur is the library's in all."""
    import torch

    own = model.anomaly_map_generator

    class Changed(torch.nn.Module):
        def __init__(self, power: int, mode: str) -> None:
            super().__init__()
            self.power, self.mode = power, mode

        def forward(self, scores: Any, size: Any) -> Any:
            grown = torch.nn.functional.interpolate(scores**self.power, size=tuple(size), mode=self.mode)
            return own(grown)  # no size: it only blurs

    return {
        AS_IT_IS: own,
        "map bilinear": Changed(1, "bilinear"),
        "distances squared": Changed(2, "nearest"),
        SAME: Changed(2, "bilinear"),
    }


# ---- both on one category ------------------------------------------------------------------------------------------------------


def measured(detector: PyramidDetector, category: Category, maps: Callable[[Path], np.ndarray]) -> Measures:
    """Pixel AUROC and PRO of the maps of all test pictures, at the network's size."""
    pixels = PixelAccumulator()
    for sample in category.test:
        mask = sample.read_mask(load(sample.path).shape[:2])
        pixels.add(maps(sample.path), None if mask is None else detector._view().see_mask(mask))
    return pixels.result()


def compare(category: Category, case: Case, **changes: Any) -> Iterator[Row]:
    """A row for each seed and each way that the library's map is made."""
    import torch

    detector = get_detector(case.detector)(**case.settings, calibration_images=0, **changes)
    detector.fit([sample.path for sample in category.train])
    ours = measured(detector, category, lambda path: detector.predict(path).only.view_map)

    def tensor(path: Path) -> Any:
        return torch.from_numpy(detector._view().see(load(path))).permute(2, 0, 1)[None].float()

    def public_map(model: Any, path: Path) -> np.ndarray:
        return model(tensor(path)).anomaly_map[0, 0].numpy()

    for seed in case.seeds:
        model = fit_public(detector, [tensor(sample.path) for sample in category.train], seed=seed)
        ways = generators(model) if case.detector == "patchcore" else {AS_IT_IS: model.anomaly_map_generator}
        for way, generator in ways.items():
            model.anomaly_map_generator = generator
            theirs = measured(detector, category, partial(public_map, model))
            told = {"set": category.name, "detector": case.detector, "settings": case.words, "public": way}
            yield told | {"seed": seed if case.detector == "patchcore" else None} | differences(ours, theirs)


def differences(ours: Measures, theirs: Measures) -> Row:
    assert None not in (ours.auroc, ours.pro, theirs.auroc, theirs.pro)  # masks were asked for
    row = {"auroc": ours.auroc, "public_auroc": theirs.auroc, "auroc_difference": ours.auroc - theirs.auroc}
    row |= {"pro": ours.pro, "public_pro": theirs.pro, "pro_difference": ours.pro - theirs.pro}
    row = {name: round(value, 5) for name, value in row.items()}
    near = max(abs(row["auroc_difference"]), abs(row["pro_difference"])) <= BOUND
    return row | {"within": "yes" if near else "no"}


def main() -> int:
    arguments = parser(__doc__ or "")
    arguments.add_argument("dataset", nargs="*")
    options = arguments.parse_args()
    if importlib.util.find_spec("anomalib") is None:
        print(f"skipped: {MISSING}" if options.tiny else MISSING, file=sys.stderr)
        return 0 if options.tiny else 2
    import_torchvision()
    logging.disable(logging.INFO)
    rows, changes = [], {"image_size": 64} if options.tiny else {}
    with tempfile.TemporaryDirectory() as folder:
        some = {"n_train": 8, "n_good": 2, "n_per_defect": 1, "size": 64} if options.tiny else {"n_train": 40}
        write_dataset(folder, categories=["gear"], **some)
        categories = [each for root in [folder, *options.dataset] for each in open_dataset(root).categories]
        for category in categories:
            for case in CASES:
                for row in compare(category, case, **changes):
                    print(row, file=sys.stderr, flush=True)
                    rows.append({"library": f"anomalib {version('anomalib')}"} | row)
    return finish("public", rows, COLUMNS, options)


if __name__ == "__main__":
    sys.exit(main())
