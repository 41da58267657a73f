"""Small makers for the tests: pictures, pyramids, galleries, a fitted model. Everything follows from the arguments alone."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np

from spadework.detectors.spade import Spade
from spadework.gallery import Gallery
from spadework.pyramid import Pyramid
from spadework.storage import ModelFolder

TINY = {"image_size": 64, "gallery_k": 5, "calibration_images": 5, "grid_stride": 8}  # an everyday Spade, but quick
SHAPES = ((4, 5, 3), (2, 3, 2), (1, 2, 4))  # of a pyramid: not square, and not whole multiples of each other


def rng_of(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def normal_picture(index: int = 0, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Stripes with a little noise: uint8 (H, W, 3)."""
    rng = rng_of("picture", index, size)
    y, x = np.mgrid[: size[0], : size[1]]
    stripes = 110 + 40 * np.sin((x + 0.3 * y) / 4 + rng.uniform(-0.3, 0.3))
    picture = stripes[..., None] * [1.0, 0.9, 0.7] + rng.normal(0, 4, (*size, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def normal_pictures(n: int, size: tuple[int, int] = (64, 64), *, start: int = 0) -> list[np.ndarray]:
    return [normal_picture(index, size) for index in range(start, start + n)]


def defective_picture(
    index: int = 99, size: tuple[int, int] = (64, 64), *, colour: tuple[int, int, int] = (250, 30, 240)
) -> tuple[np.ndarray, np.ndarray]:
    """A normal picture with a bright square off its centre, and the mask of it."""
    picture, mask = normal_picture(index, size), np.zeros(size, bool)
    top, left, side = size[0] // 8, size[1] * 5 // 8, min(size) // 4
    mask[top : top + side, left : left + side] = True
    picture[mask] = colour
    return picture, mask


def write_pictures(folder: Path, pictures: list[np.ndarray], *, prefix: str = "") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{prefix}{index:03d}.png" for index in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        assert cv2.imwrite(str(path), picture[..., ::-1])
    return paths


def make_pyramid(index: int, shapes=SHAPES, dimension: int = 6) -> Pyramid:
    rng = rng_of("pyramid", index, shapes)
    levels = tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)
    return Pyramid(levels, rng.normal(size=dimension).astype(np.float32))


def make_gallery(path: Path, n: int, *, shapes=SHAPES, storage: str = "float32", thumbnail_side: int = 16) -> Gallery:
    """A gallery of `make_pyramid(0..n-1)` with `normal_picture`s, committed."""
    folder = ModelFolder.create(path, {"detector": "spade"})
    gallery = Gallery.create(folder, make_pyramid(0, shapes), storage=storage, thumbnail_side=thumbnail_side)
    append_to(gallery, range(n), shapes=shapes)
    folder.commit()
    gallery.refresh()
    return gallery


def append_to(gallery: Gallery, indices, *, shapes=SHAPES) -> None:
    for index in indices:
        gallery.append(make_pyramid(index, shapes), name=f"part {index}", image=normal_picture(index, (20, 30)))


def tiny_model(n: int = 6, **changes) -> Spade:
    return Spade(**{**TINY, **changes}).fit(normal_pictures(n))


def answers(model, pictures: list[np.ndarray] | None = None) -> list[bytes]:
    """What a model says, to the byte: scores and maps of some pictures."""
    pictures = [normal_picture(50), defective_picture()[0]] if pictures is None else pictures
    return [np.float64(p.score).tobytes() + p.score_map.tobytes() for p in model.predict(pictures)]


def leftovers(folder: Path) -> list[str]:
    """Names of files and folders of work in progress below a folder."""
    return sorted(path.name for path in folder.rglob("*") if path.name.endswith(".tmp"))


def append_parts_of(gallery: Gallery, indices) -> None:
    """Append pyramids as a whole: lock, rows, commit."""
    with gallery.folder.writing():
        append_to(gallery, indices)
        gallery.folder.commit()
    gallery.refresh()


def mvtec_category(root: Path, name: str, *, train: int = 3, good: int = 1, bad: int = 2, size: int = 48) -> Path:
    """A category in MVTec AD layout, with masks."""
    shape = (size, size)
    write_pictures(root / name / "train" / "good", normal_pictures(train, shape))
    write_pictures(root / name / "test" / "good", normal_pictures(good, shape, start=40))
    pictures, masks = zip(*(defective_picture(60 + index, shape) for index in range(bad)), strict=True)
    write_pictures(root / name / "test" / "spot", list(pictures))
    for index, mask in enumerate(masks):
        path = root / name / "ground_truth" / "spot" / f"{index:03d}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), mask.astype(np.uint8) * 255)
    return root / name
