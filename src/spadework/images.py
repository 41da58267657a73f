"""Pictures in: files and arrays to uint8 RGB; the network's view of a picture, and the way back.

In: paths (or folders of them) and arrays: (H, W) gray, (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; uint8, uint16, bool, or float in 0..1.
Out: uint8 (H, W, 3) RGB, C-contiguous, as the picture is meant to be seen (EXIF orientation honoured).

Pillow decodes, because it refuses what is truncated (OpenCV fills the missing part with gray and says nothing), tells size and
frames before a pixel is decoded, and knows CMYK and palettes. OpenCV decodes what has 16 bits, which Pillow cuts to 8, and resizes.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from spadework.errors import ImageError, InputError
from spadework.orientation import ORIENTATION, is_turned, upright

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MAX_PIXELS = (
    178_000_000  # 534 MB as RGB; a larger picture is refused before it is decoded, as Pillow does a little above
)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # never those that Pillow hands to other programs, such as EPS
SIZE_RULE = f"pictures may have up to {MAX_PIXELS // 10**6} million pixels. Cut it into parts or scale it down"

Picture = str | os.PathLike[str] | np.ndarray


class _Quiet:
    """Keeps Pillow's warnings back: our own limit of pixels stands, and a broken EXIF block is no reason to refuse a picture.

    Filters of warnings are the whole process's, and pictures are read in several threads: the first to come sets the filter, the last to go
    takes it back. If each did so for itself, one that leaves later would put back what another had set, for good.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._kept = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._kept = warnings.catch_warnings()
                self._kept.__enter__()
                warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
                warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._kept.__exit__(None, None, None)


QUIET = _Quiet()


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3) RGB, in the orientation in which it is meant to be seen.

    16-bit pictures are scaled (65535 becomes 255), transparency is laid over black, CMYK and palettes are converted.

    Raises:
        ImageError: the file is missing, unreadable, no picture, truncated, animated or larger than MAX_PIXELS.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would keep us waiting
            raise ImageError(f"{path}: is not a file.", path)
        with QUIET:
            return _read(path)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: {_why_not_a_picture(path)}", path) from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be read as a picture: {error.strerror or error}.", path) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: has too many pixels; {SIZE_RULE}.", path) from error
    except (
        Exception
    ) as error:  # a damaged file makes decoders raise anything: TypeError, struct.error, SyntaxError, ...
        raise ImageError(f"{path}: cannot be read as a picture: {error}.", path) from error


