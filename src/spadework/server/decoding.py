"""Pictures that may be hostile, decoded in processes of their own: a bomb, a bug in a decoder or an endless file costs one of them, not the station.

In: a path. Out: pixels, uint8 (H, W, 3) RGB, and the media type, found out from the content. What the processes do is in decoding_child.py.
Pixels come back through a file without a name (in memory where the system can), so one process may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import spadework
from spadework import check
from spadework.server.decoding_child import ERRORS, LONGEST, MEDIA_TYPES
from spadework.server.errors import Damaged, DecodeTimeout, Stopped

START_SECONDS = 60.0  # for a process to be there, on a machine that is very busy
PICTURES = 2000  # decoded by one process, then another takes its place: what a decoder leaks goes with it
KEPT = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONHOME",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "TMPDIR",
    "VIRTUAL_ENV",
)
START = "import sys; from spadework.server.decoding_child import main; main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])"


class Decoders:
    """Processes that decode. May be asked from any thread; as many pictures are decoded at once as there are processes.

    Args:
        processes: how many.
        max_pixels: a picture with more is refused before a pixel is decoded.
        memory_bytes: that decoding one picture may take (on Linux).
        seconds: that decoding one picture may take.
    """

    def __init__(self, processes: int, max_pixels: int, memory_bytes: int, seconds: float) -> None:
        self.processes = check.positive_int(processes, "processes")
        self.max_pixels = check.positive_int(max_pixels, "max_pixels")
        self.memory_bytes = check.positive_int(memory_bytes, "memory_bytes")
        self.seconds = seconds
        self.replaced = 0  # processes that died, hung or were worn out
        self._closed = False
        self._lock = threading.Lock()
        self._children = {self._start() for _ in range(processes)}
        self._free: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for child in self._children:
            self._free.put(child)

    def decode(self, path: str | os.PathLike[str]) -> tuple[np.ndarray, str]:
        """Return a picture's pixels and its media type, such as "image/png".

        Raises:
            NotAPicture: it is in none of the formats PNG, JPEG, TIFF, BMP and WebP.
            TooLarge: it has too many pixels, or takes too much memory.
            Damaged: it is cut off, broken, animated, or the decoder died of it.
            DecodeTimeout: it takes too long.
            Stopped: `close` was called.
        """
        child = self._free.get()
        try:
            if child is None or self._closed:
                raise Stopped("the decoders are closed.")
            if not child.is_alive:  # not this picture's fault
                child = self._replace(child)
            return child.decode(Path(path).absolute(), self.seconds)
        except Damaged:
            if self._closed:
                raise Stopped("the decoders are closed.") from None
            raise
        finally:
            if self._closed and child is not None:
                child.end()
                child = None
            elif child is not None and (not child.is_alive or child.pictures >= PICTURES):
                child = self._replace(child)
            self._free.put(child)

    def _start(self) -> _Child:
        return _Child(self.memory_bytes, self.max_pixels, self.seconds)

    def _replace(self, child: _Child) -> _Child:
        child.end()
        with self._lock:
            self.replaced += 1
            self._children.discard(child)
            new = self._start()
            self._children.add(new)
            if self._closed:
                new.kill()
        return new

    def close(self) -> None:
        """End all processes. What is being decoded fails."""
        with self._lock:
            self._closed = True
            for child in self._children:
                child.kill()
        with contextlib.suppress(queue.Empty):
            while True:
                idle = self._free.get_nowait()
                if idle is not None:
                    idle.end()
        self._free.put(None)  # whoever waits is told, one after another

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()


class _Child:
    """One process, asked by one thread at a time."""

    def __init__(self, memory_bytes: int, max_pixels: int, seconds: float) -> None:
        self.pictures = 0
        self.max_pixels = max_pixels
        self._ready = False
        self._late = False
        self._room, target = _make_room()
        self._target = target
        command = [sys.executable, "-P", "-c", START, str(memory_bytes), str(max_pixels), str(seconds), target]
        options: dict[str, Any] = {"pass_fds": (int(target[3:]),)} if target.startswith("fd:") else {}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the station, which ends us when it is done
            **options,
        )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None and not self._late

    def decode(self, path: Path, seconds: float) -> tuple[np.ndarray, str]:
        if not self._ready:
            self._ready = "ready" in self._answer(START_SECONDS)
        self.pictures += 1
        answer = self._ask({"path": os.fspath(path)}, seconds)
        if answer.get("error") in ERRORS:
            raise ERRORS[answer["error"]](str(answer.get("message"))[:LONGEST])
        pixels = self._read(answer.get("shape"))
        if pixels is None or answer.get("media_type") not in MEDIA_TYPES.values():  # a picture may have taken it over
            self.kill()
            raise Damaged("the picture is broken: the decoder died of it.")
        return pixels, answer["media_type"]

    def _read(self, shape: Any) -> np.ndarray | None:
        """The pixels that were written; None if they are not those of a picture that may be."""
        sound = isinstance(shape, list) and len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape)
        if not sound or shape[2] != 3 or shape[0] * shape[1] > self.max_pixels:
            return None
        pixels = np.empty(shape, np.uint8)
        view = pixels.data.cast("B")
        self._room.seek(0)
        while view:
            count = self._room.readinto(view)  # type: ignore[attr-defined]
            if not count:
                return None
            view = view[count:]
        self._room.truncate(0)  # pixels are memory
        return pixels

    def _ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it died: so its answer says
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer(seconds)

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        watchdog = threading.Timer(seconds, self._kill_late)
        watchdog.daemon = True
        watchdog.start()
        try:
            line = self._process.stdout.readline(1 << 16)
        finally:
            watchdog.cancel()
        if self._late:
            raise DecodeTimeout(f"the picture takes longer than {seconds:g} seconds to decode.")
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError):
            self.kill()
            raise Damaged("the picture is broken: the decoder died of it.") from None

    def _kill_late(self) -> None:
        self._late = True
        self._process.kill()

    def kill(self) -> None:
        """Let it end now."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Kill it, and let its files go."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._room):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        if not self._target.startswith("fd:"):
            Path(self._target).unlink(missing_ok=True)


def _make_room() -> tuple[BinaryIO, str]:
    """A file for pixels, and what the other process calls it."""
    if hasattr(os, "memfd_create"):
        file = open(os.memfd_create("spadework-pixels"), "r+b", 0)  # noqa: SIM115 - closed by `end`
        return file, f"fd:{file.fileno()}"
    if os.name != "nt":
        unnamed = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        return unnamed, f"fd:{unnamed.fileno()}"
    number, path = tempfile.mkstemp(prefix="spadework-pixels-")
    return open(number, "r+b", 0), path


def _environment() -> dict[str, str]:
    """What the process needs to start, and nothing else: tokens and passwords are none of its business."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    source = os.fspath(Path(spadework.__file__).parents[1])
    paths = [source, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
