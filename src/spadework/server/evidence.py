"""Evidence: the map of an inspection and what each place was matched with, in one file, for later, when the model may be another.

In: a `Prediction` and the detector that made it. Out: bytes, the same for the same prediction; from them alone the map at picture size and the
match of any pixel, as `Prediction.score_map` and `Spade.explain` gave them.

The file is a NumPy .npz, no pickle:
    about            uint8: JSON: version, size [H, W] of the picture, view {resize, crop}, smoothing, wide_smoothing, grid [gh, gw], and names, hashes
                     (`pixel_hash`) and sizes of the matched normal pictures
    distances        float32 (gh, gw), of which the map is made by `scores.smooth_map`; or
    view_map         float32 (h, w), the map itself, where a detector tells no distances or the map is not exactly that of them
    match_image      uint16 (mh, mw), into names and hashes; there only if the detector tells matches
    match_y, match_x uint16 (mh, mw), the place in the normal picture's grid, which has the same size
    match_distance   float32 (mh, mw), squared
Distances take a sixty-fourth of the room of the map that is made of them, at the everyday settings.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spadework import check
from spadework.correspondence import Correspondence
from spadework.detectors.base import Detector
from spadework.detectors.explaining import grid_place, patch_box
from spadework.errors import InputError
from spadework.images import View
from spadework.prediction import Prediction
from spadework.scores import smooth_map, to_picture
from spadework.server.database import HistoryError

VERSION = 2  # of what has a wide_smoothing, which who reads up to 1 would leave out; the rest is of version 1
MATCH = ("match_image", "match_y", "match_x", "match_distance")


class DamagedEvidenceError(HistoryError):
    """A file of evidence cannot be read."""


@dataclass(frozen=True)
class Match:
    """The normal place that a place of a picture was compared with.

    y, x: the place, in the picture's pixels. box: (y0, x0, y1, x1) around it.
    name, pixel_hash, size: of the normal picture, (H, W) in its pixels. normal_box: the matched place in it.
    distance: squared, of the two descriptors.
    """

    y: int
    x: int
    box: tuple[int, int, int, int]
    name: str
    pixel_hash: str
    size: tuple[int, int]
    normal_box: tuple[int, int, int, int]
    distance: float


@dataclass(frozen=True)
class Evidence:
    """What an inspection can show for its verdict.

    size: (H, W) of the picture. view: what the network saw of it. view_map: float32 (h, w), the map there.
    names, hashes, sizes: of the normal pictures that were matched. matches: the arrays of `MATCH` by name; none if the detector tells none.
    grid: (gh, gw), the places that have a match. distances, smoothing: what `view_map` is made of, where it is.
    """

    size: tuple[int, int]
    view: View
    view_map: np.ndarray
    names: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    matches: dict[str, np.ndarray] | None = None
    grid: tuple[int, int] | None = None
    distances: np.ndarray | None = None
    smoothing: float = 0.0
    wide_smoothing: float | None = None

    @classmethod
    def of(cls, prediction: Prediction, detector: Detector) -> Evidence | None:
        """Return the evidence of a prediction; None where the detector gives no map.

        Args:
            prediction: as `predict` gave it.
            detector: which gave it; where it was changed since, the matches are others'.
        """
        if prediction.view_map is None or prediction.view is None:
            return None
        found, smoothing = prediction.correspondence, float(detector.smoothing)
        wide = None if detector.wide_smoothing is None else float(detector.wide_smoothing)
        told = cls(prediction.size, prediction.view, prediction.view_map, smoothing=smoothing, wide_smoothing=wide)
        return told if found is None else told._matched(found, detector)

    def _matched(self, found: Correspondence, detector: Detector) -> Evidence:
        gallery: Any = vars(detector)["gallery_"]  # whoever tells a correspondence has one
        used, match_image = np.unique(found.images, return_inverse=True)
        entries = [gallery.entries[int(image)] for image in used]
        height, width = found.images.shape
        distances = found.distances.astype(np.float32)
        again = _map(distances, self.view, self.size, self.smoothing, self.wide_smoothing)
        same = np.array_equal(again, self.view_map)
        return Evidence(
            self.size,
            self.view,
            self.view_map,
            names=tuple(entry.name for entry in entries),
            hashes=tuple(entry.sha256 for entry in entries),
            sizes=tuple(entry.size for entry in entries),
            matches={
                "match_image": match_image.reshape(height, width).astype(np.uint16),
                "match_y": (found.positions // width).astype(np.uint16),
                "match_x": (found.positions % width).astype(np.uint16),
                "match_distance": found.nearest.astype(np.float32),
            },
            grid=(distances.shape[0], distances.shape[1]),
            distances=distances if same else None,
            smoothing=self.smoothing,
            wide_smoothing=self.wide_smoothing,
        )

    # ---- to bytes and back -------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        about = {
            "version": 1 if self.wide_smoothing is None else VERSION,
            "size": list(self.size),
            "view": {
                "resize": list(self.view.resize),
                "crop": self.view.crop,
                "pad": self.view.pad,
                "step": self.view.step,
            },
            "smoothing": self.smoothing,
            "wide_smoothing": self.wide_smoothing,
            "grid": self.grid,
            "names": self.names,
            "hashes": self.hashes,
            "sizes": self.sizes,
        }
        arrays = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8), **(self.matches or {})}
        if self.distances is not None:
            arrays["distances"] = self.distances
        else:
            arrays["view_map"] = self.view_map
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, array in arrays.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
                entry = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date: the same content is to have the same hash
                archive.writestr(entry, content.getbuffer(), zipfile.ZIP_DEFLATED, compresslevel=1)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Evidence:
        """Read the content of a file.

        Raises:
            DamagedEvidenceError: it is damaged, or a newer Spadework wrote it.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(arrays["about"].tobytes())
            if about["version"] > VERSION:
                raise DamagedEvidenceError(
                    f"the evidence is of version {about['version']}, this Spadework reads up to {VERSION}. Upgrade it."
                )
            return cls._read(about, arrays)
        except HistoryError:
            raise
        except Exception as error:  # a damaged archive makes its readers raise anything
            raise DamagedEvidenceError(f"the evidence is damaged: {error}. Inspect the picture again.") from error

    @classmethod
    def _read(cls, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> Evidence:
        crop = about["view"]["crop"]
        pad = bool(about["view"].get("pad", False))  # evidence from before there was a canvas does not tell
        view = View(
            tuple(about["view"]["resize"]),
            None if crop is None else (crop[0], crop[1]),
            pad,
            int(about["view"].get("step", 1)),
        )
        distances, smoothing = arrays.get("distances"), float(about["smoothing"])
        wide = about.get("wide_smoothing")  # older evidence has none
        size = (about["size"][0], about["size"][1])
        return cls(
            size=size,
            view=view,
            view_map=arrays["view_map"] if distances is None else _map(distances, view, size, smoothing, wide),
            names=tuple(about["names"]),
            hashes=tuple(about["hashes"]),
            sizes=tuple((height, width) for height, width in about["sizes"]),
            matches={name: arrays[name] for name in MATCH} if MATCH[0] in arrays else None,
            grid=None if about["grid"] is None else (about["grid"][0], about["grid"][1]),
            distances=distances,
            smoothing=smoothing,
            wide_smoothing=wide,
        )

    @classmethod
    def read(cls, path: Path) -> Evidence | None:
        """Read a file; None if it is gone. Raises DamagedEvidenceError as `from_bytes`."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        return cls.from_bytes(data)

    # ---- what it shows -----------------------------------------------------------------------------------------------------

    def score_map(self) -> np.ndarray:
        """Return the map at the picture's size: float32 (H, W), NaN where nothing was inspected."""
        return to_picture(self.view_map, self.view, self.size)

    def match(self, y: int, x: int, *, patch: int = 48) -> Match:
        """Return the normal place that a pixel was compared with; as `Spade.explain`.

        Args:
            y, x: the place, in the picture's pixels.
            patch: side of the boxes, in pixels of the network's view.

        Raises:
            InputError: the place lies outside the picture or its inspected part, or the detector tells no matches.
        """
        y, x = (
            check.whole(y, "y", least=-(10**9)),
            check.whole(x, "x", least=-(10**9)),
        )  # where they may lie is told below
        if self.matches is None or self.grid is None:
            raise InputError("this detector does not tell which normal place a place was compared with; SPADE does.")
        gy, gx = grid_place(y, x, self.size, self.view.box(self.size), self.grid)
        height, width = self.matches["match_image"].shape
        gy, gx = gy * height // self.grid[0], gx * width // self.grid[1]
        image, my, mx, distance = (self.matches[name][gy, gx] for name in MATCH)
        return Match(
            y=y,
            x=x,
            box=patch_box(gy, gx, (height, width), self.view, self.size, patch),
            name=self.names[image],
            pixel_hash=self.hashes[image],
            size=self.sizes[image],
            normal_box=patch_box(int(my), int(mx), (height, width), self.view, self.sizes[image], patch),
            distance=float(distance),
        )


def _map(distances: np.ndarray, view: View, size: tuple[int, int], smoothing: float, wide: float | None) -> np.ndarray:
    """The smoothed map of the view, as a detector makes it."""
    return smooth_map(distances, view.size, sigma=smoothing, wide=wide, part=view.part(size) if view.pad else None)
