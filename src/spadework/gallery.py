"""The memory of normal images: append, retrieve, read, forget nothing.

In: pyramids with a name and the picture they came from. Out: the nearest images of a global vector, and descriptors of chosen images.
Of a large view (tiling.py) each of its `T` tiles has a row of its own: then row `r` of what is searched is tile `r % T` of image `r // T`.
Kept in a model folder (storage.py), `N` images:
    pyramids          (N, length) float32 or float16: each image's level maps, flat, finest first, channels last
    pyramid_checks    (N,) uint32: CRC-32 of each row of `pyramids`, checked when the row is first read
    globals           (N, D) float32: global vectors
    thumbnails        (bytes,) uint8: JPEG pictures one after another
    tile_vectors      (N * T, C) float32: the mean of each tile's coarsest level; with tiles, where `pyramids` and the like have N * T rows too
    codes, ...        prepared for the search: see search_index.py
    entries           (bytes,) uint8: one JSON line an image: name, size [H, W], thumbnail [start, end, CRC-32], sha256 of shape and pixels
Everything is mapped while it is used and let go, so memory does not grow with the number of inspections, and with N only by the few
bytes an image that say where its entry ends, whether its row was checked, and, among many, roughly where its global vector lies (retrieval.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

import cv2
import numpy as np

from spadework.checksums import crc32
from spadework.entries import Entries
from spadework.errors import InputError, ModelError
from spadework.images import pixel_hash, shrink
from spadework.kernels.axes import Axes
from spadework.kernels.codes import Layout
from spadework.kernels.pruned import Coded, Query, code_query
from spadework.kernels.team import Team
from spadework.pyramid import Geometry, Pyramid, descriptors
from spadework.retrieval import Likely, Retrieval
from spadework.search_index import LEARN_FROM, Progress, SearchIndex
from spadework.storage import ModelFolder
from spadework.tiling import Tiling

STORAGE_TYPES = {"float32": "<f4", "float16": "<f2"}
FLOAT16_MAX = 65504.0
HASH_DIGITS = 8  # of a pixel hash, at least, to name a picture by


class Gallery:
    """The normal images of a fitted model, in its folder."""

    def __init__(self, folder: ModelFolder) -> None:
        self.folder = folder
        stored = folder.header["gallery"]
        self.geometry = Geometry(tuple((h, w, c) for h, w, c in stored["shapes"]))
        self.thumbnail_side = int(stored["thumbnail_side"])
        self.tiling = Tiling.from_json(stored["tiles"]) if "tiles" in stored else None
        self.tiles = 1 if self.tiling is None else len(self.tiling)
        self._retrieval = Retrieval(partial(folder.read, "globals"), pick=partial(folder.pick, "globals"))
        self._tile_retrieval = Retrieval(
            partial(folder.read, "tile_vectors"), pick=partial(folder.pick, "tile_vectors")
        )
        self._load()

    @classmethod
    def create(
        cls,
        folder: ModelFolder,
        first: Pyramid,
        *,
        storage: str = "float32",
        thumbnail_side: int = 320,
        codes: str | None = "bilinear",
        tiling: Tiling | None = None,
    ) -> Gallery:
        """Lay out an empty gallery for pyramids shaped like `first`, with a search index for this upsampling, or with none."""
        tiled = tiling is not None and len(tiling) > 1
        levels = tiling.cut(first.levels)[0].levels if tiling is not None else first.levels
        shapes = [list(level.shape) for level in levels]
        folder.header["gallery"] = {"shapes": shapes, "thumbnail_side": thumbnail_side}
        if tiling is not None and tiled:
            folder.header["gallery"]["tiles"] = tiling.to_json()
            folder.add_array("tile_vectors", "<f4", (shapes[-1][2],))
        geometry = Geometry(tuple((h, w, c) for h, w, c in shapes))
        folder.add_array("pyramids", STORAGE_TYPES[storage], (geometry.length,), checked=False)
        folder.add_array("pyramid_checks", "<u4", ())
        folder.add_array("globals", "<f4", first.global_vector.shape)
        folder.add_array("thumbnails", "|u1", (), checked=False)
        folder.add_array("entries", "|u1", ())
        if codes is not None:
            SearchIndex.declare(folder, geometry, codes)
        return cls(folder)

    def _load(self) -> None:
        self._indices: dict[str, SearchIndex] = {}
        self._checks = np.array(self.folder.read("pyramid_checks"))
        rows, copy = self.folder.rows("entries"), partial(self.folder.copy, "entries")
        self.entries = Entries(partial(self.folder.read, "entries"), rows, copy=copy)
        self._checked = np.zeros(len(self._checks), bool)
        codes = self.folder.header["gallery"].get("codes")
        if codes is not None:
            self.index(codes["upsampling"])  # its axes are read now: another process may replace them later
        self._retrieval.resize(self.folder.rows("globals"))
        if self.tiling is not None:
            self._tile_retrieval.resize(self.folder.rows("tile_vectors"))
        whole, parts = {self._retrieval.rows, len(self.entries)}, {self.folder.rows("pyramids"), len(self._checks)}
        parts |= set() if self.tiling is None else {self._tile_retrieval.rows}
        counts = whole | {rows / self.tiles for rows in parts}
        if len(counts) != 1:
            raise ModelError(
                f"{self.folder.path}: its arrays count different numbers of images {sorted(counts)}. Fit again."
            )

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def globals(self) -> np.ndarray:
        """The global vectors, float32 (N, D), mapped as long as they are held."""
        return self.folder.read("globals", 0, len(self))

    def append(
        self,
        pyramid: Pyramid,
        *,
        name: str,
        image: np.ndarray,
        sha256: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Add one image; it counts when the folder is next committed (then call `refresh`).

        Args:
            pyramid: its features, of the gallery's shapes.
            name: what explanations call it.
            image: the picture, uint8 (H, W, 3) RGB; a thumbnail of it is kept.
            sha256: its `pixel_hash`, where it is known already.
            threads: of preparing for the search what waits for it; None for the environment's SPADEWORK_THREADS, or all cores.
        """
        tiles = [pyramid] if self.tiling is None else self.tiling.cut(pyramid.levels)
        records = [self._as_stored(self.geometry.pack(tile.levels), name) for tile in tiles]
        thumbnail = _encode(shrink(image, self.thumbnail_side))
        start = self.folder.rows("thumbnails")
        kept = (start, start + len(thumbnail), crc32(thumbnail.tobytes()))
        line = _line(name, image.shape[:2], kept, sha256 or pixel_hash(image))
        for tile, record in zip(tiles, records, strict=True):
            self.folder.append("pyramids", record[None])
            self.folder.append("pyramid_checks", np.array([crc32(record.data)], np.uint32))
            if self.tiling is not None:
                self.folder.append("tile_vectors", tile.global_vector[None])
        self.folder.append("globals", pyramid.global_vector[None])
        self.folder.append("thumbnails", thumbnail)
        self.folder.append("entries", np.frombuffer(line, np.uint8))
        self._extend_index(least=None, threads=threads)

    def complete(self, *, threads: int | None = None, progress: Progress | None = None) -> None:
        """Prepare for the search what was appended; to be called before the folder is committed.

        threads: as in `append`. progress: called with (done, total) images.
        """
        self._extend_index(least=1, threads=threads, progress=progress)

    def find(self, pictures: Iterable[str]) -> list[int]:
        """Return the images of these names or pixel hashes, ascending, each once.

        Args:
            pictures: exact names, or hashes: their first HASH_DIGITS digits or more.

        Raises:
            InputError: one of them is not there, or stands for several images; or none were given.
        """
        wanted: dict[str, list[int]] = {picture: [] for picture in pictures}
        if not wanted:
            raise InputError("pictures is empty: pass at least one name or hash of a normal picture.")
        hashes = [picture for picture in wanted if len(picture) >= HASH_DIGITS]
        for image, entry in enumerate(self.entries):
            if entry.name in wanted:
                wanted[entry.name].append(image)
            for start in hashes:
                if start != entry.name and entry.sha256.startswith(start.lower()):
                    wanted[start].append(image)
        for picture, found in wanted.items():
            if not found:
                raise InputError(
                    f"{picture}: is no normal picture of {self.folder.path}. Give its name as `explain` tells it, "
                    f"or its hash ({HASH_DIGITS} digits or more)."
                )
            if len(found) > 1:
                which = ", ".join(self.entries[image].sha256[:16] for image in found[:5])
                raise InputError(
                    f"{picture}: names {len(found)} normal pictures of {self.folder.path}; give a hash: {which}."
                )
        return sorted({image for found in wanted.values() for image in found})

    def remove(self, images: Sequence[int]) -> None:
        """Leave images out; it counts when the folder is next committed. This gallery then no longer fits its folder: open a new one.

        What stays keeps its order. It is copied to new files piece by piece, so it takes room on disk for a second copy, but little
        memory. The axes of the search index stay, for any axes give true bounds.
        """
        gone, old, folder = set(images), self.entries, self.folder
        stays = [image not in gone for image in range(len(self))]
        runs = _merged((image, image + 1) for image, kept in enumerate(stays) if kept)
        folder.keep("globals", runs)
        runs = [(start * self.tiles, stop * self.tiles) for start, stop in runs]
        for name in ("pyramids", "pyramid_checks", *(() if self.tiling is None else ("tile_vectors",))):
            folder.keep(name, runs)
        codes = folder.header["gallery"].get("codes")
        if codes is not None:
            coded = folder.rows("codes")
            for name in ("codes", "code_checks"):
                folder.keep(name, [(start, min(stop, coded)) for start, stop in runs if start < coded])
            codes["learnt_at"] = min(codes["learnt_at"], sum(stays) * self.tiles)
        folder.keep("thumbnails", _merged(entry.thumbnail[:2] for entry, kept in zip(old, stays, strict=True) if kept))
        lines, place = bytearray(), 0
        for entry, kept in zip(old, stays, strict=True):
            if kept:
                start, end, check = entry.thumbnail
                lines += _line(entry.name, entry.size, (place, place + end - start, check), entry.sha256)
                place += end - start
        folder.replace("entries", np.frombuffer(lines, np.uint8))

    def index_summary(self) -> dict[str, Any] | None:
        """Return the size and time of the stored search index; None where there is none."""
        codes = self.folder.header["gallery"].get("codes")
        return None if codes is None else self.index(codes["upsampling"]).summary()

    def _extend_index(self, *, least: int | None, threads: int | None, progress: Progress | None = None) -> None:
        codes = self.folder.header["gallery"].get("codes")
        if codes is not None:
            index = self.index(codes["upsampling"])
            # Once there are axes each image is coded at once: the network works meanwhile.
            tiles = self.tiles
            told = None if progress is None else lambda done, total: progress(done // tiles, total // tiles)
            index.extend(least=least or (1 if index.is_learnt else LEARN_FROM), threads=threads, progress=told)

    def index(self, upsampling: str) -> SearchIndex:
        """Return the search index for an upsampling: the stored one, or one that is made as it is needed."""
        if upsampling not in self._indices:
            self._indices[upsampling] = SearchIndex(self.folder, self.geometry, upsampling=upsampling)
        return self._indices[upsampling]

    def _as_stored(self, record: np.ndarray, name: str) -> np.ndarray:
        dtype = np.dtype(self.folder.header["arrays"]["pyramids"]["dtype"])
        if dtype.itemsize == 2 and float(np.abs(record).max()) > FLOAT16_MAX:
            raise ModelError(
                f"{name}: its features exceed float16's range ({FLOAT16_MAX:g}). Fit with storage='float32'."
            )
        return record.astype(dtype, copy=False)

    def refresh(self) -> None:
        """Take up what was appended and committed."""
        self._load()

    def nearest_images(
        self, global_vector: np.ndarray, k: int, *, exclude: int | slice | None = None, likely: Likely | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the `k` images whose global vectors lie nearest, all if there are fewer.

        Args:
            global_vector: float32 (D,).
            k: how many, at least 1.
            exclude: an image to leave out, for leave-one-out scores, or images from start to stop.
            likely: as in `Retrieval.nearest`.

        Returns:
            Indices int64 (k,) and squared Euclidean distances float64 (k,), nearest first, ties to the lower index.

        Source: Cohen and Hoshen 2020, section 3.2.
        """
        return self._retrieval.nearest(global_vector, k, exclude=exclude, likely=likely)

    def nearest_tiles(
        self, vector: np.ndarray, k: int, *, exclude: int | slice | None = None, place: int | None = None
    ) -> np.ndarray:
        """Return the rows, int64 (k,), of the `k` tiles of any image whose vectors lie nearest, nearest first; all if there are fewer.

        Args:
            vector: the mean of a tile's coarsest level, float32 (C,).
            k: how many, at least 1.
            exclude: an image whose tiles are left out, or images from start to stop.
            place: which tile of each image to choose among; None for all of them.
        """
        if isinstance(exclude, int):
            exclude = slice(exclude, exclude + 1)
        if place is not None:
            images = np.delete(np.arange(len(self)), exclude or slice(0, 0))
            vectors = self.folder.read("tile_vectors")[place :: self.tiles][images].astype(np.float64)
            return images[np.argsort(((vectors - vector) ** 2).sum(axis=1), kind="stable")[:k]] * self.tiles + place
        gone = None if exclude is None else slice(exclude.start * self.tiles, exclude.stop * self.tiles)
        return self._tile_retrieval.nearest(vector, k, exclude=gone)[0]

    def image_of(self, row: int) -> int:
        """Return which image a row of what is searched belongs to."""
        return row // self.tiles

    def pyramid(self, image: int) -> Pyramid:
        """Return one image's pyramid as stored, or without levels where it is kept in tiles: see `tile_pyramids`."""
        levels = self.levels(image) if self.tiling is None else ()
        return Pyramid(levels, np.asarray(self.folder.read("globals", image, image + 1)[0]))

    def tile_pyramids(self, image: int) -> list[Pyramid]:
        """Return what is stored of each tile of an image."""
        first = image * self.tiles
        vectors = self.folder.read("tile_vectors", first, first + self.tiles)
        return [Pyramid(self.levels(first + tile), np.asarray(vectors[tile])) for tile in range(self.tiles)]

    def coded(
        self, images: Sequence[int], *, upsampling: str, threads: int | None = None, team: Team | None = None
    ) -> tuple[list[Coded], Layout, Axes]:
        """Return images, or tiles by their rows, ready for `kernels.pruned.search`, their layout and axes.

        threads, team: as there, for those not searched before.

        Raises:
            ModelError: a row is damaged.
        """
        index = self.index(upsampling)
        coded = index.coded(images, self._check, threads=threads, team=team)
        return coded, index.layout, coded[0].axes

    def code_query(self, levels: Sequence[np.ndarray], *, upsampling: str) -> Query | None:
        """Code an image's levels for `kernels.pruned.search`, in one thread; None where the gallery has no axes yet."""
        index = self.index(upsampling)
        if index.axes is None:
            return None
        return code_query(np.ascontiguousarray(self.geometry.pack(levels), np.float32), index.layout, index.axes)

    def bring(self, images: Sequence[int], *, upsampling: str) -> None:
        """Have images read that are probably searched next: see `SearchIndex.bring`."""
        self.index(upsampling).bring(images)

    @property
    def is_vast(self) -> bool:
        """Whether to find the nearest images takes so long that a core had better do something else meanwhile."""
        return self._retrieval.takes_long

    def levels(self, image: int) -> tuple[np.ndarray, ...]:
        """Return one image's or tile's level maps as stored, mapped; checked against damage at the first reading.

        Raises:
            ModelError: the row is damaged.
        """
        return self.geometry.unpack(self.record(image))

    def record(self, image: int) -> np.ndarray:
        """Return one image's or tile's level maps as one flat row, as stored, mapped; checked against damage at the first reading.

        Raises:
            ModelError: the row is damaged.
        """
        record: Any = self.folder.read("pyramids", image, image + 1)[0]
        self._check(image, record)
        return cast("np.ndarray", record)

    def _check(self, image: int, record: Any) -> None:
        if not self._checked[image]:
            if crc32(record) != self._checks[image]:
                own = self.image_of(image)
                where = f"{self.folder.path}: the features of image {own} ({self.entries[own].name})"
                raise ModelError(f"{where} are damaged (checksum differs). Restore the model or fit again.")
            self._checked[image] = True

    def descriptors(self, images: Sequence[int], *, upsampling: str) -> np.ndarray:
        """Return the joint descriptors of these images, one after another: float32 (len(images) * H * W, C)."""
        height, width = self.geometry.grid
        out = np.empty((len(images), height * width, self.geometry.channels), np.float32)
        for place, image in enumerate(images):
            out[place] = descriptors(self.levels(image), upsampling=upsampling)
        return out.reshape(-1, self.geometry.channels)

    def thumbnail(self, image: int) -> np.ndarray:
        """Return the kept picture of a normal image, uint8 (h, w, 3) RGB, its longer side at most `thumbnail_side`."""
        start, end, check = self.entries[image].thumbnail
        data = np.array(self.folder.read("thumbnails", start, end))
        if crc32(data.tobytes()) != check:
            raise ModelError(f"{self.folder.path}: the thumbnail of image {image} is damaged (checksum differs).")
        return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))

    def verify(self) -> None:
        """Read everything and check every checksum. Raises ModelError at the first damage."""
        self._checked[:] = False
        for row in range(len(self) * self.tiles):
            self.levels(row)
        for image in range(len(self)):
            self.thumbnail(image)
        codes = self.folder.header["gallery"].get("codes")
        if codes is not None:
            self.index(codes["upsampling"]).verify()


def _line(name: str, size: Sequence[int], thumbnail: tuple[int, int, int], sha256: str) -> bytes:
    entry = {"name": name, "size": list(size), "thumbnail": list(thumbnail), "sha256": sha256}
    return json.dumps(entry).encode() + b"\n"


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges (start, stop), those that follow each other made one."""
    merged: list[tuple[int, int]] = []
    for start, stop in ranges:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged


def _encode(image: np.ndarray) -> np.ndarray:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return data.reshape(-1)
