"""Codes of the normal images, prepared when they are learnt, so that a search need not prepare them.

In: a model folder with pyramids. Out: `Coded` images for `kernels.pruned`, and the axes that their codes were made with.
Kept in the model folder beside the pyramids, `N` images:
    codes           (N, bytes) uint8: each image's row, laid out as `kernels.codes` says
    code_checks     (N,) uint32: CRC-32 of each row, checked when the row is first read
    code_axes       (width + 3, C) float64: mean, principal axes, numbers: see `kernels.axes`
What the folder lacks (a model from before there were codes, another upsampling, another version) is made when it is needed and held.
The axes are learnt from the first LEARN_FROM images, or all where there are fewer. They stay valid for all later ones (any orthonormal
axes give true bounds) and are learnt again, and all images coded again, when later images lie outside them much more than the first did.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np

from spadework.checksums import crc32
from spadework.errors import ModelError
from spadework.kernels import pruned, thread_count
from spadework.kernels.axes import SAMPLE, Axes, from_rows, learn_axes
from spadework.kernels.codes import Layout, describe_at, encode, layout_of, mean_squares, to_row
from spadework.kernels.pruned import Coded
from spadework.kernels.team import Team, joined
from spadework.pyramid import Geometry
from spadework.storage import ModelFolder

Progress = Callable[[int, int], None]

ARRAYS = ("codes", "code_checks", "code_axes")
VERSION = 1
# Axes are learnt when so many images are there, or all are: of 60 tiles at the paper's settings axes of the first 16 were worn at 48 and all coded twice.
LEARN_FROM = 64
LEARNT_FROM = 32  # of them, at most, give the sample
WATCHED = 16  # the last so many images tell whether axes are worn
# Of mapped or made rows and records kept from one search to the next, for pictures alike share images. It counts as resident memory;
# a single search may need more (364 MiB at the paper's settings).
HELD_BYTES = 96 << 20
SHARED = 32 << 20  # bytes to be checked above which several threads do: of fewer they wait for each other's maps
WORN = 2.0  # axes are learnt again when the share outside them has grown so many times,
LEAST_REST = 1e-3  # and is more than this


class SearchIndex:
    """The codes of one gallery."""

    def __init__(self, folder: ModelFolder, geometry: Geometry, *, upsampling: str = "bilinear") -> None:
        self.folder, self.geometry = folder, geometry
        self.layout: Layout = layout_of(geometry.shapes, upsampling)
        self.axes: Axes | None = None
        self._held: dict[int, Coded] = {}
        self._maps: dict[str, np.ndarray] = {}
        self._lock = threading.RLock()
        self._checked: set[int] = set()
        self._announced: frozenset[int] = frozenset()  # the last that were
        if self.is_stored and self.folder.rows("code_axes"):
            self.axes = from_rows(np.array(self.folder.read("code_axes")))

    @staticmethod
    def declare(folder: ModelFolder, geometry: Geometry, upsampling: str) -> None:
        """Lay out the arrays of an index in a new folder."""
        layout = layout_of(geometry.shapes, upsampling)
        folder.header["gallery"]["codes"] = {
            "version": VERSION,
            "upsampling": upsampling,
            "seconds": 0.0,
            "learnt_at": 0,
        }
        folder.add_array("codes", "|u1", (int(layout.offsets[-1]),), checked=False)
        folder.add_array("code_checks", "<u4", ())
        folder.add_array("code_axes", "<f8", (layout.channels,))

    @property
    def is_stored(self) -> bool:
        """Whether the folder holds codes of this version and upsampling."""
        stored = self.folder.header["gallery"].get("codes")
        if stored is None or (stored["version"], stored["upsampling"]) != (VERSION, self.layout.upsampling):
            return False
        arrays = self.folder.header["arrays"]
        wide, channels = int(self.layout.offsets[-1]), self.layout.channels
        return bool(arrays["codes"]["row_shape"] == [wide] and arrays["code_axes"]["row_shape"] == [channels])

    def summary(self) -> dict[str, Any] | None:
        """Return its size in MiB, the seconds it took and how often its axes were renewed; None where nothing is stored."""
        if not self.is_stored:
            return None
        arrays = [self.folder.header["arrays"][name] for name in ARRAYS]
        size = sum(entry["rows"] * np.dtype(entry["dtype"]).itemsize * np.prod(entry["row_shape"]) for entry in arrays)
        stored = self.folder.header["gallery"]["codes"]
        return {
            "megabytes": round(float(size) / 2**20, 2),
            "seconds": round(stored["seconds"], 2),
            "renewed": stored.get("renewed", 0),
        }

    # ---- learning ----------------------------------------------------------------------------------------------------------

    def extend(self, *, least: int = 1, threads: int | None = None, progress: Progress | None = None) -> None:
        """Code the images that were appended since, if they are at least so many; learn the axes first if there are none.

        threads: of coding several; None for the environment's SPADEWORK_THREADS, or all cores. progress: called with (done, total).
        """
        with self._lock:
            if self.is_stored and self.folder.rows("pyramids") - self.folder.rows("codes") >= least:
                self._extend(thread_count(threads), progress or (lambda done, total: None))

    def _extend(self, threads: int, progress: Progress) -> None:
        started = time.perf_counter()
        first, count = self.folder.rows("codes"), self.folder.rows("pyramids")
        if not self.folder.rows("code_axes"):
            self._learn(count)
        progress(0, count - first)
        self._append(range(first, count), threads, progress)
        if first // WATCHED < count // WATCHED and self._is_worn(count):  # not after each image: looking takes time too
            self._renew(count, threads)
        self.folder.header["gallery"]["codes"]["seconds"] += round(time.perf_counter() - started, 3)

    @property
    def is_learnt(self) -> bool:
        """Whether the folder holds axes."""
        return self.is_stored and self.folder.rows("code_axes") > 0

    def _is_worn(self, count: int) -> bool:
        """Whether the last images lie outside the axes too much. Looked at when half as many again are there: renewing stays cheap."""
        learnt_at = self.folder.header["gallery"]["codes"]["learnt_at"]
        if count < max(learnt_at + WATCHED, 1.5 * learnt_at):
            return False
        assert self.axes is not None
        shares = []
        for row in self.folder.read("codes", count - WATCHED, count):
            whole, rest = mean_squares(row)
            shares.append(rest / whole if whole > 0 else 0.0)
        return float(np.mean(shares)) > max(LEAST_REST, WORN * self.axes.rest)

    def _learn(self, count: int) -> None:
        chosen = np.unique(np.linspace(0, count - 1, min(count, LEARNT_FROM)).astype(int))
        self.axes = self._axes_from(chosen, self.record)
        self._held, self._maps = {}, {}  # coded with other axes
        self.folder.replace("code_axes", self.axes.to_rows())
        self.folder.header["gallery"]["codes"]["learnt_at"] = count

    def _axes_from(self, images: Sequence[int] | np.ndarray, record: Callable[[int], np.ndarray]) -> Axes:
        """Axes from places drawn in these images."""
        rng = np.random.default_rng(0)
        each = min(self.layout.positions, -(-SAMPLE // len(images)))
        rows = []
        for image in images:
            places = rng.choice(self.layout.positions, each, replace=False)
            rows.append(describe_at(record(int(image)), self.layout, np.sort(places)))
        return learn_axes(np.concatenate(rows), self.layout)

    def _append(self, images: range, threads: int, progress: Progress) -> None:
        """Code images and write their rows, in order."""
        if len(images) == 1 or threads == 1:
            for done, image in enumerate(images, 1):
                self._write(self._row(self.record(image)))
                progress(done, len(images))
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="spadework-code") as pool:
            for start in range(0, len(images), 2 * threads):  # no more rows in memory than that
                part = images[start : start + 2 * threads]
                for row in pool.map(lambda image: self._row(self.record(image)), part):
                    self._write(row)
                progress(start + len(part), len(images))

    def _write(self, row: np.ndarray) -> None:
        self.folder.append("codes", row[None])
        self.folder.append("code_checks", np.array([crc32(row.data)], np.uint32))

    def _row(self, record: np.ndarray) -> np.ndarray:
        assert self.axes is not None
        return to_row(record, encode(record, self.layout, self.axes), self.layout, self.axes)

    def _renew(self, count: int, threads: int) -> None:
        """Learn the axes from all images and code all of them again, in new files."""
        codes = self.folder.header["gallery"]["codes"]
        self._learn(count)
        for name in ("codes", "code_checks"):
            entry = self.folder.header["arrays"][name]
            self.folder.add_array(name, entry["dtype"], tuple(entry["row_shape"]), checked=entry["crc32"] is not None)
        self._append(range(count), threads, lambda done, total: None)
        codes["renewed"] = codes.get("renewed", 0) + 1

    def record(self, image: int) -> np.ndarray:
        """Return an image's levels as stored, flat, float32; mapped where they are stored so."""
        return np.ascontiguousarray(self.folder.read("pyramids", image, image + 1)[0], np.float32)

    # ---- searching ---------------------------------------------------------------------------------------------------------

    def coded(
        self,
        images: Sequence[int],
        check: Callable[[int, np.ndarray], None],
        *,
        threads: int | None = None,
        team: Team | None = None,
    ) -> list[Coded]:
        """Return images, at least one, ready for a search. Several threads may ask.

        Args:
            images: their indices.
            check: raises ModelError where an image's flat record, as it is stored, is damaged. Several threads call it at once.
            threads: of checking what was not searched before; None for the environment's SPADEWORK_THREADS, or all cores.
            team: who checks, instead of `threads`.

        Raises:
            ModelError: a row is damaged.
        """
        with self._lock:
            if self.axes is None:
                self.axes = self._axes_from(list(images)[:LEARNT_FROM], self.record)
            new = self._not_held(images)
            self._announce([image for image in new if image not in self._announced])
            self._held.update(zip(new, self._made(new, check, thread_count(threads), team), strict=True))
            return [self._held[image] for image in images]

    def _not_held(self, images: Sequence[int]) -> list[int]:
        """Which of them must be read, each once; what is held is let go where it would become too much with them."""
        new = [image for image in dict.fromkeys(images) if image not in self._held]
        if new and self._held and (len(self._held) + len(new)) * self._image_bytes > HELD_BYTES:
            # All at once: rows are parts of one map each (two open files, whatever is held), which goes when nobody uses it.
            self._held, self._maps = {}, {}
            return list(dict.fromkeys(images))
        return new

    def bring(self, images: Sequence[int]) -> None:
        """Have images that `coded` is probably asked for next read and their pages mapped: for another thread, while it is being found which they are.

        Where they are in memory, mapping takes two thirds of the time of checking them. Not checked here, for that wants the interpreter's
        lock now and then: a search of 100,000 images was no faster by it, by mapping 3 of 13.5 ms.
        """
        if not self.is_stored or not pruned.is_usable() or not self._lock.acquire(blocking=False):
            return
        from spadework.kernels import sketches

        try:
            new = np.array(self._not_held(images), np.int64)
            maps = [self._map(name) for name in ("pyramids", "codes")]
        except ModelError:
            return  # told by `coded`
        finally:
            self._lock.release()
        absent = self._announce(new)
        self._announced = frozenset(new.tolist())
        new = np.setdiff1d(new, absent)  # for those the disk takes longer than all that follows
        for rows in maps:
            there = new[new < len(rows)]  # there may be fewer codes
            sketches.touch(rows.ctypes.data + rows.strides[0] * there, rows.strides[0])

    def _announce(self, images: Sequence[int] | np.ndarray) -> list[int]:
        """Have the disk deliver what is not in memory. Returns which images."""
        absent = self.folder.announce("pyramids", images)
        if absent and self.is_stored:
            self.folder.announce("codes", absent)
        return absent

    @property
    def _image_bytes(self) -> int:
        return int(self.layout.offsets[-1]) + 4 * self.geometry.length

    def _made(
        self, images: Sequence[int], check: Callable[[int, np.ndarray], None], threads: int, team: Team | None
    ) -> Iterable[Coded]:
        """Images read and checked: in several threads where much is to be checked."""
        made: dict[int, Coded] = {}

        def make(part: Sequence[int]) -> None:
            made.update((image, self._coded(int(image), check)) for image in part)

        unchecked = [image for image in images if image not in self._checked]
        if len(unchecked) * self._image_bytes < SHARED or threads == 1:
            make(images)
        else:
            with joined(team, threads) as sharing:
                sharing.share(lambda share: make(unchecked[share :: sharing.threads]))
            make([image for image in images if image not in made])
        return [made[image] for image in images]

    def _coded(self, image: int, check: Callable[[int, np.ndarray], None]) -> Coded:
        assert self.axes is not None
        stored = self._map("pyramids")[image]
        check(image, stored)
        own = np.ascontiguousarray(stored, np.float32)  # the very map, unless it is stored as float16
        row = self._stored_row(image)
        return Coded(own, self._row(own) if row is None else row, self.axes)

    def _map(self, name: str) -> np.ndarray:
        found = self._maps.get(name)  # another thread may let go of all maps now
        if found is None:
            # A plain view: to cut a row out of a `memmap` takes 20 times as long.
            found = self._maps[name] = self.folder.read(name).view(np.ndarray)
        return found

    def _stored_row(self, image: int) -> np.ndarray | None:
        """An image's stored row; None where there is none, or none any more."""
        if not self.is_stored or image >= self.folder.rows("codes"):
            return None
        try:
            row = self._map("codes")[image]
            check = self._map("code_checks")[image] if image not in self._checked else None
        except ModelError:
            return None  # another process has renewed the axes, and the codes with them: those of the axes held here are made anew
        if check is not None:
            if crc32(row) != int(check):
                where = f"{self.folder.path}: the search index of image {image}"
                raise ModelError(f"{where} is damaged (checksum differs). Restore the model or fit again.")
            self._checked.add(image)
        return cast("np.ndarray", row)

    def verify(self) -> None:
        """Check every stored row. Raises ModelError at the first damage."""
        with self._lock:
            self._checked.clear()
            for image in range(self.folder.rows("codes") if self.is_stored else 0):
                if self._stored_row(image) is None:
                    raise ModelError(
                        f"{self.folder.path}: its search index cannot be read. Load it again, or fit again."
                    )
