"""How much clients may ask: requests a second of each, inspections at once, bytes that decoded pictures take while they wait."""

from __future__ import annotations

import contextlib
import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator

from spadework.server.problems import Problem, unavailable

MOST_CLIENTS = 10_000


class Rate:
    """A bucket of tokens a client: `rate` a second flow in, at most `burst` are saved up. One request takes one."""

    def __init__(self, rate: float, *, burst: float | None = None) -> None:
        self.rate, self.burst = rate, max(1.0, 2 * rate if burst is None else burst)
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, *, now: float | None = None) -> None:
        """Count a request. Raises Problem 429, which says when to come back."""
        now, client = time.monotonic() if now is None else now, _household(client)
        with self._lock:
            level, last = self._buckets.pop(client, (self.burst, now))
            level = min(self.burst, level + (now - last) * self.rate)
            enough = level >= 1.0
            self._buckets[client] = (level - 1.0 if enough else level, now)
            while len(self._buckets) > MOST_CLIENTS:  # the one not heard of for the longest
                self._buckets.popitem(last=False)
        if not enough:
            after = str(max(1, round((1.0 - level) / self.rate + 0.5)))
            raise Problem(
                429,
                "rate",
                f"More than {self.rate:g} requests a second.",
                "Ask less often.",
                headers={"Retry-After": after},
            )


def _household(client: str) -> str:
    """Whom a client's address counts for: with IPv6 a whole /64, of which anybody has 2**64. What is no address counts as one client."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:  # a proxy on this machine may pass on anything, of any length
        return ""
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)


class Room:
    """Bounded room for what is under way: so many inspections, and so many bytes of decoded pictures."""

    def __init__(self, places: int, most_bytes: int) -> None:
        self.places, self.most_bytes = places, most_bytes
        self._lock = threading.Lock()
        self._taken = self._bytes = 0

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return self._taken

    @property
    def bytes(self) -> int:
        """How many bytes are held."""
        return self._bytes

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place. Raises Problem 503 if none is free."""
        with self._lock:
            if self._taken >= self.places:
                raise unavailable(
                    "overloaded", f"{self.places} pictures are waiting already.", "Send it again a little later."
                )
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold so many bytes. Raises Problem 503 if there is no room; one alone always has it."""
        with self._lock:
            if self._bytes and self._bytes + size > self.most_bytes:
                raise unavailable(
                    "overloaded",
                    "Pictures that are waiting fill the memory set aside for them.",
                    "Send it again a little later.",
                )
            self._bytes += size
        try:
            yield
        finally:
            with self._lock:
                self._bytes -= size
