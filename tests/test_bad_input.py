"""What people feed to a tool: every bad picture is refused by name and reason, and good ones of odd kinds just work."""

from __future__ import annotations

import builtins
import os
import struct
import time
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from builders import TINY, normal_picture, normal_pictures, tiny_model, write_pictures
from PIL import Image, ImageFile

from spadework.benchmark import run_benchmark
from spadework.datasets.synthetic import write_dataset
from spadework.detectors import load_detector
from spadework.detectors.spade import Spade
from spadework.errors import ImageError, InputError, SpadeworkError
from spadework.images import MAX_PIXELS, find_images, read_image


@pytest.fixture
def good(tmp_path):
    """A folder of three good pictures."""
    write_pictures(tmp_path / "good", normal_pictures(3))
    return tmp_path / "good"


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: does not exist"):
        Spade(**TINY).fit(tmp_path / "nowhere")


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    with pytest.raises(InputError, match=r"empty: no pictures found. Looked for .*\.png"):
        Spade(**TINY).fit(tmp_path / "empty")


def test_a_folder_mixed_with_other_files(good, model):
    (good / "notes.txt").write_text("hello")
    (good / "labels.json").write_text("{}")
    (good / "Thumbs.db").write_bytes(b"\0" * 9)
    (good / ".DS_Store").write_bytes(b"\0")
    assert Spade(**TINY).fit(good).n_normal_ == 3
    assert len(model.predict(good)) == 3


def _text(path):
    path.write_text("I am no picture\n" * 20)
    return "is not a picture in a known format, whatever its name says"


def _empty(path):
    path.write_bytes(b"")
    return r"is empty \(0 bytes\)"


def _cut(path, share=0.6):
    picture = cv2.resize(normal_picture(), (300, 300))
    data = cv2.imencode(path.suffix, picture)[1].tobytes()
    path.write_bytes(data[: int(len(data) * share)])
    return r"cannot be read as a picture: .*(truncated|decompression|broken|decoder)|is not a picture"


def _only_the_start(path):
    _cut(path, 0.02)
    return r"cannot be read as a picture|is not a picture"


