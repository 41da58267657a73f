"""PatchCore: the distance of every patch to the nearest of a bank of normal patches, a coreset of all that were seen.

In: normal pictures. Out, for a new one: for each place the squared distance to the nearest patch of the bank, as a map.
Letters as in `spadework.pyramid`; `N` normal images, `M` patches in the bank.

Recipe, with how sure each part is: features of the second and third stage, averaged over 3 x 3 positions, the coarser brought to the finer grid
bilinearly and put beside it (certain, paper 3.1); a greedy coreset, farthest first (certain, 3.2), here exact on the features themselves, in the
paper by random projections to 128 numbers from ten random starts; image score: the largest patch distance, times one less the softmax weight of its
match among the `reweighting` patches of the bank nearest to that match (certain, 3.3, equation 7; the authors' own code leaves the weight out, and so
does the default here); map: bilinear to picture size, Gaussian of sigma 4 (certain). Distances are squared, as in the authors' code; the paper
writes them unsquared, and so they stand in the weight.
Substitutions: the authors' code averages the 9 C numbers of a 3 x 3 neighbourhood in groups to 1,024; here, as in the paper, each channel is
averaged over its neighbourhood. At the border public codes count zeros beyond it; here the mean is of those neighbours that there are.

What the threshold rests on: the normal pictures are dealt into FOLDS parts; those of each part are scored against a bank chosen from the other parts
alone. Fewer pictures make a poorer bank, so these scores are rather too high than too low; that is no proof, and with few pictures it is coarse.
(Leaving out only a picture's own patches of the one bank is cheaper and wrong: the bank holds one copy of what all pictures share, and whoever
it was taken from would seem to have something that no other has.)
Source: Roth, Pemula, Zepeda, Schoelkopf, Brox and Gehler 2022, Towards Total Recall in Industrial Anomaly Detection, CVPR, arXiv:2106.08265.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from spadework import check
from spadework.calibration import choose_images
from spadework.coreset import greedy
from spadework.detectors.costs import HOLDING, LEARNING, Growth
from spadework.detectors.features import PyramidDetector
from spadework.detectors.reading import Progress, Seen
from spadework.errors import InputError
from spadework.kernels import KERNELS, Nearest, get_kernel, kernel_name, pruned
from spadework.prediction import Judgement
from spadework.pyramid import descriptors
from spadework.storage import ModelFolder

IMAGE_SCORES = frozenset({"patch", "map"})
FOLDS = 5
FOLDING = "choosing patches by folds"
CHOOSING = (
    2.1,
    2.1,
)  # power of the pictures that a choice takes time by: from 25 to 100 of them 2.3, from 25 to 50 1.8 (see coreset.py)


class PatchCore(PyramidDetector):
    """PatchCore. The defaults are the paper's, with the embedded backbone and a tenth of the patches.

    Args:
        backbone: "embedded", a path to an ONNX file, "timm:NAME" or "torchvision:NAME"; see `spadework backbones`.
        weights: a local weights file for "timm:" and "torchvision:".
        image_size: how large pictures are seen: the side of a square of the same area, "auto" for what their own size asks for, or
            (height, width), multiples of the network's coarsest stride (16). Aspect is kept; see docs/resolution.md.
        crop: keep only the centre, one side or (height, width); the resize then keeps the aspect of the shorter side.
        levels: which levels to use, counted from 1 at the finest; None for all.
        grid_stride: stride of the grid of patches, in pixels of the view.
        pooling: average each feature over a neighbourhood of this many positions of its own grid; 1 for none.
        upsampling: how coarser levels reach the fine grid, "bilinear" or "nearest".
        coreset: the share of all normal patches that the bank keeps; 1 for all.
        image_score: "patch", the largest patch distance, squared, or "map", the highest value of the smoothed map.
        reweighting: with "patch", patches of the bank whose softmax weighs it, 0 for none; the paper has 9.
        smoothing: sigma of the Gaussian on the map, in pixels of the view.
        max_false_alarms: the share of normal pictures that may be called anomalous.
        calibration_images: at most this many normal images are held out, fold by fold, to set the threshold; 0 for no threshold.
        kernel: "auto", "pruned" (compiled), "blocked" or "reference".
        threads: of the network and of the search; None for the environment's SPADEWORK_THREADS or all cores.
        seed: of the draw of calibration images.

    Example:
        >>> from spadework.detectors import get_detector  # doctest: +SKIP
        >>> get_detector("patchcore")().fit("good/").predict("new.png").is_anomalous  # doctest: +SKIP
        True
    """

    name: ClassVar[str] = "patchcore"
    summary: ClassVar[str] = "nearest of a coreset of normal patches; map and image score"
    source: ClassVar[str] = "Roth et al. 2022, arXiv:2106.08265"
    cannot: ClassVar[str] = "explanations; append"
    cost: ClassVar[str] = "fit: forward passes and six coresets; a picture: a forward pass and a search of the bank"

    def __init__(
        self,
        backbone: str = "embedded",
        *,
        weights: str | os.PathLike[str] | None = None,
        image_size: int | Sequence[int] | str = 256,
        crop: int | Sequence[int] | None = None,
        levels: Sequence[int] | None = (2, 3),
        grid_stride: int = 8,
        pooling: int = 3,
        upsampling: str = "bilinear",
        coreset: float = 0.1,
        image_score: str = "patch",
        reweighting: int = 0,
        smoothing: float = 4.0,
        max_false_alarms: float = 0.01,
        calibration_images: int = 100,
        kernel: str = "auto",
        threads: int | None = None,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.crop = crop
        self.levels = levels
        self.grid_stride = grid_stride
        self.pooling = pooling
        self.upsampling = upsampling
        self.coreset = coreset
        self.image_score = image_score
        self.reweighting = reweighting
        self.smoothing = smoothing
        self.max_false_alarms = max_false_alarms
        self.calibration_images = calibration_images
        self.kernel = kernel
        self.threads = threads
        self.seed = seed

    @classmethod
    def paper(cls, **changes: Any) -> PatchCore:
        """Return the paper's configuration: Wide-ResNet-50-2 with torchvision's V1 weights, resize 256, centre crop 224, a bank of a quarter
        of all patches, the weighted image score. `changes` replace single settings."""
        settings: dict[str, Any] = {
            "backbone": "timm:wide_resnet50_2.tv_in1k",
            "image_size": 256,
            "crop": 224,
            "coreset": 0.25,
            "reweighting": 9,
        }
        return cls(**{**settings, **changes})

    def _check_settings(self) -> None:
        self._check_features()
        check.one_of(self.kernel, "kernel", {"auto", *KERNELS})
        check.one_of(self.image_score, "image_score", IMAGE_SCORES)
        if self.coreset != 1:  # all patches
            check.share(self.coreset, "coreset")
        if check.whole(self.reweighting, "reweighting") == 1:
            raise InputError(
                "reweighting must be 0 for none, or at least 2: among one, the match itself, its weight is nothing."
            )
        check.share(self.max_false_alarms, "max_false_alarms")
        check.whole(self.calibration_images, "calibration_images")
        check.whole(self.seed, "seed")

    # ---- what it costs -------------------------------------------------------------------------------------------------------

    def _stages(self, count: int) -> dict[str, Growth]:
        folds = min(FOLDS, count) if self.calibration_images else 0
        held = replace(self._inspecting(count), steps=self._calibrating(count))
        banks = {LEARNING: Growth(1, count, CHOOSING), FOLDING: Growth(folds, count, CHOOSING)}
        return super()._stages(count) | banks | {HOLDING: held}

    def _inspecting(self, count: int) -> Growth:
        return Growth(1, count, (0.0, 1.0))

    def _probe(self) -> dict[str, Any]:
        return {"calibration_images": min(int(self.calibration_images), 2 * FOLDS)}  # some of each fold

    def _resident(self, count: int, sizes: Mapping[str, float]) -> float:
        """All patches, mapped; those of the other folds, copied; the bank and what is prepared of it."""
        return sizes.get("patches", 0.0) * (2 - 1 / FOLDS) + 2 * sizes.get("bank", 0.0)

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _learn(self, normal: Iterator[Seen], folder: ModelFolder) -> None:
        """Gather all patches in a file of the model, choose among them, score those held out, and let the file go."""
        grid, sizes = None, []
        for seen in normal:
            assert seen.pyramid is not None  # needs == "pyramid"
            patches = descriptors(seen.pyramid.levels, upsampling=self.upsampling)  # (H*W, C)
            if grid is None:
                grid = list(seen.pyramid.grid)
                folder.add_array("patches", "<f4", patches.shape, checked=False)
            folder.append("patches", patches[None])
            sizes.append(seen.image.shape[:2])
        if grid is None:
            return
        folder.header["grid"] = grid
        patches = folder.read("patches").view(np.ndarray)  # (N, H*W, C)
        rows = patches.reshape(-1, patches.shape[2])
        self._tell(LEARNING, 0, 1)
        bank, radius = self._choose(rows)
        self._tell(LEARNING, 1, 1)
        folder.header["coreset"] = {"patches": len(rows), "radius": radius}
        folder.replace("bank", bank)
        distances, scores, held = self._held_out(patches, np.array(sizes, np.int64), (grid[0], grid[1]))
        folder.replace("held_out_distances", distances)
        folder.replace("held_out_scores", scores)
        folder.replace("held_out_sizes", held)
        del folder.header["arrays"]["patches"]  # the next commit clears the file away

    def _choose(self, rows: np.ndarray) -> tuple[np.ndarray, float]:
        """The bank of these patches, (M, C), and the radius within which it covers them."""
        if self.coreset == 1:
            return np.array(rows), 0.0
        chosen = greedy(rows, max(1, round(self.coreset * len(rows))))
        return rows[chosen.indices], chosen.radius

    def _held_out(
        self, patches: np.ndarray, sizes: np.ndarray, grid: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Squared distances (n, H*W), image scores (n,) and picture sizes (n, 2) of a seeded draw of images, each against a bank of
        other folds' patches."""
        count = len(patches)
        drawn = choose_images(count, int(self.calibration_images), self.seed) if count > 1 else np.arange(0)
        fold_of = np.random.default_rng(self.seed).permutation(count) % FOLDS
        distances, scores = np.empty((len(drawn), patches.shape[1])), np.full(len(drawn), np.nan)
        for done, fold in enumerate(np.unique(fold_of[drawn]), 1):
            others = patches[fold_of != fold].reshape(-1, patches.shape[2])
            bank = self._ready(self._choose(others)[0])
            self._tell(FOLDING, done, FOLDS)
            for place in np.flatnonzero(fold_of[drawn] == fold):
                own = patches[drawn[place]]
                found = self._nearest(own, bank, kappa=1)
                distances[place] = found.distances[:, 0]
                shown = self._shown(sizes[drawn[place]], grid)
                scores[place] = self._score(own, distances[place], found.indices[:, 0], bank.rows, shown)
                self._tell(HOLDING, int(np.isfinite(scores).sum()), len(drawn))
        return distances, scores, sizes[drawn]

    def _open(self, folder: ModelFolder) -> None:
        self.grid_ = tuple(folder.header["grid"])
        self.held_out_ = (np.array(folder.read("held_out_distances")), np.array(folder.read("held_out_scores")))
        sized = "held_out_sizes" in folder.header["arrays"]  # not in a model from before there was a canvas
        self.held_out_sizes_ = np.array(folder.read("held_out_sizes")) if sized else None
        if self._prunes():
            pruned.warm_up()  # now, not in the first request
        self.bank_ = self._ready(np.array(folder.read("bank")))

    def _prunes(self) -> bool:
        return kernel_name(self.kernel) == "pruned"

    def _ready(self, bank: np.ndarray) -> pruned.Prepared:
        return pruned.prepare(bank, threads=self.threads) if self._prunes() else pruned.Prepared(bank, None)

    def _normal_scores(self, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
        """Image scores and map peaks of the images that were held out, fold by fold, when the bank was made."""
        peaks, scores = [], []
        for place, (distances, score) in enumerate(zip(*self.held_out_, strict=True)):
            size = None if self.held_out_sizes_ is None else self.held_out_sizes_[place].tolist()
            image_score, small = self._scores(self._judgement(distances, float(score)), size)
            assert small is not None  # PatchCore always has a map
            peaks.append(float(small.max()))
            scores.append(image_score)
            if progress:
                progress("setting the threshold", len(scores), len(self.held_out_[1]))
        return np.array(scores, np.float64), np.array(peaks, np.float64)

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _judge(self, seen: Seen) -> Judgement:
        assert seen.pyramid is not None  # needs == "pyramid"
        patches = descriptors(seen.pyramid.levels, upsampling=self.upsampling)
        found = self._nearest(patches, self.bank_, kappa=1)
        distances = found.distances[:, 0]
        shown = self._shown(seen.image.shape, self.grid_)
        return self._judgement(distances, self._score(patches, distances, found.indices[:, 0], self.bank_.rows, shown))

    def _judgement(self, distances: np.ndarray, score: float) -> Judgement:
        return Judgement(distances.reshape(self.grid_), score if self.image_score == "patch" else None)

    def _nearest(self, patches: np.ndarray, bank: pruned.Prepared, *, kappa: int) -> Nearest:
        if bank.codes is not None:
            return pruned.nearest_of(bank, patches, kappa=kappa, threads=self.threads)
        return get_kernel(self.kernel)(patches, bank.rows, kappa=kappa, threads=self.threads)

    def _shown(self, shape: Sequence[int], grid: tuple[int, int]) -> np.ndarray:
        """Which places of the grid show a picture of `shape` and not padding, ascending."""
        return np.arange(grid[0] * grid[1]).reshape(grid)[self._view().cells(tuple(shape), grid)].reshape(-1)

    def _score(
        self,
        patches: np.ndarray,
        distances: np.ndarray,
        matches: np.ndarray,
        bank: np.ndarray,
        shown: np.ndarray | None = None,
    ) -> float:
        """The largest squared distance of a patch, one of those `shown`, to its match in the bank, weighed if so set."""
        worst = int(distances.argmax() if shown is None else shown[distances[shown].argmax()])
        weight = self._weight(patches[worst], bank, int(matches[worst])) if self.reweighting else 1.0
        return weight * float(distances[worst])

    def _weight(self, patch: np.ndarray, bank: np.ndarray, match: int) -> float:
        """One less the softmax of the match among its own nearest in the bank, itself included, by their distances to the patch."""
        if len(bank) < 2:
            return 1.0
        near = get_kernel("blocked")(bank[match][None], bank, kappa=min(self.reweighting, len(bank)))
        away = np.sqrt(((bank[near.indices[0]].astype(np.float64) - patch) ** 2).sum(axis=1))
        own = np.sqrt(((bank[match].astype(np.float64) - patch) ** 2).sum())
        return float(1 - np.exp(own - away.max()) / np.exp(away - away.max()).sum())
