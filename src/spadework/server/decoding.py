"""Pictures that may be hostile, decoded in processes of their own: a bomb, a bug in a decoder or an endless file costs one of them, not the station.

In: a path. Out: pixels, uint8 (H, W, 3) RGB, and the media type, found out from the content. What the processes do is in decoding_child.py.
Pixels come back through a file without a name (in memory where the system can), so one process may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import json
import logging
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
from spadework.server.errors import Damaged, DecodeTimeout, Overloaded, Stopped

LOG = logging.getLogger("spadework.decoding")
RESTART_SECONDS = 5.0  # after which it is worth another try where no process could be started
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
        self._children: set[_Child] = set()
        self._free: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        try:
            for _ in range(processes):
                self._children.add(self._start())
        except BaseException:
            for child in self._children:
                child.end()
            raise
        for child in self._children:
            self._free.put(child)

    def decode(self, path: str | os.PathLike[str]) -> tuple[np.ndarray, str]:
        """Return a picture's pixels and its media type, such as "image/png".

        Raises:
            NotAPicture: it is in none of the formats PNG, JPEG, TIFF, BMP and WebP.
            TooLarge: it has too many pixels, or takes too much memory.
            Damaged: it is cut off, broken, animated, or the decoder died of it.
            DecodeTimeout: it takes too long.
            Overloaded: the system has no process to give for it; the same picture may be taken later.
            Stopped: `close` was called.
        """
        child = self._free.get()
        try:
            if child is None or self._closed:
                raise Stopped("the decoders are closed.")
            if not child.is_alive:  # not this picture's fault
                child = self._replace(child)
            return child.decode(Path(path).absolute(), self.seconds)
        except (Damaged, Overloaded):
            if self._closed:
                raise Stopped("the decoders are closed.") from None
            raise
        finally:
            self._free.put(self._after(child))

    def _after(self, child: _Child | None) -> _Child | None:
        """What goes back to those that are free: never nothing, or a place would be lost for ever."""
        if child is None:
            return None
        if self._closed:
            child.end()
            return None
        if child.is_alive and child.pictures < PICTURES:
            return child
        with contextlib.suppress(Overloaded):  # the next picture tries again
            return self._replace(child)
        return child

    def _start(self) -> _Child:
        try:
            return _Child(self.memory_bytes, self.max_pixels, self.seconds)
        except OSError as error:  # no process, no memory, no file to be had
            LOG.error("no process to decode pictures can be started: %s", error)
            raise _none_to_decode(error.strerror or str(error)) from error

    def _replace(self, child: _Child) -> _Child:
        child.end()
        with self._lock:
            new = self._start()
            self.replaced += 1
            self._children.discard(child)
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
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the station, which ends us when it is done
                **options,
            )
        except BaseException:
            self._let_room_go()
            raise

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None and not self._late

    def decode(self, path: Path, seconds: float) -> tuple[np.ndarray, str]:
        self._wait_ready()
        self.pictures += 1
        answer = self._ask({"path": os.fspath(path)}, seconds)
        if answer.get("error") in ERRORS:
            raise ERRORS[answer["error"]](str(answer.get("message"))[:LONGEST])
        pixels = self._read(answer.get("shape"))
        if pixels is None or answer.get("media_type") not in MEDIA_TYPES.values():  # a picture may have taken it over
            self.kill()
            raise Damaged("the picture is broken: the decoder died of it.")
        return pixels, answer["media_type"]

    def _wait_ready(self) -> None:
        """Wait until it has begun. Raises Overloaded if it does not: whatever was to be decoded, it is not its fault."""
        if self._ready:
            return
        try:
            self._ready = "ready" in self._answer(START_SECONDS)
        except (Damaged, DecodeTimeout):
            self._ready = False
        if not self._ready:
            self.kill()
            LOG.error("a process to decode pictures ended, or hung, before it was ready")
            raise _none_to_decode("the process for it does not start")

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
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        self._let_room_go()

    def _let_room_go(self) -> None:
        with contextlib.suppress(OSError):
            self._room.close()
        if not self._target.startswith("fd:"):
            Path(self._target).unlink(missing_ok=True)


def _none_to_decode(why: str) -> Overloaded:
    return Overloaded(f"pictures cannot be decoded now: {why}. Try again later.", RESTART_SECONDS)


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
