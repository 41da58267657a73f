"""PatchCore and PaDiM beside a public implementation, anomalib, on the same features of the same pictures.

    pip install anomalib torch torchvision    # beside Spadework; no part of its requirements
    python benchmarks/public.py DATASET...
    python benchmarks/public.py --tiny        # skipped, with a word, where anomalib is not installed

Of anomalib's models one thing is replaced: the network. In place of its feature extractor stands one that returns what Spadework's embedded network
says of the picture, levels finer than the grid averaged down to it, as here. All else is the library's own code, called as its own training and
inference call it: pooling, the joining of levels, random projection and coreset, nearest neighbours, means and inverse covariances, Mahalanobis
distances, bringing the map to picture size, blur. PaDiM's channels are a random draw; both take the same.

Where the library's PatchCore is not ours, rows take one step after another: "as it is"; its map made as the code of the paper's authors has it
(distances squared, brought to picture size bilinearly; the blur is kept); its pooling at the border the mean of those neighbours that there are, where it
counts zeros beyond; its coreset of the features themselves, without projection, from its random start; and of its features those that our coreset chose.
Both maps are measured by Spadework, at the network's size.
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

from spadework.coreset import greedy
from spadework.datasets import Category, open_dataset
from spadework.datasets.synthetic import write_dataset
from spadework.detectors import get_detector
from spadework.detectors.features import PyramidDetector
from spadework.images import load
from spadework.metrics import Measures, PixelAccumulator
from spadework.pyramid import descriptors

MISSING = "anomalib is not installed: pip install anomalib torch torchvision, in an environment that has Spadework"
BOUND = 0.005
COLUMNS = {
    "data": "set",
    "detector": "detector",
    "settings": "settings",
    "anomalib": "public",
    "seed": "seed",
    "pixel AUROC": "auroc",
    "anomalib's AUROC": "public_auroc",
    "difference of AUROC": "auroc_difference",
    "PRO": "pro",
    "anomalib's PRO": "public_pro",
    "difference of PRO": "pro_difference",
    "within 0.005": "within",
}
AS_IT_IS, MAP, SAME = "as it is", "+ the authors' map", "+ our borders"
PLAIN, OURS = "+ no projection", "+ our coreset"


@dataclass(frozen=True)
class Case:
    """What both are set to, the seeds of the library's random choices, and whether to go there step by step."""

    detector: str
    settings: dict[str, Any]
    seeds: tuple[int, ...] = (0,)
    steps: bool = False

    @property
    def words(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.settings.items())


