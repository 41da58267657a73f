"""Pictures in: orientation, depth, colour kinds, folders; the network's view and the way back."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from builders import normal_picture, write_pictures
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from spadework import images
from spadework.errors import ImageError, InputError
from spadework.images import IMAGE_SUFFIXES, View, as_rgb, find_images, gather, picture_size, read_image, shrink

RNG = np.random.default_rng(5)
UPRIGHT = RNG.integers(0, 256, (7, 11, 3), np.uint8)

# What a viewer does with the stored rows and columns, by EXIF orientation.
TURNS = {
    1: lambda s: s,
    2: lambda s: s[:, ::-1],
    3: lambda s: s[::-1, ::-1],
    4: lambda s: s[::-1],
    5: lambda s: np.swapaxes(s, 0, 1),
    6: lambda s: np.rot90(s, -1),
    7: lambda s: np.swapaxes(s[::-1, ::-1], 0, 1),
    8: lambda s: np.rot90(s, 1),
}


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:33] + chunk + png[33:]


@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_is_honoured(tmp_path, orientation):
    for name in ("a.png", "a.tif", "a.webp"):
        options = {"lossless": True} if name.endswith("webp") else {}
        Image.fromarray(UPRIGHT).save(tmp_path / name, exif=exif_of(orientation), **options)
        np.testing.assert_array_equal(read_image(tmp_path / name), TURNS[orientation](UPRIGHT), err_msg=name)
    smooth = cv2.resize(UPRIGHT, (64, 48), interpolation=cv2.INTER_LINEAR)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", exif=exif_of(orientation), quality=95, subsampling=0)
    found = read_image(tmp_path / "a.jpg")
    assert found.shape == TURNS[orientation](smooth).shape
    assert np.abs(found.astype(int) - TURNS[orientation](smooth)).mean() < 3


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("place", ["before the pixels", "behind them", "as text before", "as text behind"])
def test_the_size_of_a_png_is_told_upright(tmp_path, orientation, place):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png")
    png, exif = (tmp_path / "a.png").read_bytes(), exif_of(orientation).tobytes()
    kind, content = b"eXIf", exif[6:]
    if "text" in place:
        kind, text = b"zTXt", f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()
        content = b"Raw profile type exif\0\0" + zlib.compress(text)
    chunk = with_chunk(png, kind, content)[33 : len(content) + 45]
    at = 33 if "before" in place else len(png) - 12
    (tmp_path / "a.png").write_bytes(png[:at] + chunk + png[at:])
    assert picture_size(tmp_path / "a.png") == TURNS[orientation](UPRIGHT).shape[:2]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), TURNS[orientation](UPRIGHT))


def test_the_size_of_a_png_is_told_without_decoding_it(tmp_path, monkeypatch):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png", pnginfo=PngInfo())
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: 1 / 0)
    assert picture_size(tmp_path / "a.png") == UPRIGHT.shape[:2]


@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_of_16_bits_is_honoured(tmp_path, orientation):
    stored = UPRIGHT.astype(np.uint16) * 257
    png = cv2.imencode(".png", stored[..., ::-1])[1].tobytes()
    (tmp_path / "a.png").write_bytes(with_chunk(png, b"eXIf", exif_of(orientation).tobytes()[6:]))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), TURNS[orientation](UPRIGHT))
    gray = Image.fromarray(stored[..., 0])
    assert gray.mode == "I;16"
    gray.save(tmp_path / "a.tif", tiffinfo={274: orientation})
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 1], TURNS[orientation](UPRIGHT[..., 0]))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_not_clipped(tmp_path, suffix, channels):
    ramp = np.linspace(0, 65535, 60).round().astype(np.uint16).reshape(6, 10)
    stored = np.dstack([ramp, ramp[::-1], ramp[:, ::-1], np.full_like(ramp, 65535)][:channels])
    in_cv2_order = stored[..., [2, 1, 0, 3][:channels]] if channels > 1 else stored
    assert cv2.imwrite(str(tmp_path / f"a{suffix}"), in_cv2_order)
    found = read_image(tmp_path / f"a{suffix}")
    expected = np.rint(stored / 257.0).astype(np.uint8)[..., : 3 if channels > 1 else 1]
    np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))
    assert (found.min(), found.max()) == (0, 255)


def test_16_bits_do_not_change_by_way_of_8(tmp_path):
    dark = np.full(
        (4, 4), 257 * 3, np.uint16
    )  # a camera's dark frame: 8-bit truncation of clipped values would give 255
    cv2.imwrite(str(tmp_path / "a.png"), dark)
    assert (read_image(tmp_path / "a.png") == 3).all()


def test_kinds_of_files(tmp_path):
    picture = Image.fromarray(UPRIGHT)
    for name in ("a.png", "a.bmp", "a.tif", "a.tiff", "a.PNG"):
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name), UPRIGHT, err_msg=name)
    picture.convert("L").save(tmp_path / "gray.png")
    assert np.ptp(read_image(tmp_path / "gray.png"), axis=2).max() == 0
    picture.quantize(256).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "palette.png"), np.asarray(picture.quantize(256).convert("RGB"))
    )
    Image.fromarray(UPRIGHT[..., 0] > 127).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png")[..., 2], (UPRIGHT[..., 0] > 127) * 255)
    picture.quantize(16).save(tmp_path / "one-frame.gif")
    assert read_image(tmp_path / "one-frame.gif").shape == (7, 11, 3)


def test_reading_gives_a_picture_of_our_own(tmp_path):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert (found.dtype, found.flags.c_contiguous) == (np.uint8, True)


# ---------------------------------------------------------------- arrays


def test_arrays_of_every_kind_give_the_same_picture():
    gray = UPRIGHT[..., 0]
    expected = np.repeat(gray[..., None], 3, axis=2)
    opaque = np.dstack([UPRIGHT, np.full(gray.shape, 255, np.uint8)])
    for array in (gray, gray[..., None], gray / 255.0, (gray / 255.0).astype(np.float32), gray.astype(np.uint16) * 257):
        found = as_rgb(array)
        assert (found.dtype, found.flags.c_contiguous) == (np.uint8, True)
        np.testing.assert_array_equal(found, expected)
    for array in (UPRIGHT, opaque, opaque / 255.0, UPRIGHT.astype(np.uint16) * 257, np.asfortranarray(UPRIGHT)):
        np.testing.assert_array_equal(as_rgb(array), UPRIGHT)
    np.testing.assert_array_equal(as_rgb(gray > 127)[..., 0], (gray > 127) * 255)


def test_transparency_is_laid_over_black_in_files_and_arrays_alike(tmp_path):
    alpha = RNG.integers(0, 256, (7, 11, 1), np.uint8)
    rgba = np.concatenate([UPRIGHT, alpha], axis=2)
    expected = np.rint(UPRIGHT * (alpha / 255.0))
    assert np.abs(as_rgb(rgba) - expected).max() <= 1
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.abs(read_image(tmp_path / "a.png") - expected).max() <= 1
    palette = Image.fromarray(UPRIGHT).quantize(8)
    palette.save(tmp_path / "p.png", transparency=0)
    hidden = np.asarray(palette) == 0
    assert hidden.any()
    assert (read_image(tmp_path / "p.png")[hidden] == 0).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4,), np.uint8), r"part must have shape .*not \(4,\)"),
        (np.zeros((4, 4, 2), np.uint8), r"part must have shape .*not \(4, 4, 2\)"),
        (np.zeros((1, 2, 4, 4), np.uint8), r"part must have shape"),
        (np.zeros((0, 4, 3), np.uint8), r"part has no pixels: its shape is \(0, 4, 3\)"),
        (np.zeros((4, 4), np.int64), "part must be uint8, uint16, bool or float in 0..1, not int64"),
        (np.zeros((4, 4), complex), "not complex128"),
        (np.array([["a"]]), "part must be uint8"),
        (np.array([[0.5, np.nan]]), "part holds NaN or infinite values"),
        (np.array([[0.5, np.inf]]), "part holds NaN or infinite values"),
        (np.array([[0.0, 255.0]]), r"part is float and must lie in 0..1, but runs from 0 to 255"),
        (np.array([[-0.1, 0.5]]), r"runs from -0.1 to 0.5"),
        ([[1, 2]], "part must be a path or a NumPy array, not list"),
    ],
)
def test_arrays_that_break_a_rule_are_named(array, message):
    with pytest.raises(ImageError, match=message) as caught:
        as_rgb(array, name="part")
    assert caught.value.path is None


def test_reading_an_array_never_changes_it():
    for array in (UPRIGHT.copy(), UPRIGHT / 255.0, UPRIGHT[..., 0] > 9):
        array.setflags(write=False)
        as_rgb(array)


# ---------------------------------------------------------------- folders


def test_pictures_are_found_by_exact_suffix(tmp_path):
    for name in ("b.PNG", "a.jpg", "sub/c.tiff", "sub/deep/d.webp", "e.JPEG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in (
        "a.json",
        "b.jpng",
        "c.png.txt",
        "png",
        "d.pngx",
        ".hidden.png",
        ".dir/e.png",
        "m.spade/f.png",
        "Thumbs.db",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == sorted(["a.jpg", "b.PNG", "e.JPEG", "sub/c.tiff", "sub/deep/d.webp"])
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)


def test_a_folder_whose_name_looks_like_a_picture_is_a_folder(tmp_path):
    write_pictures(tmp_path / "parts.png", [normal_picture()])
    assert [path.name for path in find_images(tmp_path)] == ["000.png"]


def test_a_file_stands_for_itself(tmp_path):
    assert find_images(write_pictures(tmp_path, [normal_picture()])[0]) == [tmp_path / "000.png"]


def test_a_link_back_does_not_count_pictures_twice(tmp_path):
    write_pictures(tmp_path / "parts", [normal_picture()])
    (tmp_path / "parts" / "again").symlink_to(tmp_path / "parts", target_is_directory=True)
    assert len(find_images(tmp_path / "parts")) == 1


def test_a_linked_folder_is_followed(tmp_path):
    write_pictures(tmp_path / "elsewhere", [normal_picture()])
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(find_images(tmp_path / "parts")) == 1


def test_gather_flattens_folders_paths_and_arrays_in_order(tmp_path):
    paths = write_pictures(tmp_path / "parts", [normal_picture(0), normal_picture(1)])
    array = normal_picture(2)
    found = gather([array, tmp_path / "parts", str(paths[0])])
    assert found[0] is array
    assert found[1:] == [*paths, paths[0]]
    assert gather(paths[0]) == [paths[0]]
    assert gather(str(tmp_path / "parts")) == paths
    assert len(gather(iter([array, array]))) == 2
    assert len(gather(np.stack([array] * 3))) == 3
    assert len(gather(array)) == 1


@pytest.mark.parametrize("images", [[], (), np.zeros((0, 8, 8, 3), np.uint8), iter([])])
def test_nothing_at_all_is_refused(images):
    with pytest.raises(InputError, match="images is empty"):
        gather(images)


@pytest.mark.parametrize("images", [None, 5, [5], [None], [[normal_picture()]], [Image.new("RGB", (4, 4))], [b"a.png"]])
def test_what_is_neither_path_nor_array_is_refused(images):
    with pytest.raises(InputError, match=r"images must be paths, folders or arrays, not \w+"):
        gather(images)


# ---------------------------------------------------------------- the view


def test_the_whole_view_and_the_way_back():
    view = View((8, 12))
    picture = cv2.resize(UPRIGHT, (24, 16))
    assert (view.size, view.box(picture.shape)) == ((8, 12), (0, 0, 16, 24))
    seen = view.see(picture)
    expected = picture.reshape(8, 2, 12, 2, 3).mean((1, 3))  # area averaging
    assert np.abs(seen - expected).max() <= 0.5
    back = view.back(np.ones((8, 12), np.float32), picture.shape)
    assert (back.shape, back.dtype) == ((16, 24), np.float32)
    assert (back == 1).all()


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (33, 47), (50, 50), (20, 90)])
def test_a_crop_is_seen_and_brought_back_to_its_own_place(shape):
    view = View((24,), (16, 20))
    y, x = np.mgrid[: shape[0], : shape[1]]
    picture = np.dstack([y * 255 / shape[0], x * 255 / shape[1], 0 * x]).astype(np.uint8)
    seen = view.see(picture)
    assert seen.shape == (16, 20, 3)
    y0, x0, y1, x1 = view.box(shape)
    height, width = view.resized(shape)
    assert min(height, width) == 24
    assert abs(height / width - shape[0] / shape[1]) < 1.5 / 24 * max(1, shape[0] / shape[1])
    # what the network sees at its corners is what lies at the corners of the box
    tolerance = 255 / min(shape) * max(shape[0] / height, 1) * 2 + 2
    assert abs(float(seen[0, 0, 0]) - y0 * 255 / shape[0]) < tolerance
    assert abs(float(seen[-1, -1, 1]) - x1 * 255 / shape[1]) < tolerance
    back = view.back(np.ones((16, 20), np.float32), shape)
    assert back.shape == shape
    inside = np.argwhere(~np.isnan(back))
    scale = max(shape[0] / height, shape[1] / width)
    np.testing.assert_allclose(inside.min(0), (y0, x0), atol=scale + 1)
    np.testing.assert_allclose(inside.max(0) + 1, (y1, x1), atol=scale + 1)


def test_the_crop_is_the_centre():
    assert View((24,), (16, 16)).box((24, 48)) == (4, 16, 20, 32)
    assert View((24,), (16, 16)).box((96, 48)) == (32, 8, 64, 40)
    assert View((10,), (10, 4)).box((10, 10)) == (0, 3, 10, 7)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (48, 48)])
def test_a_map_s_peak_comes_back_to_where_it_was_seen(shape):
    view = View((24,), (16, 16))
    picture = np.zeros((*shape, 3), np.uint8)
    y0, x0, y1, x1 = (round(v) for v in view.box(shape))
    place = (y0 + (y1 - y0) // 3, x0 + (x1 - x0) * 2 // 3)
    picture[place[0] - 1 : place[0] + 2, place[1] - 1 : place[1] + 2] = 255
    back = view.back(view.see(picture)[..., 0].astype(np.float32), shape)
    peak = np.unravel_index(np.nanargmax(back), shape)
    assert max(abs(peak[0] - place[0]), abs(peak[1] - place[1])) <= 2


def test_a_mask_goes_through_the_same_view():
    view = View((24,), (16, 16))
    mask = np.zeros((48, 72), bool)
    mask[20:30, 30:44] = True
    as_picture = view.see(np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255)[..., 0] > 127
    seen = view.see_mask(mask)
    assert (seen.shape, seen.dtype) == ((16, 16), bool)
    np.testing.assert_array_equal(seen, as_picture)


def test_a_picture_too_long_for_its_aspect_is_refused_before_it_is_made():
    with pytest.raises(ImageError, match="1 x 30000"):
        View((256,), (224, 224)).see(np.zeros((1, 30000, 3), np.uint8))
    assert View((256, 256)).see(np.zeros((1, 30000, 3), np.uint8)).shape == (256, 256, 3)


@pytest.mark.parametrize(
    ("shape", "expected"), [((40, 80), (16, 32)), ((80, 40), (32, 16)), ((1, 500), (1, 32)), ((9, 9), (9, 9))]
)
def test_shrinking_bounds_the_longer_side(shape, expected):
    assert shrink(np.zeros((*shape, 3), np.uint8), 32).shape[:2] == expected


def test_paths_may_be_strings_or_pathlike(tmp_path):
    path = write_pictures(tmp_path, [UPRIGHT])[0]
    for form in (path, str(path), os.fspath(Path(path))):
        np.testing.assert_array_equal(read_image(form), UPRIGHT)


def test_damaged_files_of_every_format_are_refused_by_name_whatever_the_decoder_raises(tmp_path):
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (24, 24, 3), np.uint8)
    for suffix in (".png", ".jpg", ".tif", ".bmp", ".webp"):
        whole = cv2.imencode(suffix, picture)[1].tobytes()
        for trial in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 3):
                data[place] ^= int(rng.integers(1, 256))
            path = tmp_path / f"{trial}{suffix}"
            path.write_bytes(data)
            try:
                assert read_image(path).dtype == np.uint8
            except ImageError as error:
                assert path.name in str(error)


def test_postscript_in_a_png_s_clothes_is_not_run(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="not a picture in a known format"):
        read_image(path)


def test_a_telephone_s_jpeg_with_a_preview_is_its_first_picture(tmp_path):
    first, preview = Image.new("RGB", (40, 30), (200, 10, 10)), Image.new("RGB", (20, 15), (0, 0, 200))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    seen = read_image(tmp_path / "a.jpg")
    assert seen.shape == (30, 40, 3)
    assert seen[..., 0].mean() > 150


def test_byte_order_does_not_matter():
    image = (np.arange(48, dtype=np.uint16) * 1000).reshape(4, 4, 3)
    np.testing.assert_array_equal(as_rgb(image.astype(">u2")), as_rgb(image))
    np.testing.assert_array_equal(as_rgb((image / 65535).astype(">f4")), as_rgb((image / 65535).astype("<f4")))


def with_an_empty_second_page(tiff):
    """A little-endian TIFF that says it goes on, with a directory of nothing: what a flipped byte makes of the last one's end."""
    data = bytearray(tiff)
    start = int.from_bytes(data[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    data += b"\0" * (len(data) % 2)
    data[end : end + 4] = len(data).to_bytes(4, "little")
    return bytes(data) + (0).to_bytes(2, "little") + (0).to_bytes(4, "little")


def test_a_tiff_whose_directories_are_damaged_is_refused_by_name(tmp_path):
    """Pillow raises a bare TypeError here, none of its documented errors."""
    path = tmp_path / "a.tif"
    Image.new("RGB", (9, 7)).save(path)
    path.write_bytes(with_an_empty_second_page(path.read_bytes()))
    with pytest.raises(TypeError), Image.open(path) as picture:
        _ = picture.n_frames
    with pytest.raises(ImageError, match=r"a\.tif"):
        read_image(path)


def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (9, 7)).save(path)
    for error in (
        struct.error("unpack requires 4 bytes"),
        TypeError("Missing dimensions"),
        KeyError(7),
        AssertionError(),
    ):
        monkeypatch.setattr(Image, "open", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        with pytest.raises(ImageError, match=r"a\.png"):
            read_image(path)


def short_png(array, rows):
    """A PNG whose stream ends well, but after so many rows: Pillow reads it as a picture with a black rest."""
    height, width = array.shape[:2]
    colour, depth = {("u1", 2): (0, 8), ("u1", 3): (2, 8), ("u2", 2): (0, 16), ("u2", 3): (2, 16)}[
        (array.dtype.str[1:], array.ndim)
    ]
    lines = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in array[:rows])

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content) & 0xFFFFFFFF)
        )

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = zlib.compress(lines)
    parts = [packed[: len(packed) // 2], packed[len(packed) // 2 :]]
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + b"".join(chunk(b"IDAT", each) for each in parts)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3)])
def test_a_png_with_fewer_rows_than_it_says_is_refused(tmp_path, kind, shape):
    array = RNG.integers(1, 256, shape).astype(kind)
    path = tmp_path / "short.png"
    path.write_bytes(short_png(array, 40))
    assert read_image(path).shape == (40, 30, 3)
    for rows in (0, 1, 39):
        path.write_bytes(short_png(array, rows))
        with pytest.raises(ImageError, match=r"short\.png: (ends too early|.*truncated)"):
            read_image(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8), (13, 9)])
