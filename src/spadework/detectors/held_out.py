"""Which normal pictures a method learns from and which set its threshold; thresholds from maps of pictures that were held out.

A method that learns from few pictures needs no folds: it learns from a random draw, and others, which it never saw, are scored by the very
model that is kept. They and a new normal picture are exchangeable, so the promise of `spadework.calibration` holds as it stands there.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable

import numpy as np

from spadework.detectors.base import Detector
from spadework.detectors.costs import HOLDING, LEARNING, THRESHOLD, Growth
from spadework.detectors.reading import Progress
from spadework.prediction import Judgement
from spadework.storage import ModelFolder

SHARE = 5  # one picture in so many is held out where none is to spare
FEWEST = 4  # pictures from which on any are held out: two to learn from, two for a threshold


class Draw:
    """A random draw of at most `most` pictures that depends on what they show and on the seed, not on the order they come in."""

    def __init__(self, most: int, *, seed: int) -> None:
        self.most, self.seed = most, seed
        self._drawn: list[tuple[str, np.ndarray]] = []

    def add(self, pixel_hash: str, picture: np.ndarray) -> None:
        """Offer a picture. Those stay whose keyed hashes are the smallest: each picture's is as good as a random number."""
        rank = hashlib.sha256(f"{self.seed} {pixel_hash}".encode()).hexdigest()
        bisect.insort(self._drawn, (rank, picture), key=lambda item: item[0])
        del self._drawn[self.most :]

    def deal(self, *, learn: int, hold: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the pictures to learn from, at most `learn`, and others, at most `hold`, to set the threshold.

        Those that need not be learnt from are held out, and a fifth (at least two) where none is to spare; none below four pictures.
        """
        pictures = [picture for _, picture in self._drawn]
        kept, held = dealt(len(pictures), learn=learn, hold=hold)
        return pictures[:kept], pictures[kept : kept + held]


def dealt(count: int, *, learn: int, hold: int) -> tuple[int, int]:
    """Return how many of so many pictures `Draw.deal` gives to learn from, and how many to hold out."""
    drawn = min(count, learn + hold)
    spare = max(drawn - learn, drawn // SHARE, 2)
    held = min(hold, spare) if drawn >= FEWEST else 0
    return min(learn, drawn - held), held


class HeldOut(Detector):
    """Base of detectors whose threshold comes from maps of normal pictures that their model did not learn from."""

    calibration_images: int

    def _hold(
        self,
        folder: ModelFolder,
        maps: Iterable[np.ndarray],
        grid: tuple[int, int],
        count: int,
        *,
        sizes: np.ndarray | None = None,
    ) -> None:
        """Keep maps (H, W) of so many held-out pictures in the model, and the pictures' sizes (n, 2) where views are padded."""
        folder.add_array("held_out", "<f4", grid)
        self._tell(HOLDING, 0, count)
        for done, distances in enumerate(maps, 1):
            folder.append("held_out", distances[None])
            self._tell(HOLDING, done, count)
        if sizes is not None:
            folder.replace("held_out_sizes", sizes)

    def _open(self, folder: ModelFolder) -> None:
        self.held_out_ = folder.read("held_out")
        self.held_out_sizes_ = (
            np.array(folder.read("held_out_sizes")) if "held_out_sizes" in folder.header["arrays"] else None
        )

    def _stages(self, count: int) -> dict[str, Growth]:
        own = {LEARNING: Growth(1), HOLDING: Growth(self._calibrating(count))}
        return super()._stages(count) | own

    def _normal_scores(self, progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
        """Image scores and map peaks of the pictures that were held out when the model was made."""
        if progress:
            progress(THRESHOLD, 0, len(self.held_out_))
        scores, peaks = [], []
        for place, distances in enumerate(self.held_out_):
            size = None if self.held_out_sizes_ is None else self.held_out_sizes_[place].tolist()
            score, small = self._scores(Judgement(np.asarray(distances)), size)
            assert small is not None  # these methods always have a map
            scores.append(score)
            peaks.append(float(small.max()))
            if progress:
                progress(THRESHOLD, len(scores), len(self.held_out_))
        return np.array(scores, np.float64), np.array(peaks, np.float64)
