"""A picture in a request's body, read as it comes into a file that never grows beyond the limit.

In: a raw body with an image's media type, or multipart/form-data with one file in the field `image`. What a client says of type and
name is not believed: the type is found out from the content, and the name is only shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.message import Message

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.requests import ClientDisconnect, Request

from spadework.server.problems import Problem, slow

FIELD = "image"
FORM = "multipart/form-data"
RAW = "application/octet-stream"
MOST_OVERHEAD = 64 << 10  # bytes of a form around the picture
MOST_PARTS = 20
LONGEST_NAME = 200
ACCEPTED = f"Send the picture itself with Content-Type image/png (or jpeg, tiff, bmp, webp), or a {FORM} with the field {FIELD!r}."

Write = Callable[[bytes], object]


def clean_name(name: str | None, default: str = "picture") -> str:
    """Return what a picture is called: the last part of a path, printable, not too long. Only shown, never used as a path."""
    last = (name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    printable = "".join(c if c.isprintable() else " " for c in last.encode("utf-8", "replace").decode())
    return printable.strip()[:LONGEST_NAME] or default


def check_head(request: Request, most: int) -> str | None:
    """Return the boundary of a form, None for a raw body. Raises Problem 413 or 415 for what is not worth reading."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "encoding", "A body must not be compressed.", "Send the picture without Content-Encoding.")
    boundary = _boundary(request.headers.get("content-type", ""))
    allowed = most if boundary is None else most + MOST_OVERHEAD
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > allowed:
        raise too_large(most)
    return boundary


def _boundary(content_type: str) -> str | None:
    told = Message()
    told["content-type"] = content_type
    kind = told.get_content_type() if content_type else ""
    if kind.startswith("image/") or kind == RAW:
        return None
    boundary = told.get_param("boundary")
    if kind != FORM or not isinstance(boundary, str) or not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise Problem(
            415, "media_type", f"A body of this type is not taken: {clean_name(kind, 'none given')}.", ACCEPTED
        )
    return boundary


def too_large(most: int) -> Problem:
    """The 413 of a body beyond the limit."""
    return Problem(
        413,
        "too_large",
        f"The picture has more than {most} bytes.",
        "Save it smaller, or start the station with a larger --max-upload.",
    )


async def read_picture(request: Request, write: Write, *, most: int, seconds: float) -> str | None:
    """Read the picture of a request's body.

    Args:
        request: its head was checked.
        write: takes the picture's bytes, piece by piece.
        most: bytes of a picture.
        seconds: how long the client may take.

    Returns:
        The name that a form gives it.

    Raises:
        Problem: 400 for a body that ends early, or a form that is none; 408 too slow; 413 too large; 422 empty, or no picture in it.
    """
    boundary = check_head(request, most)
    target: Target = Raw(write, most) if boundary is None else Form(boundary, write, most)
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                target.feed(piece)
    except TimeoutError:
        raise slow(seconds) from None
    except ClientDisconnect:
        raise Problem(400, "cut_off", "The body ended early.", "Send it again.") from None
    return target.end()


class Raw:
    """A body that is the picture."""

    def __init__(self, write: Write, most: int) -> None:
        self._write, self._most = write, most
        self.size = 0

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self.size += len(piece)
        if self.size > self._most:
            raise too_large(self._most)
        if piece:
            self._write(piece)

    def end(self) -> str | None:
        """Say that the body is complete."""
        if not self.size:
            raise Problem(422, "empty", "The picture is empty (0 bytes).", ACCEPTED)
        return None


class Form:
    """A body that is a form with the picture in one of its fields."""

    def __init__(self, boundary: str, write: Write, most: int) -> None:
        self._raw = Raw(write, most)
        self._most = most + MOST_OVERHEAD
        self._seen = self._parts = 0
        self._header, self._value = bytearray(), bytearray()
        self._disposition = ""
        self._found = self._inside = self._ended = False
        self._name: str | None = None
        self._parser = MultipartParser(
            boundary.encode("ascii"),
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._seen += len(piece)
        if self._seen > self._most:
            raise too_large(self._most - MOST_OVERHEAD)
        try:
            self._parser.write(piece)
        except FormParserError:
            raise _broken() from None

    def end(self) -> str | None:
        """Say that the body is complete; return the picture's name."""
        if not self._ended:
            raise _broken()
        if not self._found:
            raise Problem(422, "no_picture", f"The form has no field {FIELD!r}.", ACCEPTED)
        self._raw.end()
        return self._name

    def _on_part_begin(self) -> None:
        self._parts += 1
        self._disposition = ""
        if self._parts > MOST_PARTS:
            raise Problem(422, "too_many_parts", f"The form has more than {MOST_PARTS} fields.", ACCEPTED)

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = self._value.decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        told = Message()
        told["content-disposition"] = self._disposition.replace("\r", " ").replace("\n", " ")
        self._inside = told.get_param("name", header="content-disposition") == FIELD
        if not self._inside:
            return
        if self._found:
            raise Problem(
                422, "several_pictures", "The form holds several pictures.", "Send each in a request of its own."
            )
        self._found = True
        name = told.get_param("filename", header="content-disposition")
        self._name = name if isinstance(name, str) else None

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._raw.feed(data[start:end])

    def _on_part_end(self) -> None:
        self._inside = False

    def _on_end(self) -> None:
        self._ended = True


Target = Raw | Form


def _broken() -> Problem:
    return Problem(400, "form", "The form is cut off or is none.", ACCEPTED)