def test_a_whole_png_may_be_black(tmp_path, mode, size):
    path = tmp_path / "black.png"
    Image.new(mode, size).save(path)
    assert not read_image(path).any()


@pytest.mark.parametrize(("shape", "channels"), [((9, 13), 1), ((1, 1), 3), ((2, 5), 4), ((8, 8), 3)])
def test_a_whole_interlaced_png_may_be_black(tmp_path, shape, channels):
    height, width = shape
    starts = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    count = 0
    for x, y, dx, dy in starts:
        columns, rows = len(range(x, width, dx)), len(range(y, height, dy))
        count += rows * (1 + columns * channels) if columns else 0

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 1)
    for missing in (0, 1):
        packed = zlib.compress(bytes(count - missing))
        path = tmp_path / f"{missing}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    assert not read_image(tmp_path / "0.png").any()
    with pytest.raises(ImageError, match="ends too early|cannot be read"):
        read_image(tmp_path / "1.png")


def test_reading_in_threads_leaves_the_filters_of_warnings_as_they_were():
    before = list(warnings.filters)
    images.QUIET.__enter__()
    images.QUIET.__enter__()
    images.QUIET.__exit__()  # the first to come goes first
    assert warnings.filters != before
    images.QUIET.__exit__()
    assert warnings.filters == before