def _cut_16_bits(path):
    data = cv2.imencode(path.suffix, np.random.default_rng(0).integers(0, 65535, (90, 90), np.uint16))[1].tobytes()
    path.write_bytes(data[: len(data) // 2])
    return r"cannot be read as a picture|is not a picture"


def _animated(path):
    frames = [Image.fromarray(picture) for picture in normal_pictures(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], format="GIF")
    return "holds 3 frames; save the one to inspect as a picture"


def _flipped_bytes(path):
    data = bytearray(cv2.imencode(".png", normal_picture())[1].tobytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return "cannot be read as a picture"


def _folder_gone(path):
    path.symlink_to(path.parent / "deleted.png")
    return "cannot be read as a picture: No such file or directory"


BAD = {
    "text.png": _text,
    "empty.jpg": _empty,
    "cut.jpg": _cut,
    "cut.png": _cut,
    "cut.tif": _cut,
    "cut.bmp": _cut,
    "cut.webp": _cut,
    "start.jpg": _only_the_start,
    "start.png": _only_the_start,
    "deep.png": _cut_16_bits,
    "deep.tif": _cut_16_bits,
    "animated.gif": _animated,
    "animated.png": _animated,
    "flipped.png": _flipped_bytes,
    "dangling.png": _folder_gone,
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_name_and_reason(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(ImageError, match=BAD[name](path)) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert caught.value.path == path
    assert "Traceback" not in str(caught.value)


def test_bad_files_of_a_batch_do_not_end_it(good, model):
    reasons = {name: make(good / name) for name, make in BAD.items()}
    results = {os.path.basename(item.path): item for item in model.predict_each(good)}
    assert len(results) == 3 + len(BAD)
    for name, item in results.items():
        if name in reasons:
            assert isinstance(item.error, ImageError)
            assert name in str(item.error)
        else:
            assert item.score >= 0
    with pytest.raises(ImageError):
        model.predict(good)


def test_bad_files_in_fit_are_raised_or_skipped(good, temporary):
    _text(good / "001-bad.png")
    with pytest.raises(ImageError, match="001-bad.png"):
        Spade(**TINY).fit(good)
    assert list(temporary.iterdir()) == []
    model = Spade(**TINY).fit(good, bad_files="skip")
    assert model.n_normal_ == 3
    assert [os.path.basename(failure.path) for failure in model.failures_] == ["001-bad.png"]
    with pytest.raises(InputError, match="bad_files must be one of raise, skip, not 'ignore'"):
        Spade(**TINY).fit(good, bad_files="ignore")


def test_a_picture_that_is_gone_from_a_list_is_a_failure_of_its_own(good, model):
    (good / "loop.png").symlink_to("loop.png")
    paths = [good / "000.png", good / "gone.png", str(good / "loop.png"), good / "001.png"]
    first, gone, loop, last = model.predict_each(paths)
    assert [first.path, last.path] == [str(good / "000.png"), str(good / "001.png")]
    for failure, path in ((gone, paths[1]), (loop, paths[2])):
        assert failure.path == str(path)
        assert isinstance(failure.error, ImageError)
        assert str(path) in str(failure.error)
    (failure,) = model.predict_each([good / ("a" * 300 + ".png")])
    assert "File name too long" in str(failure.error)
    fitted = Spade(**TINY).fit(paths, bad_files="skip")
    assert (fitted.n_normal_, len(fitted.failures_)) == (2, 2)
    with pytest.raises(ImageError, match=r"gone.png: cannot be read as a picture: No such file"):
        Spade(**TINY).fit(paths)
    with pytest.raises(InputError, match=r"nowhere: does not exist"):  # no picture: most likely a misspelt folder
        Spade(**TINY).fit([good, good / "nowhere"], bad_files="skip")


def test_only_bad_files_is_an_error_that_shows_the_first(tmp_path):
    (tmp_path / "bad").mkdir()
    _text(tmp_path / "bad" / "a.png")
    _empty(tmp_path / "bad" / "b.png")
    with pytest.raises(InputError, match=r"none of the 2 pictures can be used; the first: .*a\.png"):
        Spade(**TINY).fit(tmp_path / "bad", bad_files="skip")


def huge_png(path, side: int) -> None:
    """An all-black 1-bit PNG of side x side pixels, streamed."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    squeeze, rows = zlib.compressobj(1), b"\0" * (1 + (side + 7) // 8) * 100
    data = b"".join([*(squeeze.compress(rows) for _ in range(side // 100)), squeeze.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


@pytest.mark.parametrize("side", [13_400, 30_000])
def test_a_gigantic_picture_is_refused_before_it_is_decoded(tmp_path, monkeypatch, side):
    path = tmp_path / "huge.png"
    huge_png(path, side)
    assert path.stat().st_size < 1_000_000
    assert side**2 > MAX_PIXELS
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: pytest.fail("it was decoded"))
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(
        ImageError, match=r"huge.png: has .*pixels; pictures may have up to 178 million pixels"
    ) as caught:
        read_image(path)
    assert time.perf_counter() - started < 2
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert "attack" not in str(caught.value)


def test_the_largest_size_is_not_refused_for_its_size(tmp_path):
    huge_png(tmp_path / "small.png", 300)  # the same maker at a harmless size gives a picture
    assert read_image(tmp_path / "small.png").shape == (300, 300, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_tiny_and_thin_pictures_work(tmp_path, model, size):
    path = write_pictures(tmp_path, [normal_picture(0, size)])[0]
    for picture in (path, normal_picture(0, size)):
        found = model.predict(picture).only
        assert found.score_map.shape == size
        assert np.isfinite(found.score)
        assert np.isfinite(found.score_map).all()
        model.explain(found, 0, 0)
    assert Spade(**TINY).fit([path, *normal_pictures(2)]).n_normal_ == 3


def test_a_cmyk_jpeg_is_seen_in_its_colours(tmp_path, model):
    Image.new("RGB", (40, 30), (200, 60, 20)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.mode == "CMYK"
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (200, 60, 20)).max() < 6
    assert model.predict(tmp_path / "a.jpg").only.size == (30, 40)


def test_alpha_is_seen_over_black(tmp_path):
    Image.new("RGBA", (8, 8), (250, 250, 250, 0)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").max() == 0


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write_pictures(tmp_path, [normal_picture()])[0]
    if getattr(os, "geteuid", lambda: 0)() == 0:  # permissions do not bind root
        real = builtins.open

        def refuse(file, *arguments, **options):
            if str(file) == str(path):
                raise PermissionError(13, "Permission denied", str(file))
            return real(file, *arguments, **options)

        monkeypatch.setattr(builtins, "open", refuse)
    else:
        path.chmod(0)
    with pytest.raises(ImageError, match=r"000.png: cannot be read as a picture: Permission denied"):
        read_image(path)


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"cannot be listed: Permission denied. Check the path and its permissions"):
        find_images(tmp_path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((8, 8), np.nan), "array 1 holds NaN or infinite values"),
        (np.zeros((0, 8, 3), np.uint8), "array 1 has no pixels"),
        (np.zeros((8,), np.uint8), "array 1 must have shape"),
        (np.zeros((8, 8), np.int32), "array 1 must be uint8, uint16, bool or float in 0..1, not int32"),
    ],
)
def test_bad_arrays_are_named_by_their_place(model, array, message):
    with pytest.raises(ImageError, match=message):
        model.predict([normal_picture(), array])
    with pytest.raises(ImageError, match=message):
        Spade(**TINY).fit([normal_picture(), array])
    _, failure = model.predict_each([normal_picture(), array])
    assert (failure.path, type(failure.error)) == (None, ImageError)


@pytest.mark.parametrize("images", [[], np.zeros((0, 8, 8, 3), np.uint8), [5], None])
def test_nothing_or_nonsense_is_an_input_error_everywhere(model, images):
    for use in (Spade(**TINY).fit, model.predict, tiny_model(2).append):
        with pytest.raises(InputError, match="images"):
            use(images)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("image_k", 0),
        ("gallery_k", -1),
        ("gallery_k", 2.5),
        ("kappa", "one"),
        ("kappa", True),
        ("grid_stride", 0),
        ("pooling", 2),
        ("pyramid", "sum"),
        ("upsampling", "cubic"),
        ("image_score", "mean"),
        ("storage", "float8"),
        ("kernel", "fast"),
        ("smoothing", -1),
        ("smoothing", float("nan")),
        ("max_false_alarms", 0),
        ("max_false_alarms", 1),
        ("max_false_alarms", "few"),
        ("calibration_images", -1),
        ("calibration_images", 2.5),
        ("image_size", 0),
        ("image_size", (64, 64, 64)),
        ("crop", 0),
        ("crop", 100),
        ("crop", (64, 100)),
        ("levels", [0]),
        ("levels", [9]),
        ("levels", []),
        ("levels", 2),
        ("seed", -1),
        ("seed", "now"),
        ("threads", 0),
        ("weights", "w.pth"),
        ("weights", 5),
        ("backbone", 5),
        ("backbone", None),
        ("levels", {1, 2}),
        ("levels", "12"),
        ("smoothing", 1e6),
    ],
)
def test_a_setting_that_breaks_a_rule_is_named(setting, value, temporary):
    with pytest.raises(SpadeworkError, match=setting) as caught:
        Spade(**{**TINY, setting: value}).fit(normal_pictures(2))
    assert isinstance(caught.value, InputError)
    assert list(temporary.iterdir()) == []


def test_a_size_that_the_network_cannot_take_says_which_it_can():
    with pytest.raises(InputError, match=r"multiples of 16, not 70 x 70: resize to 64 x 64"):
        Spade(**{**TINY, "image_size": (70, 70)}).fit(normal_pictures(2))


def test_settings_may_be_numpy_numbers(tmp_path):
    changes = {
        "kappa": np.int64(1),
        "smoothing": np.float32(2),
        "levels": np.array([1, 2]),
        "max_false_alarms": np.float32(0.5),
    }
    model = tiny_model(2, **changes)
    model.save(tmp_path / "m.spade")
    assert Spade.load(tmp_path / "m.spade").settings() == model.settings()


def test_an_unknown_backbone_is_refused_before_any_picture_is_read(tmp_path):
    with pytest.raises(SpadeworkError, match="'nonsense' is not a backbone"):
        Spade(**{**TINY, "backbone": "nonsense"}).fit(normal_pictures(2))


def test_paths_and_sizes_may_be_of_other_kinds(tmp_path, model):
    assert Spade(**{**TINY, "image_size": np.array([64, 64])}).fit(normal_pictures(2)).n_normal_ == 2
    with pytest.raises(InputError, match="path must be a path"):
        Spade.load(None)
    with pytest.raises(InputError, match="path must be a path"):
        load_detector(5)
    with pytest.raises(InputError, match="y must be a whole number"):
        model.explain(model.predict(normal_picture()), "a", 1)


def test_measures_that_cannot_be_taken_are_refused_before_the_work(tmp_path, monkeypatch):
    parts = write_dataset(tmp_path, categories=["gear"], n_train=2, n_good=1, n_per_defect=1, size=64)
    monkeypatch.setattr(Spade, "fit", lambda *_, **__: pytest.fail("fitted in vain"))
    with pytest.raises(InputError, match="limit"):
        run_benchmark(parts, pro_limit=2, settings=TINY)
    with pytest.raises(InputError, match="crops"):
        run_benchmark(parts, resolution="original", settings={**TINY, "image_size": 96, "crop": 64})