def _read(path: Path) -> np.ndarray:
    with Image.open(path, formats=FORMATS) as picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"{path}: has {width} x {height} pixels; {SIZE_RULE}.", path)
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":  # a telephone's JPEG: the further ones are previews of the first
            raise ImageError(f"{path}: holds {frames} frames; save the one to inspect as a picture.", path)
        if _has_16_bits(picture):
            picture.load()  # strict about truncation; the pixels come from OpenCV
            _check_whole(path, picture)
            return _read_16_bits(path, 1 if picture.format == "TIFF" else picture.getexif().get(ORIENTATION, 1))
        picture.load()
        _check_whole(path, picture)
        ImageOps.exif_transpose(picture, in_place=True)  # as a copy it takes a sixth of the time of decoding
        if "A" in picture.getbands() or "transparency" in picture.info:
            ground = Image.new("RGBA", picture.size, (0, 0, 0, 255))
            return np.asarray(Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB"))
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _check_whole(path: Path, picture: Image.Image) -> None:
    """Raise ImageError for a PNG with fewer pixels than it says: Pillow leaves the rest at 0 and says nothing, if only the stream ends well.

    Whole files pay nothing: only where the last row is all 0 is the stream read once more, to count what it holds.
    """
    if picture.format != "PNG" or picture.crop((0, picture.height - 1, picture.width, picture.height)).getbbox():
        return
    content, place, found, expected = path.read_bytes(), 8, 0, 0
    inflater = zlib.decompressobj()
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        data = content[place + 8 : place + 8 + length]
        place += 12 + length
        if kind == b"IHDR":
            expected = _png_bytes(*struct.unpack(">IIBBBBB", data))
        while kind == b"IDAT" and data and not inflater.eof:
            found += len(inflater.decompress(data, 1 << 20))
            data = inflater.unconsumed_tail
    found += len(inflater.flush())
    if found < expected:
        raise ImageError(f"{path}: ends too early: {found} of {expected} bytes of pixels. Copy or save it again.", path)


def _png_bytes(width: int, height: int, depth: int, colour: int, _: int, __: int, interlace: int) -> int:
    """How many bytes a PNG's pixels take before they are compressed: rows with a byte in front, of one pass or of Adam7's seven."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    starts = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in starts]
    return sum(h * (1 + -(-w * bits // 8)) for w, h in (passes if interlace else [(width, height)]) if w > 0 and h > 0)


def _has_16_bits(picture: Image.Image) -> bool:
    if picture.mode in {"I", "F"} or picture.mode.startswith("I;16"):
        return True
    bits = getattr(picture, "tag_v2", {}).get(258, (8,)) if picture.format == "TIFF" else (8,)
    tiles = getattr(picture, "tile", ())
    raw = tiles[0][3] if tiles else ""  # Pillow's raw mode names 16 bits, e.g. RGB;16B
    raw = raw[0] if isinstance(raw, tuple) else raw
    return max(bits) > 8 or ";16" in str(raw)


def _read_16_bits(path: Path, orientation: int) -> np.ndarray:
    """OpenCV turns a TIFF upright by itself; `orientation` is what is left to do."""
    data = np.fromfile(path, np.uint8)
    array = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ImageError(f"{path}: its pixel format is not supported. Save it as PNG, TIFF or JPEG.", path)
    if array.ndim == 3:
        array = cv2.cvtColor(array, cv2.COLOR_BGRA2RGBA if array.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    try:
        return upright(as_rgb(array, name=str(path)), orientation)
    except ImageError as error:
        raise ImageError(str(error), path) from error


def _why_not_a_picture(path: Path) -> str:
    if path.stat().st_size == 0:
        return "is empty (0 bytes)."
    return f"is not a picture in a known format, whatever its name says ({', '.join(sorted(IMAGE_SUFFIXES))})."


def as_rgb(array: np.ndarray, *, name: str = "image") -> np.ndarray:
    """Return an array as uint8 (H, W, 3) RGB; the input is never changed.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA; uint8, uint16 (65535 is white), bool, or float in 0..1.
        name: what messages call it.

    Raises:
        ImageError: another shape or type, no pixels, NaN, or floats outside 0..1.
    """
    if not isinstance(array, np.ndarray):
        raise ImageError(f"{name} must be a path or a NumPy array, not {type(array).__name__}.")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{name} must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {array.shape}.")
    if array.size == 0:
        raise ImageError(f"{name} has no pixels: its shape is {array.shape}.")
    pixels = _as_uint8(array, name)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.ascontiguousarray(np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2))
    if pixels.shape[2] == 4:  # over black
        alpha = pixels[..., 3:].astype(np.uint16)
        return ((pixels[..., :3] * alpha + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _as_uint8(array: np.ndarray, name: str) -> np.ndarray:
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype.kind != "f":
        raise ImageError(f"{name} must be uint8, uint16, bool or float in 0..1, not {array.dtype}.")
    if not np.isfinite(array).all():
        raise ImageError(f"{name} holds NaN or infinite values. Replace them before inspection.")
    low, high = float(array.min()), float(array.max())
    if low < 0.0 or high > 1.0:
        raise ImageError(
            f"{name} is float and must lie in 0..1, but runs from {low:g} to {high:g}. Scale it or pass uint8."
        )
    return np.rint(array * 255.0).astype(np.uint8)


def find_images(path: str | os.PathLike[str]) -> list[Path]:
    """List the pictures of a folder and its subfolders by exact suffix, sorted; a file stands for itself.

    Hidden files and folders are left out, and so are Spadework's own models.

    Raises:
        InputError: the path does not exist, cannot be read, or holds no picture.
    """
    root = Path(path)
    try:
        if not root.exists():
            raise InputError(f"{root}: does not exist. Check the spelling; relative paths start at {Path.cwd()}.")
        if root.is_file():
            return [root]
        if not root.is_dir():
            raise InputError(f"{root}: is neither a file nor a folder.")
        found = sorted(_walk(root, frozenset()))
    except OSError as error:
        raise InputError(f"{root}: cannot be listed: {error.strerror}. Check the path and its permissions.") from error
    if not found:
        raise InputError(
            f"{root}: no pictures found. Looked for {', '.join(sorted(IMAGE_SUFFIXES))} in it and below it."
        )
    return found


def _walk(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """Linked folders are followed, but never back to one `above`: its pictures would come again and again."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                if not entry.name.endswith(".spade"):
                    yield from _walk(Path(entry.path), above | {real})
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


class Listed(tuple[Path, ...]):
    """Paths of pictures that were found already: one that has gone since is a failure of its own, not of the whole list."""


def gather(images: Picture | Iterable[Picture]) -> list[Picture]:
    """List what a caller passed as images: a folder becomes its pictures; a path or an array stays one; lists are flattened once.

    An (N, H, W, 3) or (N, H, W, 4) array is N images. A path that is named as a picture stands for itself also where there
    is none: reading it says so, and those who go on past bad pictures go on past it.

    Raises:
        InputError: nothing at all was passed, or something that is neither a path nor an array.
    """
    if isinstance(images, (str, os.PathLike)) or (isinstance(images, np.ndarray) and images.ndim != 4):
        images = [images]
    elif isinstance(images, Listed):
        return list(images)
    if not isinstance(images, Iterable):
        raise InputError(f"images must be paths, folders or arrays, not {type(images).__name__}.")
    found: list[Picture] = []
    for item in images:
        if isinstance(item, (str, os.PathLike)):
            found.extend([Path(item)] if _is_named_as_picture(item) else find_images(item))
        elif isinstance(item, np.ndarray):
            found.append(item)
        else:
            raise InputError(f"images must be paths, folders or arrays, not {type(item).__name__}.")
    if not found:
        raise InputError("images is empty: pass at least one picture, path or folder.")
    return found


def _is_named_as_picture(path: str | os.PathLike[str]) -> bool:
    suffix = os.path.splitext(path)[1].lower()
    return suffix in IMAGE_SUFFIXES and not os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises for names too long


def load(picture: Picture, *, name: str = "image") -> np.ndarray:
    """Return one picture, whatever it came as, as uint8 (H, W, 3) RGB."""
    return as_rgb(picture, name=name) if isinstance(picture, np.ndarray) else read_image(picture)


def picture_size(picture: Picture) -> tuple[int, int] | None:
    """Return (height, width) of a picture as it is meant to be seen, from its file's header alone; None where that cannot be read."""
    if isinstance(picture, np.ndarray):
        return (picture.shape[0], picture.shape[1]) if picture.ndim in (2, 3) and picture.size else None
    try:
        if not Path(picture).is_file():  # a pipe would keep us waiting
            return None
        with (
            QUIET,
            Image.open(picture, formats=FORMATS) as opened,
        ):  # whatever is wrong is said when the picture is read
            width, height = opened.size
            return (width, height) if is_turned(opened, Path(picture)) else (height, width)
    except Exception:  # as in `read_image`, which tells it
        return None


def pixel_hash(image: np.ndarray) -> str:
    """SHA-256 of a picture's shape and pixels, hexadecimal: equal for equal pictures, whatever file they came from."""
    content = hashlib.sha256(repr(image.shape).encode())
    content.update(np.ascontiguousarray(image).data)
    return content.hexdigest()


@dataclass(frozen=True)
class View:
    """What the network sees of a picture: the whole, resized to `resize`, then cut to its centre `crop`, or padded.

    resize: (height, width) in pixels, or one int in a 1-tuple for "the shorter side, aspect kept" as the paper's protocol has it.
    crop: (height, width), or None for all of it.
    pad: `resize` is a canvas: the picture, its aspect kept, is made as large as fits.
    step: of a canvas. 1: the picture's edges are repeated around it, in pixels. Else sides and places of pictures within the canvas are multiples of
        it, so that a network whose coarsest stride it is can see the picture alone: its edge then looks like any other picture's edge,
        and what it gives is padded.
    """

    resize: tuple[int, ...]
    crop: tuple[int, int] | None = None
    pad: bool = False
    step: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what the network sees."""
        return self.crop if self.crop is not None else (self.resize[0], self.resize[-1])

    def resized(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the size of a picture of `shape` after resizing, before the crop or without the padding."""
        if self.pad:
            scale = min(self.resize[0] / shape[0], self.resize[-1] / shape[1])
            height, width = (
                max(1, min(round(own * scale / self.step), most // self.step)) * self.step
                for own, most in zip(shape, self.size, strict=False)
            )
            return height, width
        if len(self.resize) == 2:
            return self.resize[0], self.resize[1]
        height, width = shape[:2]
        side = self.resize[0]
        if height <= width:
            return side, max(side, int(side * width / height))
        return max(side, int(side * height / width)), side

    def box(self, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
        """Return the part of a picture of `shape` that is seen: (y0, x0, y1, x1) in its own pixels; padding lies outside the picture."""
        height, width = self.resized(shape)
        top, left = self._corner(height, width)
        sy, sx = shape[0] / height, shape[1] / width
        return top * sy, left * sx, (top + self.size[0]) * sy, (left + self.size[1]) * sx

    def part(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return where the view shows a picture of `shape`: rows and columns; all of them without padding."""
        if not self.pad:
            return slice(0, self.size[0]), slice(0, self.size[1])
        return self.place(self.resized(shape))

    def place(self, seen: tuple[int, ...]) -> tuple[slice, slice]:
        """Return where a picture of size `seen` lies on the canvas: rows and columns."""
        top, left = self._corner(seen[0], seen[1])
        return slice(-top, seen[0] - top), slice(-left, seen[1] - left)

    def cells(self, shape: tuple[int, ...], grid: tuple[int, int]) -> tuple[slice, slice]:
        """Return the rows and columns of a grid over the view whose centres show a picture of `shape`; at least one of each."""
        return cells(self.part(shape), self.size, grid)

    def see(self, image: np.ndarray) -> np.ndarray:
        """Return what the network sees: uint8 (h, w, 3), smaller than the canvas for a picture that its edges are not repeated around.

        Area averaging when shrinking (no aliasing), bilinear when growing.

        Raises:
            ImageError: the picture is so long that, its aspect kept, it would exceed MAX_PIXELS.
        """
        height, width = self.resized(image.shape)
        if height * width > MAX_PIXELS:
            came = f"{image.shape[0]} x {image.shape[1]} pixels"
            raise ImageError(
                f"a picture of {came} is too long to keep its aspect: leave out crop, or cut it into parts."
            )
        found = _resize(image, height, width)
        return self._padded(found) if self.pad and self.step == 1 else self._cut(found)

    def see_mask(self, mask: np.ndarray) -> np.ndarray:
        """Return a (H, W) mask through the same view, without padding, by nearest neighbour: bool (h, w)."""
        height, width = self.resized(mask.shape)
        return self._cut(cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)) > 0

    def back(self, seen: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Bring a float32 (h, w) map of the view, without padding, to the picture's own (H, W); NaN where nothing was inspected."""
        height, width = self.resized(shape)
        if self.pad or seen.shape == (height, width):
            whole = seen
        else:
            whole = np.full((height, width), np.nan, np.float32)
            top, left = self._corner(height, width)
            whole[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
        if whole.shape == tuple(shape[:2]):
            return whole.astype(np.float32, copy=False)
        return np.asarray(cv2.resize(whole, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)

    def _corner(self, height: int, width: int) -> tuple[int, int]:
        step = 2 * self.step
        return round((height - self.size[0]) / step) * self.step, round((width - self.size[1]) / step) * self.step

    def _padded(self, image: np.ndarray) -> np.ndarray:
        rows, columns = self.part(image.shape)
        below, right = self.size[0] - rows.stop, self.size[1] - columns.stop
        return np.asarray(cv2.copyMakeBorder(image, rows.start, below, columns.start, right, cv2.BORDER_REPLICATE))

    def _cut(self, image: np.ndarray) -> np.ndarray:
        if self.pad:
            return image
        top, left = self._corner(*image.shape[:2])
        return np.ascontiguousarray(image[top : top + self.size[0], left : left + self.size[1]])


def cells(part: tuple[slice, slice], size: tuple[int, int], grid: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of a grid over `size` pixels whose centres lie in a part of these; at least one of each."""
    rows, columns = (_centred(own, side, count) for own, side, count in zip(part, size, grid, strict=True))
    return rows, columns


def _centred(part: slice, side: int, count: int) -> slice:
    """Which of `count` cells over `side` pixels have their centres in a part of these; the middle one if none has."""
    first, last = (round(end * count / side) for end in (part.start, part.stop))
    first = min(first, count - 1)
    return slice(first, max(first + 1, last))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    shrinks = height < image.shape[0] or width < image.shape[1]
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """Return the picture with its longer side at most `longest` pixels, aspect kept."""
    scale = longest / max(image.shape[:2])
    if scale >= 1.0:
        return image
    return _resize(image, max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
