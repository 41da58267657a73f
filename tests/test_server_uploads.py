"""Pictures in bodies: raw and in forms, in pieces of any size, cut off, too large, too slow, of the wrong kind."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("fastapi")
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from spadework.server.problems import Problem
from spadework.server.uploads import MOST_OVERHEAD, clean_name, read_picture

BOUNDARY = "--a-boundary"


def form(*parts: tuple[str, bytes], end: bool = True) -> bytes:
    """A form body of (disposition, content) parts."""
    lines = [
        f"--{BOUNDARY}\r\nContent-Disposition: {told}\r\nContent-Type: image/png\r\n\r\n".encode() + content + b"\r\n"
        for told, content in parts
    ]
    return b"".join(lines) + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


IMAGE = 'form-data; name="image"; filename="a part.png"'
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def read(
    body: bytes | list[bytes], content_type: str | None, *, most=1000, seconds=5.0, length=None, pause=0.0, headers=()
):
    """What arrives, and the name told, of a request with this body."""
    pieces = [body] if isinstance(body, bytes) else list(body)
    head = [(b"content-type", content_type.encode())] if content_type else []
    head += [(b"content-length", str(length).encode())] if length is not None else []
    got = bytearray()

    async def receive():
        if pause:
            await asyncio.sleep(pause)
        if not pieces:
            return {"type": "http.disconnect"}
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def run():
        request = Request({"type": "http", "method": "POST", "headers": [*head, *headers]}, receive)
        return await read_picture(request, got.extend, most=most, seconds=seconds)

    return asyncio.run(run()), bytes(got)


def refused(*arguments, **named) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        read(*arguments, **named)
    return caught.value.status, caught.value.code


@pytest.mark.parametrize("kind", ["image/png", "image/x-anything", "application/octet-stream", "IMAGE/PNG; a=b"])
def test_a_raw_body_is_the_picture(kind):
    assert read([b"ab", b"", b"cd"], kind) == (None, b"abcd")


@given(content=st.binary(min_size=1, max_size=300), step=st.integers(1, 80))
def test_a_form_gives_the_same_in_pieces_of_any_size(content, step):
    body = form(('form-data; name="other"', b"x" * 30), (IMAGE, content), ('form-data; name="last"', b""))
    if f"--{BOUNDARY}".encode() in content:
        return
    pieces = [body[start : start + step] for start in range(0, len(body), step)]
    assert read(pieces, FORM) == ("a part.png", content)


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=" + "b" * 71,
        "multipart/mixed; boundary=a",
        "image",
    ],
)
def test_other_kinds_are_refused(kind):
    assert refused(b"abc", kind) == (415, "media_type")


def test_a_compressed_body_is_refused():
    assert refused(b"abc", "image/png", headers=[(b"content-encoding", b"gzip")]) == (415, "encoding")


def test_what_is_too_large_is_refused_by_its_head_and_by_its_body():
    assert read(b"x" * 1000, "image/png")[1] == b"x" * 1000
    assert refused(b"", "image/png", length=1001) == (413, "too_large")
    assert refused([b"x" * 600, b"x" * 401], "image/png") == (413, "too_large")
    assert refused([b"x" * 600, b"x" * 401], "image/png", length=10) == (413, "too_large")  # it lies
    assert refused(form((IMAGE, b"x" * 1001)), FORM) == (413, "too_large")
    filler = ('form-data; name="other"', b"x" * (MOST_OVERHEAD + 1000))
    assert refused(form(filler, (IMAGE, b"x")), FORM) == (413, "too_large")


def test_an_empty_picture_is_refused():
    assert refused(b"", "image/png") == (422, "empty")
    assert refused(form((IMAGE, b"")), FORM) == (422, "empty")


def test_a_form_must_hold_one_picture():
    assert refused(form(('form-data; name="file"', b"abc")), FORM) == (422, "no_picture")
    assert refused(form((IMAGE, b"a"), (IMAGE, b"b")), FORM) == (422, "several_pictures")
    assert refused(form(*[('form-data; name="n"', b"")] * 30), FORM) == (422, "too_many_parts")


@pytest.mark.parametrize(
    "body", [form((IMAGE, b"abc"), end=False), form((IMAGE, b"abc"))[:-30], b"", b"no form", form((IMAGE, b"a"))[3:]]
)
def test_a_form_that_is_cut_off_or_none_is_refused(body):
    assert refused(body, FORM) == (400, "form")


def test_a_body_that_ends_early_or_comes_too_slowly_is_refused():
    assert refused([b"abc", b"def"][:0], "image/png") == (400, "cut_off")
    assert refused([b"a", b"b", b"c"], "image/png", seconds=0.05, pause=0.03) == (408, "slow")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("part.png", "part.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\part.png", "part.png"),
        ("a\r\nSet-Cookie: b\0", "a  Set-Cookie: b"),
        ("", "picture"),
        (None, "picture"),
        ("/", "picture"),
        ("x" * 500, "x" * 200),
        ("\ud800.png", "?.png"),
    ],
)
def test_names_are_only_shown(name, shown):
    assert clean_name(name) == shown
