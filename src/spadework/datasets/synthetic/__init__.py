"""Rendered parts: photographs of things that do not exist, with defects whose place is known to the pixel.

Three categories that differ in kind: `weave` is a texture, `gear` one object at any rotation and nearly any position, `board` an
aligned assembly of parts. Every picture follows from (seed, category, split, index, size) alone, whatever else is rendered; the part, the camera,
the sensor's noise and the defect have streams of their own, so that the same index with and without a defect is the same part under the same light. A mask is
what the defect really changed: the difference of these two pictures before the sensor's noise.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from spadework.datasets import open_dataset
from spadework.datasets.sample import GOOD, Dataset
from spadework.datasets.synthetic import board, gear, weave
from spadework.datasets.synthetic.camera import add_noise, expose, set_up
from spadework.datasets.synthetic.scene import Flaw, Frame, Surface, look
from spadework.errors import InputError, OutputError

__all__ = ["CATEGORIES", "gear_pose", "render", "write_dataset"]

CATEGORIES: dict[str, tuple[str, ...]] = {"weave": weave.KINDS, "gear": gear.KINDS, "board": board.KINDS}
_PAINT = {"weave": weave.paint, "gear": gear.paint, "board": board.paint}
_SPLITS = ("train", "test")
_MARKER = ".rendered-by-spadework"  # hidden, so that readers of data sets pass it over
_PART, _CAMERA, _NOISE, _DEFECT = range(4)  # streams of randomness
_VISIBLE = 4.0  # grey levels; about twice the sensor's noise
_KIND_STRIDE = 100_000  # indices between kinds in `write_dataset`: no two of its pictures show the same part


def render(
    category: str,
    *,
    index: int,
    split: str = "train",
    defect: str | None = None,
    severity: float = 0.5,
    seed: int = 0,
    size: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
    """Render one picture.

    category: a key of `CATEGORIES`. index: which picture, 0 or more. defect: a kind of that category, or None for a good part.
    severity: from 0 (faint) to 1 (plain). size: pixels a side, 32 or more.

    Returns the picture, uint8 (size, size, 3) RGB, and the mask, bool (size, size), True where the defect changed the picture by
    more than 4 grey levels; never empty for a defect, all False without.

    Raises:
        InputError: an argument is out of its range.
    """
    _check(category, index, split, defect, severity, seed, size)
    key = _key(category, index, split, seed)
    frame = look(_stream(key, _PART), size)
    shot = set_up(_stream(key, _CAMERA))
    good = expose(_surface(category, frame, key, None), shot)
    if defect is None:
        return add_noise(good, shot, _stream(key, _NOISE)), np.zeros((size, size), dtype=bool)
    rng = np.random.default_rng([*key, _DEFECT, zlib.crc32(defect.encode())])
    bad = expose(_surface(category, frame, key, Flaw(defect, float(severity), rng)), shot)
    return add_noise(bad, shot, _stream(key, _NOISE)), _changed(good, bad)


def gear_pose(*, index: int, split: str = "train", seed: int = 0, size: int = 256) -> tuple[float, float, float]:
    """Tell how the gear lies in the picture that `render("gear", ...)` makes of the same arguments.

    Returns its centre x, y in shares of the scene's width, and how far it is turned, in degrees. 20 teeth and 6 holes: turned by 18 degrees the
    teeth, by 60 the holes look the same; only the keyway tells all 360.

    Raises:
        InputError: an argument is out of its range.
    """
    _check("gear", index, split, None, 0.0, seed, size)
    key = _key("gear", index, split, seed)
    frame = look(_stream(key, _PART), size)
    (x, y), turned = gear.lying(frame, np.random.default_rng([*key, _PART, 1]))
    return x, y, float(np.rad2deg(turned))


def write_dataset(
    root: str | os.PathLike[str],
    *,
    categories: Iterable[str] | None = None,
    n_train: int = 40,
    n_good: int = 10,
    n_per_defect: int = 3,
    size: int = 256,
    seed: int = 0,
) -> Dataset:
    """Write rendered categories into the folder `root` in MVTec AD layout, and open them.

    categories: names in `CATEGORIES`, all by default. n_train, n_good: good pictures for learning and for judging.
    n_per_defect: pictures of each kind, their severity evenly spread from faint to plain.
    A larger set begins with the same good pictures as a smaller one. An earlier rendering of a category is replaced, anything else refused.

    Raises:
        InputError: an unknown category, or a count below 1 (n_per_defect: below 0).
        OutputError: a file cannot be written, or a category's folder holds something else.
    """
    names = list(CATEGORIES) if categories is None else list(categories)
    for name, value, least in (("n_train", n_train, 1), ("n_good", n_good, 1), ("n_per_defect", n_per_defect, 0)):
        if value < least:
            raise InputError(f"{name} must be {least} or more, got {value}.")
    if not names:
        raise InputError(f"categories is empty; there are: {', '.join(CATEGORIES)}.")
    root = Path(root)
    for category in names:
        _check(category, 0, "train", None, 0.0, seed, size)
        _claim(root / category)
    for category in names:
        _write_category(root / category, category, n_train, n_good, n_per_defect, size, seed)
    return open_dataset(root, "mvtec")


def _claim(folder: Path) -> None:
    """Make a category's folder, or empty that of an earlier rendering; never write over somebody's own pictures."""
    try:
        if folder.exists() and not (folder / _MARKER).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder}: exists and was not rendered by Spadework. Choose another folder.")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / _MARKER).touch()
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}.") from error


def _write_category(
    folder: Path, category: str, n_train: int, n_good: int, n_per_defect: int, size: int, seed: int
) -> None:
    for split, count in (("train", n_train), ("test", n_good)):
        for index in range(count):
            picture, _ = render(category, index=index, split=split, seed=seed, size=size)
            _save(folder / split / GOOD / f"{index:03d}.png", picture)
    for number, kind in enumerate(CATEGORIES[category], start=1):
        for index, severity in enumerate(np.linspace(0, 1, n_per_defect) if n_per_defect > 1 else [0.5] * n_per_defect):
            at = number * _KIND_STRIDE + index
            picture, mask = render(
                category, index=at, split="test", defect=kind, severity=float(severity), seed=seed, size=size
            )
            _save(folder / "test" / kind / f"{index:03d}.png", picture)
            _save(folder / "ground_truth" / kind / f"{index:03d}_mask.png", mask.astype(np.uint8) * 255)


def _save(path: Path, picture: np.ndarray) -> None:
    """Write a PNG: (H, W, 3) RGB or (H, W)."""
    bgr = picture[..., ::-1] if picture.ndim == 3 else picture
    encoded = cv2.imencode(".png", np.ascontiguousarray(bgr))[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}.") from error


def _key(category: str, index: int, split: str, seed: int) -> tuple[int, ...]:
    return seed, zlib.crc32(category.encode()), _SPLITS.index(split), index


def _stream(key: tuple[int, ...], purpose: int) -> np.random.Generator:
    return np.random.default_rng([*key, purpose])


def _surface(category: str, frame: Frame, key: tuple[int, ...], flaw: Flaw | None) -> Surface:
    return _PAINT[category](frame, np.random.default_rng([*key, _PART, 1]), flaw)


def _changed(good: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Where two pictures (H, W, 3) differ visibly, as bool (H, W), with gaps of a pixel or two closed."""
    difference = np.abs(good - bad).max(axis=2)
    # a defect so faint that it stays below the bar is still somewhere: half its own peak is the bar then
    mask = difference > min(_VISIBLE, 0.5 * float(difference.max()))
    reach = max(round(good.shape[0] / 256), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, disc)
    return np.asarray(closed.astype(bool) & (difference > 1.0) | mask)


def _check(category: str, index: int, split: str, defect: str | None, severity: float, seed: int, size: int) -> None:
    if category not in CATEGORIES:
        raise InputError(f"category: there is no {category!r}; there are: {', '.join(CATEGORIES)}.")
    if defect is not None and defect not in CATEGORIES[category]:
        raise InputError(f"defect: {category} has no {defect!r}; it has: {', '.join(CATEGORIES[category])}.")
    if split not in _SPLITS:
        raise InputError(f"split must be train or test, got {split!r}.")
    if not 0.0 <= severity <= 1.0:
        raise InputError(f"severity must be from 0 to 1, got {severity}.")
    if index < 0 or seed < 0:
        raise InputError(f"index and seed must be 0 or more, got {index} and {seed}.")
    if size < 32:
        raise InputError(f"size must be 32 pixels or more, got {size}.")
