"""What detectors share that train a network of their own: the pictures, the held-out share, the course of training, the weights in the model.

In: the network's views of normal pictures, uint8 (h, w, 3). They are gathered in a file beside the model and read from it batch by batch, so memory
holds no more than a batch; the file goes when training ends. A share of the pictures is held out: the network never sees them, and the threshold
rests on their scores alone. Pictures are put into the order of their hashes first, so the order in which they come does not matter.
A method names its networks (`_build`), what it learns from a batch (`_course`), what else it takes from the trained network and the training
pictures (`_afterwards`), and what it says of one view (`_inspect`).
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spadework import check
from spadework.detectors.base import Detector
from spadework.detectors.costs import AFTERWARDS, ON_TRIAL, THRESHOLD, Growth
from spadework.detectors.features import check_smoothing
from spadework.detectors.reading import Progress, Seen
from spadework.detectors.training import Course, check_device, import_torch, settled, train
from spadework.detectors.weights import Checkpoint, Layout, fill_network, keep_networks
from spadework.errors import InputError
from spadework.images import View
from spadework.prediction import Judgement
from spadework.storage import ModelFolder

PROBED_BATCH, PROBED_EPOCHS = 16, 1000  # enough epochs to go on until time is up
ASIDE = frozenset({"device", "threads", "checkpoints", "held_out", "smoothing", "max_false_alarms", "image_score"})


class Views:
    """Pictures as the network sees them, read from disk when asked for: `views[numbers]` is uint8 (n, h, w, 3)."""

    def __init__(self, rows: np.ndarray, chosen: np.ndarray) -> None:
        self._rows, self._chosen = rows, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, numbers: np.ndarray | slice) -> np.ndarray:
        return np.array(self._rows[self._chosen[numbers]])


class Networks:
    """The networks of a model, made when first needed: looking at a model needs no PyTorch."""

    def __init__(self, detector: TrainedDetector, kept: Mapping[str, tuple[np.ndarray, Layout]]) -> None:
        self._detector, self._kept = detector, kept

    @cached_property
    def ready(self) -> dict[str, Any]:
        """Networks by name, in evaluation mode, their parameters fixed.

        Raises:
            MissingExtraError: PyTorch is not installed.
        """
        torch = import_torch(f"the detector {self._detector.name!r}")
        device = (
            self._detector.device if torch.cuda.is_available() else "cpu"
        )  # a model goes where there is no GPU, too
        with settled(self._detector.threads):
            found = self._detector._build()
        for name, (array, layout) in self._kept.items():
            fill_network(found[name], array, layout)
        chosen = {name: found[name].to(device).eval() for name in self._kept}
        for network in chosen.values():
            network.requires_grad_(False)
        return chosen


class TrainedDetector(Detector):
    """Base of detectors that train a network; its settings are theirs."""

    needs: ClassVar[str] = "pixels"
    extra: ClassVar[str] = "torch"
    judging: ClassVar[tuple[str, ...]]  # which networks the model keeps; the others only help to train

    image_size: int
    epochs: int
    batch_size: int
    learning_rate: float
    held_out: float
    device: str
    checkpoints: str | os.PathLike[str] | None
    seed: int
    smoothing: float = 0.0

    # ---- hooks -------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _build(self) -> dict[str, Any]:
        """Return all networks by name, freshly initialised from PyTorch's generator."""

    @abstractmethod
    def _course(self, networks: dict[str, Any], views: Views) -> Course:
        """Return the course of training on these pictures."""

    @abstractmethod
    def _inspect(self, networks: dict[str, Any], view: np.ndarray) -> Judgement:
        """Say what is wrong with one view, uint8 (h, w, 3)."""

    def _afterwards(self, networks: dict[str, Any], views: Views, folder: ModelFolder) -> None:
        """Keep in `folder` what else is learnt from the training pictures."""

    # ---- settings ----------------------------------------------------------------------------------------------------------

    def _check_training(self, *, multiple: int = 1, least: int = 1) -> None:
        """Raise InputError for a setting of the training that breaks a rule, MissingExtraError without PyTorch.

        Args:
            multiple: what the image size must be a whole multiple of.
            least: its smallest value.
        """
        torch = import_torch(f"the detector {self.name!r}")
        size = check.positive_int(self.image_size, "image_size")
        if size % multiple or size < least:
            raise InputError(f"image_size must be a multiple of {multiple} and at least {least}, not {size}.")
        for name in ("epochs", "batch_size"):
            check.positive_int(getattr(self, name), name)
        if check.not_negative(self.learning_rate, "learning_rate") == 0:
            raise InputError("learning_rate must be above 0.")
        check.share(self.held_out, "held_out", zero=True)
        check_device(self.device, torch)
        if self.checkpoints is not None:
            check.path(self.checkpoints, "checkpoints")
        check.whole(self.seed, "seed")
        check_smoothing(self.smoothing, self._view())
        check.share(self.max_false_alarms, "max_false_alarms")
        check.thread_count(self.threads)

    def _view(self) -> View:
        return View((int(self.image_size), int(self.image_size)))

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def _learn(self, normal: Iterator[Seen], folder: ModelFolder) -> None:
        hashes: list[str] = []
        for seen in normal:
            if not hashes:
                folder.add_array("views", "|u1", seen.view.shape, checked=False)
            folder.append("views", seen.view[None])
            hashes.append(seen.pixel_hash)
        if not hashes:
            return
        rows = folder.read("views").view(np.ndarray)
        learnt, held = self._deal(np.argsort(hashes))
        trial = ON_TRIAL.get()
        views = Views(rows, learnt if trial is None else np.resize(learnt, self._dealt(trial.pictures)))
        with settled(self.threads) as torch:
            torch.manual_seed(int(self.seed))
            networks = {name: network.to(self.device) for name, network in self._build().items()}
            losses = self._train(networks, views, [hashes[number] for number in learnt])
            kept = {name: networks[name] for name in self.judging}
            keep_networks(folder, kept)
            with torch.no_grad():
                self._afterwards(kept, Views(rows, learnt), folder)
        folder.header["training"] = {"pictures": len(learnt), "held_out": len(held), "losses": losses}
        folder.replace("held_out_views", rows[held])
        del folder.header["arrays"]["views"]  # the next commit clears the file away

    def _deal(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which pictures are trained on, and which are held out: a seeded draw, at least two where there are four or more."""
        drawn = np.random.default_rng(self.seed).permutation(len(order))
        count = self._calibrating(len(order))
        return order[np.sort(drawn[count:])], order[np.sort(drawn[:count])]

    def _calibrating(self, count: int) -> int:
        held = round(float(self.held_out) * count)
        if self.held_out > 0 and count >= 4:
            held = max(2, held)
        return min(held, count - 1)  # one must be left to learn from

    def _dealt(self, count: int) -> int:
        """How many of so many pictures are trained on."""
        return count - self._calibrating(count)

    def _stages(self, count: int) -> dict[str, Growth]:
        looks = replace(self._inspecting(count), steps=self._calibrating(count))
        return super()._stages(count) | {AFTERWARDS: Growth(self._dealt(count)), THRESHOLD: looks}

    def _probe(self) -> dict[str, Any]:
        return {"checkpoints": None, "epochs": PROBED_EPOCHS, "batch_size": min(int(self.batch_size), PROBED_BATCH)}

    def _resident(self, count: int, sizes: Mapping[str, float]) -> float:
        """The views, mapped."""
        return sizes.get("views", 0.0)

    def _train(self, networks: dict[str, Any], views: Views, hashes: list[str]) -> list[dict[str, float]]:
        checkpoint = None
        if self.checkpoints is not None:
            checkpoint = Checkpoint(Path(self.checkpoints), self.name, self._fingerprint(hashes))
        trial = ON_TRIAL.get()
        return train(
            self._course(networks, views),
            seconds=None if trial is None else trial.seconds,
            epochs=int(self.epochs),
            batch_size=int(self.batch_size),
            seed=int(self.seed),
            checkpoint=checkpoint,
            progress=self.progress_,
        )

    def _fingerprint(self, hashes: list[str]) -> str:
        """What tells this training from all others: method, settings, pictures, and the code and versions that it runs on."""
        from spadework.fingerprint import code_hash, versions  # which needs detectors

        settings = {name: value for name, value in self.settings().items() if name not in ASIDE}
        content = [self.name, settings, hashes, code_hash(type(self)), versions(self)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _open(self, folder: ModelFolder) -> None:
        layouts = folder.header["networks"]
        kept = {name: (np.array(folder.read(f"network_{name}")), layouts[name]) for name in self.judging}
        self.networks_ = Networks(self, kept)
        self.held_out_ = folder.read("held_out_views")

    def _normal_scores(self, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
        """Image scores and map peaks of the pictures that were held out of the training."""
        scores, peaks = [], []
        for view in self.held_out_:
            score, small = self._scores(self._judge_view(np.asarray(view)))
            scores.append(score)
            if small is not None:
                peaks.append(float(small.max()))
            if progress:
                progress(THRESHOLD, len(scores), len(self.held_out_))
        return np.array(scores, np.float64), np.array(peaks, np.float64)

    # ---- judging -----------------------------------------------------------------------------------------------------------

    def _judge(self, seen: Seen) -> Judgement:
        return self._judge_view(seen.view)

    def _judge_view(self, view: np.ndarray) -> Judgement:
        networks = self.networks_.ready
        with settled(self.threads) as torch, torch.no_grad():
            return self._inspect(networks, view)


def to_tensor(views: np.ndarray, network: Any) -> Any:
    """Return uint8 (n, h, w, 3) as float32 (n, 3, h, w) in 0..1, on the device of a network."""
    import torch

    device = next(network.parameters()).device
    return torch.from_numpy(np.array(views)).to(device).permute(0, 3, 1, 2).contiguous().float() / 255.0
