"""Interpreters forked from one that has loaded NumPy, Numba, the inner loops and Typer: tests that start dozens pay once for what takes longest.

A fork is a process of its own, killed and ended as any other; what it runs is what `python -c CODE ARGUMENTS` would run, in the folder and
with the environment that the test has then. That each module imports all it needs is told by the tests that start plain interpreters.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import spadework

SOURCE = str(Path(spadework.__file__).parents[1])

MOTHER = """
import contextlib, json, os, socket, sys
import cv2, numpy, PIL.Image, rich.console, rich.table, typer
from spadework import gallery
from spadework.kernels import pruned

pruned.warm_up()
assert "onnxruntime" not in sys.modules  # it starts a thread when it is imported, which its end waits for, and a fork has none but its own
door, code = socket.socket(fileno=int(sys.argv[1])), None
while code is None:
    message, given, _, _ = socket.recv_fds(door, 1 << 20, 3)
    if not message:
        os._exit(0)
    if os.fork():
        for each in given:
            os.close(each)
        with contextlib.suppress(ChildProcessError):  # none is left
            while os.waitpid(-1, os.WNOHANG)[0]:  # keepers that ended
                pass
        continue
    door.close()
    told = given[2]
    child = os.fork()
    if child:  # the keeper: tells how it ends
        for each in (0, 1, 2, *given[:2]):
            os.close(each)
        os.write(told, b"%d\\n" % child)
        os.write(told, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    os.dup2(given[0], 1)
    os.dup2(given[1], 2)
    for each in given:
        os.close(each)
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # those of the mother remember what hers are, a file for instance
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    wanted = json.loads(message)
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    sys.argv, code = ["-c", *wanted["arguments"]], wanted["code"]
exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
"""


@cache
def _door() -> socket.socket:
    """To the mother of all forks of this process; she ends when it does."""
    ours, hers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", MOTHER, str(hers.fileno())]
    subprocess.Popen(
        command, pass_fds=[hers.fileno()], stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": SOURCE}
    )
    hers.close()
    return ours


class Fork:
    """What tests use of `subprocess.Popen`: `pid`, `stdout` and `stderr` as text, `send_signal`, `wait`, `communicate`."""

    def __init__(self, code: str, *arguments: object, cwd: Path | None = None) -> None:
        pipes = [os.pipe() for _ in ("output", "errors", "how it ends")]
        wanted = {
            "code": code,
            "arguments": [str(each) for each in arguments],
            "folder": os.fspath(cwd or Path.cwd()),
            "environment": {**os.environ, "PYTHONPATH": SOURCE},
        }
        socket.send_fds(_door(), [json.dumps(wanted).encode()], [writing for _, writing in pipes])
        for _, writing in pipes:
            os.close(writing)
        self.stdout, self.stderr, self._told = (os.fdopen(reading, encoding="utf-8") for reading, _ in pipes)
        self.pid = int(self._told.readline())
        self.returncode: int | None = None

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = int(self._told.readline())
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it wrote and nobody read, after its end, which closes what this process holds of it."""
        texts: dict[object, bytes] = {self.stdout: b"", self.stderr: b""}
        waiting = list(texts)
        while waiting:
            ready, _, _ = select.select(waiting, [], [], timeout)
            if not ready:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired("fork", timeout)
            for each in ready:
                found = os.read(each.fileno(), 1 << 16)
                texts[each] += found
                if not found:
                    waiting.remove(each)
        self.wait()
        for each in (self.stdout, self.stderr, self._told):
            each.close()
        out, err = (text.decode("utf-8") for text in texts.values())
        return out, err


def run(code: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` of `python -c CODE ARGUMENTS` with `capture_output` and `text`."""
    fork = Fork(code, *arguments, cwd=cwd)
    out, err = fork.communicate()
    return subprocess.CompletedProcess(["fork", *map(str, arguments)], fork.returncode, out, err)
