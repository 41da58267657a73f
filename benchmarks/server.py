"""The inspection station under load: what HTTP adds, eight clients at once, more than it can do, hostile uploads, *this is normal*, kills.

python benchmarks/server.py            # some five minutes
python benchmarks/server.py --tiny
python benchmarks/server.py --part clients --part overload   # these anew, the other rows as they were measured before

Needs the extra `server`. The service is a process of its own, started as a user starts it; its clients run here, on the same cores.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import random
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, Row, finish, parser
from PIL import Image

from spadework import Spade, load
from spadework.datasets.synthetic import render

COLUMNS = {"what": "what", "measured": "measured", "bar": "bar", "reached": "reached"}
CLIENTS = 8
PARTS = ("clients", "overload", "hostile", "normal", "kills")
PATIENCE = 60.0  # seconds for the service to open


@dataclass
class Service:
    """A running `spadework serve`."""

    model: Path
    folder: Path
    watch: Path | None = None
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(default_factory=lambda: Path(os.devnull))

    def start(self) -> float:
        """Start it and wait until it is ready; return how long that took."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "spadework", "serve", str(self.model), "--folder", str(self.folder)]
        command += ["--port", str(self.port), *(["--watch", str(self.watch)] if self.watch else [])]
        started = time.perf_counter()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while time.perf_counter() - started < PATIENCE:
            if self.process.poll() is not None:
                raise SystemExit(f"the service ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", "/readyz")[0] == 200:
                    return time.perf_counter() - started
            time.sleep(0.02)
        raise SystemExit("the service does not become ready")

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json", *, on: Any = None
    ) -> tuple[int, Any]:
        connection = on or self.connection()
        connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
        answer = connection.getresponse()
        content = answer.read()
        if on is None:
            connection.close()
        is_json = (answer.getheader("Content-Type") or "").startswith("application/json")
        return answer.status, json.loads(content) if is_json and content else content

    def inspect(self, picture: bytes, name: str = "part.png", *, on: Any = None) -> tuple[int, Any]:
        path = f"/api/v1/models/{self.model.stem}/inspections?name={name}"
        return self.ask("POST", path, picture, "image/png", on=on)

    def push(self, body: bytes) -> int:
        """Upload what may be refused before it was sent whole; return the status, 0 if none came."""
        connection = self.connection()
        connection.putrequest("POST", f"/api/v1/models/{self.model.stem}/inspections")
        connection.putheader("Content-Type", "image/png")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        with contextlib.suppress(OSError):
            for start in range(0, len(body), 1 << 16):
                connection.send(body[start : start + (1 << 16)])
        try:
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)

    def kill(self) -> None:
        assert self.process is not None
        children = descendants(self.process.pid)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        deadline = time.perf_counter() + 10  # its children must see by themselves that it is gone
        while any(Path(f"/proc/{child}").exists() for child in children) and time.perf_counter() < deadline:
            time.sleep(0.02)

    def resident_mb(self) -> float:
        """Of the service and its children."""
        assert self.process is not None
        total = 0
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return total * os.sysconf("SC_PAGE_SIZE") / 2**20


def descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def pictures(count: int, size: int, *, start: int) -> list[bytes]:
    """Rendered gears as PNG, some with defects."""
    made = []
    for number in range(start, start + count):
        made.append(as_png(gear(number, size, defect="scratch" if number % 4 == 0 else None)))
    return made


def gear(number: int, size: int, *, defect: str | None = None) -> np.ndarray:
    return render("gear", index=number, split="test", defect=defect, severity=1.0, size=size)[0]