CASES = (
    Case("padim", {"grid_stride": 8}),
    Case("padim", {"grid_stride": 4}),
    Case("patchcore", {"coreset": 0.01}, seeds=(0, 1, 2), steps=True),
    Case("patchcore", {"coreset": 0.1}),
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


def fitted(case: Case, detector: PyramidDetector, paths: list[Path]) -> Iterator[tuple[str, int | None, Any]]:
    """The library's model, fitted as its own training does it: what is changed in it, the seed, and itself."""
    if case.detector == "patchcore":
        yield from fitted_patchcore(case, detector, paths)
        return
    model = pass_through(padim(detector), detector, paths)
    model.fit()
    yield AS_IT_IS, None, model.eval()


def fitted_patchcore(case: Case, detector: PyramidDetector, paths: list[Path]) -> Iterator[tuple[str, int | None, Any]]:
    import torch

    model = pass_through(patchcore(detector), detector, paths)
    own, store = model.anomaly_map_generator, torch.vstack(model.embedding_store)  # (N*H*W, C)
    authors = authors_map(own)
    for seed in case.seeds if case.steps else ():
        choose(model, store, detector.coreset, seed)
        model.anomaly_map_generator = own
        yield AS_IT_IS, seed, model.eval()
        model.anomaly_map_generator = authors
        yield MAP, seed, model.eval()
    model.anomaly_map_generator = authors
    model.feature_pooler = torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    model.embedding_store.clear()
    store = torch.vstack(pass_through(model, detector, paths).embedding_store)
    for seed in case.seeds:
        choose(model, store, detector.coreset, seed)
        yield SAME, seed, model.eval()
        if case.steps:
            model.memory_bank = without_projection(store, detector.coreset, seed)
            yield PLAIN, seed, model.eval()
    model.memory_bank = store[torch.from_numpy(our_choice(detector, paths))]
    yield OURS, None, model.eval()


def pass_through(model: Any, detector: PyramidDetector, paths: list[Path]) -> Any:
    """The model, in training, after it has seen every normal picture once."""
    model.train()
    for path in paths:
        model(tensor(detector, path))
    return model


def choose(model: Any, store: Any, share: float, seed: int) -> None:
    """Let the library choose its coreset."""
    model.embedding_store = [store]
    plant(seed)
    model.subsample_embedding(share)


def plant(seed: int) -> None:
    import torch

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the library's projection draws from it


def authors_map(own: Any) -> Any:
    """PatchCore's map generator with the authors' choices; the blur is the library's."""
    import torch

    class Generator(torch.nn.Module):
        def forward(self, scores: Any, size: Any) -> Any:
            return own(
                torch.nn.functional.interpolate(scores**2, size=tuple(size), mode="bilinear")
            )  # no size: it blurs

    return Generator()


def without_projection(store: Any, share: float, seed: int) -> Any:
    """The library's coreset of the features themselves, which is what it takes where they have more than two axes."""
    from anomalib.models.components.sampling import KCenterGreedy

    plant(seed)
    return store[KCenterGreedy(store[:, :, None], share).select_coreset_idxs()]


def our_choice(detector: PyramidDetector, paths: list[Path]) -> np.ndarray:
    """Which patches the detector's bank holds."""
    seen = detector._see_each(paths)
    rows = np.concatenate([descriptors(each.pyramid.levels, upsampling=detector.upsampling) for each in seen])
    indices = greedy(rows, max(1, round(detector.coreset * len(rows)))).indices
    assert (rows[indices] == detector.bank_.rows).all()
    return indices


# ---- both on one category ------------------------------------------------------------------------------------------------------


def measured(detector: PyramidDetector, category: Category, maps: Callable[[Path], np.ndarray]) -> Measures:
    """Pixel AUROC and PRO of the maps of all test pictures, at the network's size."""
    pixels = PixelAccumulator()
    for sample in category.test:
        mask = sample.read_mask(load(sample.path).shape[:2])
        pixels.add(maps(sample.path), None if mask is None else detector._view().see_mask(mask))
    return pixels.result()


def tensor(detector: PyramidDetector, path: Path) -> Any:
    """What the detector's network sees of a picture, (1, 3, h, w)."""
    import torch

    return torch.from_numpy(np.array(detector._view().see(load(path)))).permute(2, 0, 1)[None].float()


def compare(category: Category, case: Case, **changes: Any) -> Iterator[Row]:
    """A row for each seed of the library's random choices and each thing changed in it."""
    detector = get_detector(case.detector)(**case.settings, calibration_images=0, **changes)
    paths = [sample.path for sample in category.train]
    detector.fit(paths)
    ours = measured(detector, category, lambda path: detector.predict(path).only.view_map)

    def public_map(model: Any, path: Path) -> np.ndarray:
        return model(tensor(detector, path)).anomaly_map[0, 0].numpy()

    for change, seed, model in fitted(case, detector, paths):
        theirs = measured(detector, category, partial(public_map, model))
        told = {"set": category.name, "detector": case.detector, "settings": case.words, "public": change, "seed": seed}
        yield told | differences(ours, theirs)


def differences(ours: Measures, theirs: Measures) -> Row:
    assert None not in (ours.auroc, ours.pro, theirs.auroc, theirs.pro)  # masks were asked for
    row = {"auroc": ours.auroc, "public_auroc": theirs.auroc, "auroc_difference": ours.auroc - theirs.auroc}
    row |= {"pro": ours.pro, "public_pro": theirs.pro, "pro_difference": ours.pro - theirs.pro}
    row = {name: round(value, 5) + 0.0 for name, value in row.items()}  # no -0.0
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
        some = {"n_train": 8, "n_good": 2, "n_per_defect": 1, "size": 64} if options.tiny else {"n_train": 30}
        write_dataset(folder, categories=["gear"], **some)
        categories = [each for root in [folder, *options.dataset] for each in open_dataset(root).categories]
        for case in CASES:
            for category in categories:
                for row in compare(category, case, **changes):
                    print(row, file=sys.stderr, flush=True)
                    rows.append({"library": f"anomalib {version('anomalib')}"} | row)
    return finish("public", rows, COLUMNS, options)


if __name__ == "__main__":
    sys.exit(main())
