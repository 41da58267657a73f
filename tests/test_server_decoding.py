"""Decoding what may be hostile: pixels and types as they should be, and nothing takes the station or its memory along."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from builders import normal_picture, rng_of
from PIL import Image

from spadework.images import read_image
from spadework.server import decoding, decoding_child
from spadework.server.decoding import Decoders
from spadework.server.errors import Damaged, DecodeTimeout, DecodingError, NotAPicture, Overloaded, Stopped, TooLarge

LIMIT = 4_000_000  # pixels


@pytest.fixture(scope="module")
def decoders():
    with Decoders(2, LIMIT, 512 << 20, 20.0) as made:
        yield made


def encoded(kind: str, picture: np.ndarray | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(normal_picture(size=(48, 64)) if picture is None else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, data: bytes = b"", *extra: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def written(tmp_path: Path, data: bytes, name: str = "picture.png") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


# ---------------------------------------------------------------- what is taken


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_pixels_are_those_that_read_image_gives_and_the_type_is_that_of_the_content(decoders, tmp_path, kind):
    path = written(tmp_path, encoded(kind), "wrong-name.gif")
    pixels, media_type = decoders.decode(path)
    np.testing.assert_array_equal(pixels, read_image(path))
    assert (pixels.dtype, media_type) == (np.uint8, f"image/{kind.lower()}")
    pixels[:] = 0  # ours alone


def test_orientation_and_depth_are_honoured(decoders, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = written(tmp_path, encoded("JPEG", exif=exif), "turned.jpg")
    assert decoders.decode(turned)[0].shape == (64, 48, 3)
    deep = tmp_path / "deep.png"
    assert cv2.imwrite(str(deep), rng_of("deep").integers(0, 65536, (20, 30), np.uint16))
    np.testing.assert_array_equal(decoders.decode(deep)[0], read_image(deep))


def test_many_threads_get_each_their_own(decoders, tmp_path):
    paths = [written(tmp_path, encoded("PNG", normal_picture(i, (20 + i, 30))), f"{i}.png") for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        for path, (pixels, _) in zip(paths, pool.map(decoders.decode, paths), strict=True):
            np.testing.assert_array_equal(pixels, read_image(path))


# ---------------------------------------------------------------- what is not


def huge_tiff(path: Path) -> None:
    """Says 100,000 x 100,000 pixels in 200 bytes."""
    entries = [(256, 4, 1, 100_000), (257, 4, 1, 100_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 100_000), (279, 4, 1, 100)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes(b"II*\x00" + struct.pack("<IH", 8, len(entries)) + body + b"\0" * 104)


HOSTILE = {
    "empty": (b"", NotAPicture),
    "text": (b"hello, I am a picture", NotAPicture),
    "text that begins like a BMP": (b"BMW is a maker of cars", NotAPicture),
    "html": (b"<html><script>alert(1)</script>", NotAPicture),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg' width='10' height='10'/>", NotAPicture),
    "gif": (encoded("GIF"), NotAPicture),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NotAPicture),
    "zip": (b"PK\x03\x04" + b"\0" * 60, NotAPicture),
    "noise": (rng_of("noise").bytes(5000), NotAPicture),
    "only the magic": (b"\x89PNG\r\n\x1a\n", Damaged),
    "only the magic of JPEG": (b"\xff\xd8\xff\xe0", Damaged),
    "truncated png": (encoded("PNG")[:1500], Damaged),
    "truncated jpeg": (encoded("JPEG")[:700], Damaged),
    "truncated webp": (encoded("WEBP")[:200], Damaged),
    "truncated bmp": (encoded("BMP")[:700], Damaged),
    "truncated tiff": (encoded("TIFF")[:700], Damaged),
    "noise within a png": (encoded("PNG")[:200] + rng_of("n").bytes(3000) + encoded("PNG")[3200:], Damaged),
    "huge png": (png_of(60_000, 60_000), TooLarge),
    "wide png": (png_of(LIMIT + 1, 1), TooLarge),
    "huge beyond int32": (png_of(2**31 - 1, 2**31 - 1), TooLarge),
    "no width": (png_of(0, 10), Damaged),
    "text bomb": (png_of(4, 4, b"\0" * 52, chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 50_000_000))), Damaged),
    "animated webp": (
        encoded("WEBP", save_all=True, append_images=[Image.fromarray(normal_picture(3, (48, 64)))]),
        Damaged,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_content_is_refused_by_its_kind(decoders, tmp_path, name):
    data, expected = HOSTILE[name]
    path = written(tmp_path, data)
    with pytest.raises(DecodingError) as caught:
        decoders.decode(path)
    assert type(caught.value) is expected, caught.value
    assert str(tmp_path) not in str(caught.value)  # paths are nobody's business
    assert caught.value.code == expected.code
    good = written(tmp_path, encoded("PNG"), "good.png")
    assert decoders.decode(good)[0].shape == (48, 64, 3)


def test_a_tiff_that_says_it_is_huge(decoders, tmp_path):
    huge_tiff(tmp_path / "huge.tif")
    with pytest.raises(TooLarge):
        decoders.decode(tmp_path / "huge.tif")


def test_what_is_no_file_is_refused_at_once(decoders, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # whoever opened it would wait
    for path in (tmp_path / "missing.png", tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(NotAPicture, match="no such file"):
            decoders.decode(path)


def test_a_decompression_bomb_within_its_pixels_takes_no_more_than_them(decoders, tmp_path):
    """64 x 64 pixels are few, but what is packed for them is three thousand times as much."""
    with pytest.raises(DecodingError):
        decoders.decode(written(tmp_path, png_of(64, 64, b"\0" * 1000)))  # too little for its size
    bomb = png_of(64, 64, (b"\0" + b"\0" * 192) * 64 + b"\0" * 40_000_000)  # and too much
    pixels, _ = decoders.decode(written(tmp_path, bomb))
    assert pixels.shape == (64, 64, 3)


@pytest.mark.slow
def test_memory_has_a_limit(tmp_path):
    with Decoders(1, 100_000_000, 150 << 20, 20.0) as small:
        large = written(tmp_path, png_of(8000, 8000, (b"\0" * 24001) * 8000))  # 192 MB as pixels
        with pytest.raises(TooLarge, match="memory"):
            small.decode(large)
        assert small.decode(written(tmp_path, encoded("PNG"), "good.png"))[0].shape == (48, 64, 3)


# ---------------------------------------------------------------- processes that hang or die


def slow_down(monkeypatch, code: str) -> None:
    """Let the next decoders run `code` for every picture whose name says so."""
    start = (
        "import sys, os, time; from spadework.server import decoding_child as c; real = c.read_image\n"
        f"def odd(path):\n    if 'odd' in path.name: {code}\n    return real(path)\n"
        "c.read_image = odd; c.main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])"
    )
    monkeypatch.setattr(decoding, "START", start)


@pytest.mark.slow
@pytest.mark.parametrize("code", ["time.sleep(1000)", "\n        while True: pass"])
def test_one_that_hangs_is_killed_and_replaced(monkeypatch, tmp_path, code):
    slow_down(monkeypatch, code)
    good, odd = written(tmp_path, encoded("PNG"), "good.png"), written(tmp_path, encoded("PNG"), "odd.png")
    with Decoders(1, LIMIT, 512 << 20, 0.5) as hanging:
        hanging.decode(good)
        started = time.monotonic()
        with pytest.raises(DecodeTimeout, match=r"longer than 0\.5 seconds"):
            hanging.decode(odd)
        assert time.monotonic() - started < 30
        assert hanging.decode(good)[0].shape == (48, 64, 3)
        assert hanging.replaced == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", ["os.abort()", "os._exit(0)", "os.write(1, b'nonsense\\\\n')", "print('[1]', flush=True)"]
)
def test_one_that_dies_or_talks_nonsense_is_replaced(monkeypatch, tmp_path, code):
    slow_down(monkeypatch, code)
    good, odd = written(tmp_path, encoded("PNG"), "good.png"), written(tmp_path, encoded("PNG"), "odd.png")
    with Decoders(1, LIMIT, 512 << 20, 20.0) as dying:
        with pytest.raises(Damaged, match="died of it"):
            dying.decode(odd)
        assert dying.decode(good)[0].shape == (48, 64, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer", ['{"shape": [999999, 999999, 3], "media_type": "image/png"}', '{"shape": [-1, 2, 3]}', "{}"]
)
def test_one_that_was_taken_over_is_not_believed(monkeypatch, tmp_path, answer):
    slow_down(monkeypatch, f"print('''{answer}''', flush=True)")
    good, odd = written(tmp_path, encoded("PNG"), "good.png"), written(tmp_path, encoded("PNG"), "odd.png")
    with Decoders(1, LIMIT, 512 << 20, 20.0) as taken:
        with pytest.raises(Damaged):
            taken.decode(odd)
        np.testing.assert_array_equal(taken.decode(good)[0], read_image(good))


def test_one_that_was_killed_between_two_pictures_costs_none(tmp_path):
    good = written(tmp_path, encoded("PNG"), "good.png")
    with Decoders(1, LIMIT, 512 << 20, 20.0) as decoders:
        decoders.decode(good)
        child = next(iter(decoders._children))
        os.kill(child._process.pid, signal.SIGKILL)
        child._process.wait()
        assert decoders.decode(good)[0].shape == (48, 64, 3)


def test_processes_that_did_much_are_replaced(monkeypatch, tmp_path):
    monkeypatch.setattr(decoding, "PICTURES", 2)
    good = written(tmp_path, encoded("PNG"), "good.png")
    with Decoders(1, LIMIT, 512 << 20, 20.0) as decoders:
        for _ in range(3):
            decoders.decode(good)
        assert decoders.replaced == 1


@pytest.mark.slow
def test_a_process_that_cannot_be_started_costs_no_place(monkeypatch, tmp_path):
    """Where the system has no process or no memory to give, pictures are turned away, and taken again when it has."""
    good = written(tmp_path, encoded("PNG"), "good.png")
    with Decoders(2, LIMIT, 512 << 20, 20.0) as decoders:
        decoders.decode(good)
        with monkeypatch.context() as patch:
            patch.setattr(decoding.subprocess, "Popen", no_process)
            for child in list(decoders._children):
                os.kill(child._process.pid, signal.SIGKILL)
                child._process.wait()
            for _ in range(5):  # more than there are places
                with pytest.raises(Overloaded, match="cannot be decoded now"):
                    decoders.decode(good)
        with ThreadPoolExecutor(4) as pool:
            for pixels, _ in pool.map(decoders.decode, [good] * 4):
                assert pixels.shape == (48, 64, 3)
        assert len(decoders._children) == 2


def no_process(*arguments, **named):
    raise BlockingIOError(11, "Resource temporarily unavailable")


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", ["raise SystemExit(1)", "print('nonsense', flush=True)", "import time; time.sleep(1000)"]
)
def test_a_process_that_ends_before_it_is_ready_is_not_the_pictures_fault(monkeypatch, tmp_path, code):
    good = written(tmp_path, encoded("PNG"), "good.png")
    monkeypatch.setattr(decoding, "START_SECONDS", 0.5 if "sleep" in code else 60.0)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "START", code)
        decoders = Decoders(1, LIMIT, 512 << 20, 20.0)
        with pytest.raises(Overloaded, match="cannot be decoded now"):
            decoders.decode(good)
    with decoders:
        with contextlib.suppress(Overloaded):  # the one that was started in its place
            decoders.decode(good)
        monkeypatch.setattr(decoding, "START_SECONDS", 60.0)
        assert decoders.decode(good)[0].shape == (48, 64, 3)


def test_decoders_that_cannot_be_started_leave_none_behind(monkeypatch):
    started, real = [], decoding.subprocess.Popen

    def second_fails(*arguments, **named):
        if started:
            no_process()
        started.append(real(*arguments, **named))
        return started[0]

    monkeypatch.setattr(decoding.subprocess, "Popen", second_fails)
    with pytest.raises(Overloaded, match="temporarily unavailable"):
        Decoders(2, LIMIT, 512 << 20, 20.0)
    assert started[0].wait(30) is not None


def test_closing_ends_all_and_tells_those_who_wait(monkeypatch, tmp_path):
    slow_down(monkeypatch, "time.sleep(1000)")
    odd = written(tmp_path, encoded("PNG"), "odd.png")
    decoders = Decoders(1, LIMIT, 512 << 20, 60.0)
    processes = [child._process for child in decoders._children]
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(decoders.decode, odd) for _ in range(3)]
        time.sleep(0.2)
        decoders.close()
        for one in waiting:
            with pytest.raises(Stopped):
                one.result(30)
    assert all(process.poll() is not None for process in processes)
    with pytest.raises(Stopped):
        decoders.decode(odd)


@pytest.mark.slow
def test_when_the_station_dies_its_decoders_go(tmp_path):
    code = (
        "import os, sys; from spadework.server.decoding import Decoders\n"
        "d = Decoders(1, 100, 1 << 29, 5.0)\n"
        "print(next(iter(d._children))._process.pid, flush=True); os._exit(9)"
    )
    source = str(Path(decoding.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": source}
    )
    process = Path("/proc") / done.stdout.strip()
    until = time.monotonic() + 60
    while process.exists() and process.joinpath("stat").read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.05)


def test_no_secret_reaches_a_decoder(monkeypatch):
    monkeypatch.setenv("SPADEWORK_TOKENS", "me:manage:secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@host/db")
    with Decoders(1, LIMIT, 512 << 20, 20.0) as decoders:
        number = next(iter(decoders._children))._process.pid
        time.sleep(0.05)
        assert b"secret" not in Path(f"/proc/{number}/environ").read_bytes()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
def test_five_hundred_hostile_files_leave_memory_and_service_as_they_were(tmp_path):
    rng = rng_of("fuzz")
    sound = [encoded(kind) for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP")]
    files = []
    for index in range(500):
        if index % 3 == 0:
            data, _ = list(HOSTILE.values())[index % len(HOSTILE)]
        else:
            torn = bytearray(sound[index % 5][: int(rng.integers(1, len(sound[index % 5])))])
            for place in rng.integers(0, len(torn), 5):
                torn[place] = int(rng.integers(0, 256))
            data = bytes(torn)
        files.append(written(tmp_path, data, f"{index}"))

    def attempt(path):
        try:
            return decoders.decode(path)[0].shape[2]
        except DecodingError as error:
            return error.code

    with Decoders(2, LIMIT, 512 << 20, 20.0) as decoders, ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, files[:50]))
        gc.collect()
        before, threads = resident(), threading.active_count()
        outcomes = list(pool.map(attempt, files))
        gc.collect()
        assert resident() - before < 30 << 20
        assert threading.active_count() <= threads
        assert set(outcomes) <= {3, "damaged", "not_a_picture", "too_large"}
        assert outcomes.count(3) < 100  # a flipped byte may leave a picture a picture
        good = written(tmp_path, encoded("PNG"), "good.png")
        assert decoders.decode(good)[0].shape == (48, 64, 3)


# ---------------------------------------------------------------- in this process


def test_formats_are_told_by_their_first_bytes(tmp_path):
    for kind in decoding_child.MEDIA_TYPES:
        assert decoding_child.find_format(written(tmp_path, encoded(kind))) == kind
    assert decoding_child.find_format(written(tmp_path, encoded("TIFF", big_tiff=True))) == "TIFF"


def test_memory_is_told_from_damage(tmp_path, monkeypatch):
    def full(path):
        try:
            raise MemoryError
        except MemoryError as error:
            raise decoding_child.ImageError("cannot be read as a picture: ") from error

    monkeypatch.setattr(decoding_child, "read_image", full)
    with pytest.raises(MemoryError):
        decoding_child.decode(written(tmp_path, encoded("PNG")), LIMIT)