def as_png(image: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(image).save(target, "PNG", compress_level=1)
    return target.getvalue()


# ---- what HTTP adds, and eight clients ---------------------------------------------------------------------------------------------


def one_client(service: Service, sent: list[bytes], folder: Path) -> Iterator[Row]:
    paths = []
    for number, picture in enumerate(sent):
        paths.append(folder / f"{number}.png")
        paths[-1].write_bytes(picture)
    model, here, there = load(service.model), [], []
    connection = service.connection()
    for path, picture in zip(paths, sent, strict=True):  # in turns, so that what else the machine does falls on both
        here.append(timed(lambda path=path: model.predict(path)))
        there.append(timed(lambda picture=picture: service.inspect(picture, on=connection)))
    added = 1000 * (statistics.median(there) - statistics.median(here))
    told = f"{added:.1f} ms ({1000 * statistics.median(there):.1f} against {1000 * statistics.median(here):.1f})"
    yield row("inspect over HTTP beyond `predict`, one client, median", told, "15 ms", added <= 15)


def many_clients(service: Service, sent: list[bytes], folder: Path, seconds: float) -> Iterator[Row]:
    model = load(service.model)
    paths = sorted(folder.glob("*.png"))
    list(model.predict_each(paths[:8]))
    took = statistics.median(timed(lambda: list(model.predict_each(paths))) for _ in range(3))
    batch = len(paths) / took
    times, errors, until = [], [], time.perf_counter() + seconds

    def client(number: int) -> None:
        rng, connection = random.Random(number), service.connection()
        while time.perf_counter() < until:
            picture = rng.choice(sent)
            started = time.perf_counter()
            status, answer = service.inspect(picture, on=connection)
            times.append(time.perf_counter() - started)
            if status != 201:
                errors.append((status, answer))

    started = time.perf_counter()
    together([lambda n=n: client(n) for n in range(CLIENTS)])
    rate = len(times) / (time.perf_counter() - started)
    median, slow = statistics.median(times), float(np.quantile(times, 0.99))
    share = rate / batch
    told = f"{share:.2f} ({rate:.1f} a second against {batch:.1f})"
    yield row(f"{CLIENTS} clients for {seconds:g} s: throughput over `predict` on a batch", told, "0.9", share >= 0.9)
    yield row("errors among them", f"{len(errors)} of {len(times)}", "0", not errors)
    told = f"{slow / median:.1f} ({1000 * slow:.0f} ms, {1000 * median:.0f} ms)"
    yield row("99th percentile over median", told, "4", slow < 4 * median)


# ---- more than it can do -------------------------------------------------------------------------------------------------------------


def overload(service: Service, sent: list[bytes], count: int, seconds: float) -> Iterator[Row]:
    """Clients that send one picture after the other, more of them than may wait; who is turned away comes back when told to."""
    taken, away, other, told_when, until = [], [], [], [], time.perf_counter() + seconds

    def client(number: int) -> None:
        rng, connection = random.Random(number), service.connection()
        while (started := time.perf_counter()) < until:
            path = f"/api/v1/models/{service.model.stem}/inspections"
            connection.request("POST", path, rng.choice(sent), {"Content-Type": "image/png"})
            answer = connection.getresponse()
            answer.read()
            took = time.perf_counter() - started
            after = answer.getheader("Retry-After")
            {201: taken, 503: away}.get(answer.status, other).append(took)
            if answer.status == 503:
                told_when.append(after is not None)
                time.sleep(min(float(after or 1), max(0.0, until - time.perf_counter())))

    together([lambda n=n: client(n) for n in range(count)])
    slow = float(np.quantile(taken, 0.99))
    told = f"{len(taken)} inspected, {len(away)} turned away, {len(other)} else"
    yield row(
        f"{count} clients for {seconds:g} s, more than may wait: answers",
        told,
        "201, or 503 with `Retry-After`",
        not other and all(told_when),
    )
    told = f"{slow:.1f} s; turned away in {1000 * statistics.median(away or [0.0]):.0f} ms"
    yield row("99th percentile of those inspected", told, "–", True)


# ---- hostile uploads -----------------------------------------------------------------------------------------------------------------


def hostile(count: int, good: bytes) -> Iterator[bytes]:
    rng = random.Random(0)
    spoilt = bytearray(good[: len(good) // 2])
    kinds: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: good[: rng.randrange(1, len(good) - 20)],
        lambda: rng.randbytes(rng.randrange(1, 5000)),
        lambda: png(60000, 60000, zlib.compress(bytes(100_000))),  # a bomb: nearly nothing that claims to be huge
        lambda: b"%PDF-1.7\n" + rng.randbytes(300),
        lambda: b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        lambda: bytes(spoilt) + rng.randbytes(1000),
        lambda: png(4000, 4000, zlib.compress(bytes(4001 * 10))),  # claims more rows than it has
        lambda: good + bytes(70 * 2**20),  # larger than an upload may be
    ]
    for number in range(count):
        yield kinds[number % len(kinds)]()


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def under_attack(service: Service, sent: list[bytes], count: int) -> Iterator[Row]:
    for picture in sent[:20]:
        service.inspect(picture)
    before, stop, statuses, good = service.resident_mb(), threading.Event(), [], []

    def client(number: int) -> None:
        rng = random.Random(number)
        while not stop.is_set():
            good.append(service.inspect(rng.choice(sent))[0])

    crowd = [threading.Thread(target=client, args=(number,)) for number in range(2)]
    for each in crowd:
        each.start()
    for bad in hostile(count, sent[0]):
        statuses.append(service.push(bad))
    stop.set()
    for each in crowd:
        each.join()
    up = service.ask("GET", "/readyz")[0] == 200
    time.sleep(3)
    after = service.resident_mb()
    clear = sum(400 <= status < 500 for status in statuses)
    yield row(f"{count} hostile uploads during load: answered by a 4xx", f"{clear}", f"{count}", clear == count)
    yield row("good uploads meanwhile", f"{good.count(201)} of {len(good)} inspected", "all", set(good) == {201} and up)
    told = f"{before:.0f} MiB before, {after:.0f} after"
    yield row("memory of service and children", told, "back to where it was", after < before * 1.1 + 20)


# ---- this is normal, and kills -------------------------------------------------------------------------------------------------------


def this_is_normal(service: Service, size: int, count: int) -> Iterator[Row]:
    times, passed = [], 0
    for number in range(count):
        picture = as_png(gear(900 + number, size, defect="scratch"))
        _, found = service.inspect(picture)
        started = time.perf_counter()
        body = json.dumps({"kind": "normal", "note": ""}).encode()
        status, _ = service.ask("POST", f"/api/v1/inspections/{found['id']}/decisions", body)
        _, again = service.inspect(picture)
        times.append(time.perf_counter() - started)
        passed += status == 201 and again["verdict"] == "normal"
    told = f"{max(times):.2f} s, median {statistics.median(times):.2f} s"
    yield row(f"*this is normal* to the next verdict that knows it, longest of {count}", told, "1 s", max(times) < 1)
    yield row("the same picture then passes", f"{passed} of {count}", "all", passed == count)


@dataclass
class Accepted:
    """What the service answered for, while it was killed again and again."""

    verdicts: list[tuple[int, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def gather(self, service: Service, sent: list[bytes], seed: int, stop: threading.Event) -> None:
        """Send pictures, and say of some that they are normal, until told to stop."""
        rng = random.Random(seed)
        while not stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                status, answer = service.inspect(rng.choice(sent))
                if status != 201:
                    continue
                with self.lock:
                    self.verdicts.append((answer["id"], answer["score"]))
                if rng.random() < 0.2:
                    body = json.dumps({"kind": "normal", "note": ""}).encode()
                    service.ask("POST", f"/api/v1/inspections/{answer['id']}/decisions", body)


def kill_once(
    service: Service, accepted: Accepted, sent: list[bytes], drop: Callable[[], None], rng: random.Random
) -> bool:
    """Start it, load it, kill it; return whether the model is sound."""
    service.start()
    stop = threading.Event()
    crowd = [
        threading.Thread(target=accepted.gather, args=(service, sent, rng.randrange(10**6), stop)) for _ in range(3)
    ]
    for each in crowd:
        each.start()
    for _ in range(4):
        drop()
    time.sleep(rng.uniform(0.05, 1.5))
    service.kill()
    stop.set()
    for each in crowd:
        each.join()
    try:
        load(service.model).verify()
    except Exception as error:
        print(error, file=sys.stderr)
        return False
    return True


def kills(service: Service, sent: list[bytes], size: int, count: int) -> Iterator[Row]:
    """Kill it while it inspects uploads and a folder and learns; then see what is left."""
    folder, rng, accepted, dropped = service.watch, random.Random(1), Accepted(), []
    assert folder is not None

    def drop() -> None:
        number = len(dropped)
        dropped.append(f"{number}.png")
        draft = folder / f".{number}.part"
        draft.write_bytes(as_png(gear(5000 + number, size)))
        draft.rename(folder / dropped[-1])

    sound = [kill_once(service, accepted, sent, drop, rng) for _ in range(count)]
    service.start()
    deadline = time.perf_counter() + 120
    while time.perf_counter() < deadline and len(watched(service)) < len(dropped):
        time.sleep(0.5)
    time.sleep(2)  # for any that would come twice
    names = watched(service)
    twice, missed = len(names) - len(set(names)), len(dropped) - len(set(names))
    answers = [(service.ask("GET", f"/api/v1/inspections/{each}"), score) for each, score in accepted.verdicts]
    lost = sum(status != 200 or answer["score"] != score for (status, answer), score in answers)
    service.stop()
    yield row(f"{count} kills under load: accepted verdicts lost", f"{lost} of {len(answers)}", "0", lost == 0)
    yield row("models damaged", f"{sound.count(False)}", "0", all(sound))
    told = f"{twice} twice, {missed} missed of {len(dropped)}"
    yield row("files of the watched folder", told, "0 and 0", twice == missed == 0)


def watched(service: Service) -> list[str]:
    names, cursor = [], ""
    while True:
        _, page = service.ask("GET", f"/api/v1/inspections?limit=200{cursor}")
        names += [Path(each["name"]).name for each in page["items"] if each["source"] == "watch"]
        if not page["cursor"]:
            return names
        cursor = f"&cursor={page['cursor']}"


# ---- all of it -----------------------------------------------------------------------------------------------------------------------


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def together(work: list[Callable[[], None]]) -> None:
    crowd = [threading.Thread(target=each) for each in work]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()


def row(what: str, measured: str, bar: str, reached: bool) -> Row:
    print(f"{what}: {measured} (bar {bar}){'' if reached else '  MISSED'}", file=sys.stderr)
    return {"what": what, "measured": measured, "bar": bar, "reached": "yes" if reached else "no"}


def main() -> int:
    made = parser(__doc__ or "")
    made.add_argument("--part", action="append", choices=PARTS, help="only this; may be given again")
    made.add_argument("--seconds", type=float, default=60.0, help="how long eight clients send")
    options = made.parse_args()
    few, chosen = options.tiny, options.part or PARTS
    size = 64 if few else 512
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        part, sent = folder / "part.spade", pictures(4 if few else 60, size, start=1000)
        normal = [render("gear", index=number, size=size)[0] for number in range(6 if few else 60)]
        (Spade(image_size=64) if few else Spade()).fit(normal, path=part)
        (folder / "sent").mkdir()
        (folder / "watch").mkdir()
        service = Service(part, folder / "station", log=folder / "log")
        started = row("from the command to ready", f"{service.start():.1f} s", "–", True)
        try:
            rows = {
                "clients": lambda: [
                    started,
                    *one_client(service, sent, folder / "sent"),
                    *many_clients(service, sent, folder / "sent", 1 if few else options.seconds),
                ],
                "overload": lambda: [*overload(service, sent, 120, 1 if few else 20)],
                "hostile": lambda: [*under_attack(service, sent, 18 if few else 500)],
                "normal": lambda: [*this_is_normal(service, size, 2 if few else 10)],
            }
            found = {name: rows[name]() for name in rows if name in chosen}
        finally:
            service.stop()
        if "kills" in chosen:
            other = folder / "killed.spade"
            shutil.copytree(part, other)
            target = Service(other, folder / "killed", folder / "watch", log=folder / "log")
            found["kills"] = [*kills(target, sent, size, 1 if few else 20)]
    for name in found:
        found[name] = [{**each, "part": name} for each in found[name]]
    return finish(
        "server", [each for name in PARTS for each in found.get(name) or before(name, options)], COLUMNS, options
    )


def before(part: str, options: argparse.Namespace) -> list[Row]:
    """What was measured of a part that is not measured now."""
    target = Path(options.json) if options.json else RESULTS / "server.json"
    if options.tiny or not target.exists():
        return []
    return [each for each in json.loads(target.read_text(encoding="utf-8"))["rows"] if each.get("part") == part]


if __name__ == "__main__":
    sys.exit(main())
