"""A network in an ONNX file: uint8 pictures in, level maps and one global vector a picture out.

In: `(n, H, W, 3)` uint8 RGB. Out: for each level `l` a `(n, C_l, H_l, W_l)` float32 map, finest first, and a `(n, D)`
float32 global vector. Inference is ONNX Runtime on the CPU.

What a file states about itself stands in its metadata, each value as JSON (`spadework.mean`, `spadework.std`,
`spadework.strides`, `spadework.channels`, `spadework.global_dim`). What it does not state is found by running one
picture; a normalisation that is not stated is taken to be ImageNet's, and `Backbone.notes` says so.
Source of the levels and of the global vector: Cohen and Hoshen 2020, sections 3.1 and 3.4.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from spadework import check
from spadework.backbones import apart
from spadework.backbones.pieces import measure_reach
from spadework.errors import BackboneError, InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_GLOBAL = "global"
# The bytes of an external tensor in an ONNX file: field 13 of TensorProto, an entry with the key "location".
_EXTERNAL, _LOCATION = b"\x6a", b"\x0a\x08location\x12"
# A multiple of 14, 16 and 32, so that every common stride divides it.
_PROBE_SIZE = 224
# Forward passes under way at once, each with all threads. One alone leaves cores idle wherever the runtime's threads wait for each other, and
# while what came out of it is worked on. `fit` over its passes alone, two cores, medians: 1.36 / 1.31 / 1.28 / 1.29 with one, two, three,
# four (embedded network), 1.36 / 1.44 / 1.29 / 1.31 (Wide-ResNet-50-2).
PASSES = 3
FEW_CORES = 4  # more passes at once than that would need much memory
MANY_PICTURES = 64  # to open the session that makes them quicker takes five passes
_OFFER = "A backbone takes one float32 input (n, 3, H, W) and offers 4-D level maps; see docs/backbones.md"

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class _Layout:
    """Which outputs are the levels (finest first) and the global vector, and what shape they have."""

    levels: tuple[str, ...]
    global_name: str | None  # None: the mean over the deepest level
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    global_dim: int


class Backbone:
    """A network that turns pictures into level maps and global vectors.

    Each picture runs alone. The runtime chooses how it splits a convolution by the shape it is given, so only a fixed
    shape promises the same bytes for a picture whatever stands beside it in a batch; it also keeps the memory of one
    forward pass. Batches of 8 would save 2 to 3 % of the time (two cores: embedded at 256 x 256 6.9 against 6.7 ms a
    picture, Wide-ResNet-50-2 at 224 x 224 64 against 63 ms).

    Attributes:
        name: what `open_backbone` was asked for; goes into every model and every result.
        path: the ONNX file.
        hash: SHA-256 of the file's bytes, hexadecimal.
        strides: pixels of the picture per cell of each level, finest first.
        channels: `C_l` of each level.
        global_dim: `D`, length of the global vector.
        mean, std: normalisation of RGB in 0..1 that the network expects.
        multiple: heights and widths must be multiples of this (the least common multiple of the strides).
        fixed_size: the one `(H, W)` that the file takes, or None for any.
        threads: of one forward pass; 0 for the runtime's choice, one a physical core.
        notes: what had to be assumed about the file, in sentences.

    Raises:
        BackboneError: the file is missing, empty, not ONNX, or does not offer what a backbone must.
    """

    def __init__(
        self, path: Path | str, *, name: str | None = None, threads: int | None = None, sha256: str | None = None
    ) -> None:
        self.path = Path(path)
        self.name = str(path) if name is None else name
        self.hash = _hash_alone(self.path) if sha256 is None else sha256
        self.threads = check.thread_count(threads) or 0  # 0 leaves it to the runtime: one a physical core
        self._session = _session_of(self.path, self.threads)
        self._single: onnxruntime.InferenceSession | None = (
            None  # of one thread, for several passes at once, where it agrees
        )
        self._has_tried = False
        self._batches = 0  # calls of `several` under way, for several pictures,
        self._many = 0  # and for many
        self._lock = threading.Lock()
        stated: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._input, self.fixed_size = _check_input(self._session, self.path)
        self.mean, self.std, self.notes = _normalisation(stated, self.path)
        self._scale, self._shift = _affine(self.mean, self.std)
        self._layout = self._find_layout(stated)
        self.strides = self._layout.strides
        self.channels = self._layout.channels
        self.global_dim = self._layout.global_dim
        self.multiple = math.lcm(*self.strides)

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}, strides={self.strides}, channels={self.channels}, hash={self.hash[:12]!r})"

    def __call__(self, images: NDArray[np.uint8]) -> tuple[list[Float32], Float32]:
        """Run the network.

        Args:
            images: `(n, H, W, 3)` uint8 RGB; `H` and `W` multiples of `multiple`; `n` may be 0.

        Returns:
            The levels, `(n, C_l, H_l, W_l)` float32 each, finest first, and the global vectors `(n, D)` float32.

        Raises:
            InputError: `images` has another type or shape.
        """
        self._check_images(images)
        count, height, width = images.shape[:3]
        levels = [
            np.empty((count, c, height // s, width // s), np.float32)
            for c, s in zip(self.channels, self.strides, strict=True)
        ]
        vectors = np.empty((count, self.global_dim), np.float32)
        for row, image in enumerate(images):
            maps, vectors[row] = self._run(image)
            for level, values in zip(levels, maps, strict=True):
                level[row] = self._fitting(values, level.shape[1:])
        return levels, vectors

    @contextmanager
    def several(self, pictures: int) -> Iterator[int]:
        """While so many pictures are worked on: yields how many passes to have under way at once.

        Threads of one pass wait for each other. Where cores are few and pictures many, passes of one thread each, side by side, take less:
        on two cores 18 ms a picture instead of 19 to 21 (embedded network), 106 to 111 instead of 111 (Wide-ResNet-50-2), and 121 where two
        threads work on each of three passes. They need a session of their own, as large as the network, which is kept from then on.
        """
        with self._lock:
            self._batches += pictures > 1
        try:
            with self._side_by_side(pictures) as passes:
                yield passes
        finally:
            with self._lock:
                self._batches -= pictures > 1

    @contextmanager
    def _side_by_side(self, pictures: int) -> Iterator[int]:
        cores = self.threads or os.cpu_count() or 1
        if not (1 < cores <= FEW_CORES and pictures >= MANY_PICTURES):
            yield 1 if cores == 1 else PASSES
            return
        with self._lock:
            if not self._has_tried:
                single = _session_of(self.path, 1)
                pair = _agreeing.setdefault(self._session, WeakKeyDictionary())
                if single not in pair:
                    pair[single] = self._agrees(single)
                self._single, self._has_tried = single if pair[single] else None, True
            self._many += 1
        try:
            yield PASSES if self._single is None else cores + 1
        finally:
            with self._lock:
                self._many -= 1

    def _agrees(self, session: onnxruntime.InferenceSession) -> bool:
        """Whether a session gives the very bytes that the backbone's own gives, for one picture of noise."""
        size = self.fixed_size or (-(-_PROBE_SIZE // self.multiple) * self.multiple,) * 2
        image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
        names, last = self._layout.levels, self._layout.global_name
        pairs = zip(self._outputs(image, names, last), self._outputs(image, names, last, session), strict=True)
        return all(np.array_equal(one, other, equal_nan=True) for one, other in pairs)

    @cached_property
    def reach(self) -> int | None:
        """How many pixels beyond its own cell a feature may depend on; None without bound, or where the size is fixed. Measured when first asked for."""
        return measure_reach(self)

    def levels_of(self, image: NDArray[np.uint8]) -> list[Float32]:
        """Return the levels `(C_l, H_l, W_l)` of one picture `(H, W, 3)`, without its global vector."""
        self._check_images(image[None])
        shapes = [
            (c, image.shape[0] // s, image.shape[1] // s) for c, s in zip(self.channels, self.strides, strict=True)
        ]
        maps = self._outputs(image, self._layout.levels, None)
        return [self._fitting(values, shape) for values, shape in zip(maps, shapes, strict=True)]

    def _run(self, image: NDArray[np.uint8]) -> tuple[list[Float32], Float32]:
        """Levels `(C_l, H_l, W_l)` and the global vector `(D,)` of one picture `(H, W, 3)`."""
        outputs = self._outputs(image, self._layout.levels, self._layout.global_name)
        maps = outputs[: len(self._layout.levels)]
        vector = maps[-1].mean(axis=(1, 2)) if self._layout.global_name is None else outputs[-1]
        return maps, self._fitting(vector, (self.global_dim,))

    def _outputs(
        self,
        image: NDArray[np.uint8],
        names: tuple[str, ...],
        last: str | None,
        session: onnxruntime.InferenceSession | None = None,
    ) -> list[Float32]:
        batch = np.empty((1, 3, *image.shape[:2]), np.float32)
        batch[0] = image.transpose(2, 0, 1)  # channel by channel from here on: a seventh of the time of (H, W, 3)
        batch *= self._scale[:, None, None]
        batch += self._shift[:, None, None]
        wanted = [*names, last] if last is not None else list(names)
        session = session or (self._single if self._many else None) or self._session
        if not self._batches:  # of several passes at once each would send the others about
            apart.stand_apart(_workers.get(session, ()))
        try:
            results = session.run(wanted, {self._input: batch})
        except Exception as error:  # the runtime's errors share no base of their own
            size = f"{image.shape[0]} x {image.shape[1]}"
            raise BackboneError(f"{self.path}: the network fails on a picture of {size}: {error}") from error
        return [np.atleast_1d(np.asarray(result, np.float32))[0] for result in results]

    def _fitting(self, values: Float32, shape: tuple[int, ...]) -> Float32:
        if values.shape != shape:
            raise BackboneError(
                f"{self.path}: an output has shape {values.shape} where the file's own strides and channels make "
                f"it {shape}; correct its spadework.* metadata or remove it"
            )
        return values

    def _check_images(self, images: NDArray[np.uint8]) -> None:
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            came = getattr(images, "dtype", type(images).__name__)
            raise InputError(f"images must be a uint8 array, not {came}; spadework.images converts pictures")
        if images.ndim != 4 or images.shape[3] != 3:
            raise InputError(f"images must have shape (n, H, W, 3), not {images.shape}")
        self.check_size(*images.shape[1:3])

    def check_size(self, height: int, width: int) -> None:
        """Raise InputError for a size of pictures, in pixels, that the network does not take."""
        if self.fixed_size is not None and (height, width) != self.fixed_size:
            fixed = f"{self.fixed_size[0]} x {self.fixed_size[1]}"
            raise InputError(f"{self.name} takes pictures of {fixed} only, not {height} x {width}: resize them")
        if min(height, width) < self.multiple or height % self.multiple or width % self.multiple:
            near = " x ".join(str(max(1, round(side / self.multiple)) * self.multiple) for side in (height, width))
            raise InputError(
                f"{self.name} takes heights and widths that are multiples of {self.multiple}, "
                f"not {height} x {width}: resize to {near}"
            )

    def _find_layout(self, stated: Mapping[str, str]) -> _Layout:
        names = [output.name for output in self._session.get_outputs() if output.type == "tensor(float)"]
        levels = tuple(f"level{i}" for i in range(1, len(names) + 1) if f"level{i}" in names)
        keys = [f"spadework.{key}" for key in ("strides", "channels", "global_dim")]
        if not all(key in stated for key in keys) or not levels or _GLOBAL not in names:
            return self._probe(names, levels)
        strides, channels = (tuple(_json_numbers(stated, key, self.path)) for key in keys[:2])
        global_dim = _json_numbers(stated, keys[2], self.path)[0]
        if not len(levels) == len(strides) == len(channels) or min(strides) < 1:
            raise BackboneError(
                f"{self.path}: {len(levels)} levels but spadework.strides {strides} and spadework.channels {channels}; "
                "correct the metadata or remove it"
            )
        return _Layout(levels, _GLOBAL, _integers(strides), _integers(channels), int(global_dim))

    def _probe(self, names: list[str], levels: tuple[str, ...]) -> _Layout:
        """Run one gray picture and read strides and channels from what comes out."""
        height, width = self.fixed_size or (_PROBE_SIZE, _PROBE_SIZE)
        gray = np.full((height, width, 3), 128, np.uint8)
        found = dict(zip(names, self._outputs(gray, tuple(names), None), strict=True))
        if not levels:
            maps = [name for name in names if found[name].ndim == 3 and found[name].shape[1:] != (1, 1)]
            levels = tuple(sorted(maps, key=lambda name: -found[name].shape[1]))
        shapes = [found[name].shape for name in levels]
        if not levels or any(len(shape) != 3 for shape in shapes):
            seen = ", ".join(f"{name} {(1, *values.shape)}" for name, values in found.items())
            raise BackboneError(f"{self.path} has no float32 4-D output to take as a level: {seen or 'none'}. {_OFFER}")
        strides = tuple(self._stride(name, found[name], (height, width)) for name in levels)
        vector = _global_output(found, self.path)
        dim = shapes[-1][0] if vector is None else found[vector].shape[0]
        return _Layout(levels, vector, strides, tuple(shape[0] for shape in shapes), dim)

    def _stride(self, name: str, values: Float32, size: tuple[int, int]) -> int:
        rows, columns = (int(side) for side in values.shape[1:])
        stride = size[0] // rows
        if (rows * stride, columns * stride) != size:
            raise BackboneError(
                f"{self.path}: output {name} has a grid of {rows} x {columns} for a picture of {size[0]} x {size[1]}; "
                "a level needs one whole stride in both directions (padded convolutions give that)"
            )
        return stride


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal. Raises BackboneError for a file that cannot be read or is empty."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise BackboneError(f"{path} is empty: copy or export the file again")
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise BackboneError(f"{path} {reason}; give the path of an ONNX or weights file") from error


def _hash_alone(path: Path) -> str:
    """SHA-256 of an ONNX file, which must hold all its weights: those in a file beside it would not be in the hash."""
    found = file_hash(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(_LOCATION)
        # TensorProto.external_data: its tag and a length of one or two bytes come before the entry.
        if at >= 0 and _EXTERNAL in content[max(0, at - 3) : at]:
            raise BackboneError(
                f"{path} keeps its weights in another file, so that its hash says nothing about them; save it as one "
                "file (torch.onnx.export(..., external_data=False), or onnx.save(onnx.load(FILE), NEW))"
            )
    return found


_sessions: WeakValueDictionary[tuple[Any, ...], onnxruntime.InferenceSession] = WeakValueDictionary()
_agreeing: WeakKeyDictionary[Any, WeakKeyDictionary[Any, bool]] = WeakKeyDictionary()  # pairs of sessions
_workers: WeakKeyDictionary[Any, tuple[int, ...]] = WeakKeyDictionary()  # a session's own threads, where there are few
_opening = threading.Lock()


def _session_of(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session on a file that some backbone has open already, or a new one.

    Sessions keep nothing between runs, and several threads may run one. To open Wide-ResNet-50-2 takes half a second and 600 MB.
    """
    try:
        found = path.stat()
    except OSError:
        return _open_session(path, threads)
    key = (path.resolve(), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, threads, os.getpid())
    with _opening:
        session = _sessions.get(key)
        if session is None:
            session = _sessions[key] = _open_session(path, threads)
        return session


def _open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong comes back as an exception; nothing is printed beside it
    # Threads that spin after a forward pass take the cores from the search that follows it: a BLAS product took 66 ms
    # with spinning and 43 ms without (two cores), against 7.4 instead of 6.8 ms for the forward pass itself. With two passes
    # under way at once a picture takes 7.7 ms with spinning and 6.3 ms without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    before = apart.threads_here()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors share no base of their own
        raise BackboneError(f"{path} is not an ONNX network that can run here: {error}. {_OFFER}") from error
    begun = apart.threads_here() - before
    _workers[session] = (
        tuple(begun) if 0 < len(begun) < FEW_CORES else ()
    )  # with more, one of the others sleeps nearly always
    return session


def _check_input(session: onnxruntime.InferenceSession, path: Path) -> tuple[str, tuple[int, int] | None]:
    """Name of the only input, and its size where the file fixes it."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise BackboneError(f"{path} has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}). {_OFFER}")
    shape, kind = list(inputs[0].shape), inputs[0].type
    fits = len(shape) == 4 and kind == "tensor(float)" and _free_or(shape[0], 1) and _free_or(shape[1], 3)
    if not fits:
        raise BackboneError(f"{path}: its input {inputs[0].name} is {kind} {shape}. {_OFFER}, n free or 1")
    height, width = (side if isinstance(side, int) else None for side in shape[2:])
    if height is None and width is None:
        return inputs[0].name, None
    return inputs[0].name, (height or _PROBE_SIZE, width or _PROBE_SIZE)


def _free_or(side: int | str | None, value: int) -> bool:
    return not isinstance(side, int) or side == value


def _global_output(found: Mapping[str, Float32], path: Path) -> str | None:
    """The output named global, else the only 2-D one; None: there is none."""
    flat = [name for name, values in found.items() if values.ndim == 1]
    if _GLOBAL in flat:
        return _GLOBAL
    if len(flat) > 1:
        raise BackboneError(f"{path} has several 2-D outputs ({', '.join(flat)}); name the one to use 'global'")
    return flat[0] if flat else None


def _normalisation(
    stated: Mapping[str, str], path: Path
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """Mean and standard deviation of RGB in 0..1, and what was assumed."""
    keys = ("spadework.mean", "spadework.std")
    if not any(key in stated for key in keys):
        note = f"{path.name} does not state its normalisation: ImageNet's mean and standard deviation are assumed"
        return IMAGENET_MEAN, IMAGENET_STD, (note,)
    mean, std = (tuple(map(float, _json_numbers(stated, key, path))) for key in keys)
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise BackboneError(f"{path}: spadework.mean {mean} and spadework.std {std} must be 3 numbers, std above 0")
    return mean, std, ()


def _affine(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Float32, Float32]:
    """`(x / 255 - mean) / std` as `x * scale + shift`, (3,) each."""
    deviation = np.asarray(std, np.float64)
    scale = 1.0 / (255.0 * deviation)
    shift = -np.asarray(mean, np.float64) / deviation
    return scale.astype(np.float32), shift.astype(np.float32)


def _integers(values: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _json_numbers(stated: Mapping[str, str], key: str, path: Path) -> list[float]:
    """A metadata value as a list of finite numbers; one number is a list of one."""
    text = stated.get(key, "null")
    try:
        value: Any = json.loads(text)
    except ValueError:
        value = None
    numbers = value if isinstance(value, list) else [value]
    good = all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    if not numbers or not good:
        raise BackboneError(f"{path}: metadata {key} must be a JSON list of numbers, not {text!r}; correct it")
    return numbers
