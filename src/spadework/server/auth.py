"""Who asks, and whether they may: tokens, sessions in a cookie, roles, and what keeps other web sites out.

Tokens are kept as keyed hashes and compared in constant time. Without tokens the station is reached from this machine only, and
whoever asks is "local" and may do everything; then a request that came through a proxy is refused, for it may be anybody's.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from spadework.server.problems import Problem
from spadework.server.settings import ROLES, Settings, is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "x-csrf-token"
PROXY_HEADERS = frozenset({"forwarded", "x-real-ip", "via", "x-client-ip", "true-client-ip", "cf-connecting-ip"})
FORWARDED = "x-forwarded-"  # how others of their headers begin
MOST_SESSIONS = 10_000
SESSION_SECONDS = 12 * 3600.0  # a shift, counted from the last request
SIGN_IN = "Send `Authorization: Bearer TOKEN`, or sign in at POST /api/v1/session."


@dataclass(frozen=True)
class Principal:
    """Somebody who asks: name, role, and, for a session, the token that its unsafe requests must carry."""

    who: str
    role: str
    csrf: str | None = None

    def may(self, role: str) -> bool:
        """Whether this one may do what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)


LOCAL = Principal("local", "manage")


class Sessions:
    """Sessions of browsers, in memory, by the hash of what the cookie holds: a restart signs everybody out."""

    def __init__(self, *, seconds: float = SESSION_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[float, Principal]] = OrderedDict()

    def start(self, principal: Principal) -> tuple[str, Principal]:
        """Return what the cookie is to hold, and who its holder is."""
        key, known = secrets.token_urlsafe(32), Principal(principal.who, principal.role, secrets.token_urlsafe(24))
        with self._lock:
            self._open[_digest(key)] = (time.monotonic(), known)
            while len(self._open) > MOST_SESSIONS:
                self._open.popitem(last=False)
        return key, known

    def find(self, key: str, *, renew: bool = True) -> Principal | None:
        """Return whose session it is; with `renew` it lives on from now."""
        now, digest = time.monotonic(), _digest(key)
        with self._lock:
            last, principal = self._open.get(digest, (0.0, None))
            if principal is None or now - last > self._seconds:
                self._open.pop(digest, None)
                return None
            if renew:
                self._open[digest] = (now, principal)
                self._open.move_to_end(digest)
        return principal

    def end(self, key: str) -> None:
        """Forget a session."""
        with self._lock:
            self._open.pop(_digest(key), None)


class Doorkeeper:
    """Knows tokens and sessions, and says who asks."""

    def __init__(self, settings: Settings) -> None:
        self._key = secrets.token_bytes(32)
        self._known = [(self._hash(token.secret), Principal(token.name, token.role)) for token in settings.tokens]
        self.cookie = (
            f"spadework_session_{settings.port}"  # cookies do not tell ports apart: two stations must not share one
        )
        self.sessions = Sessions()

    @property
    def open_to_all(self) -> bool:
        """Whether there are no tokens: whoever reaches the station may do everything."""
        return not self._known

    def _hash(self, secret: str) -> bytes:
        return hmac.digest(self._key, secret.encode("utf-8", "surrogateescape"), "sha256")

    def holder(self, secret: str) -> Principal | None:
        """Return whose token it is. Takes the same time whether and which one matches."""
        given, found = self._hash(secret), None
        for known, principal in self._known:
            if hmac.compare_digest(known, given):
                found = principal
        return found

    def identify(self, headers: Mapping[str, str], cookies: Mapping[str, str], *, renew: bool = True) -> Principal:
        """Return who asks; with `renew` their session lives on from now. Raises Problem 401 for somebody unknown."""
        if self.open_to_all:
            return LOCAL
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme:
            found = self.holder(secret.strip()) if scheme.lower() == "bearer" else None
            if found is None:
                raise _unknown("This token is not known here.")
            return found
        key = cookies.get(self.cookie)
        session = self.sessions.find(key, renew=renew) if key else None
        if session is None:
            raise _unknown("Who asks is not known." if key is None else "This session has ended.")
        return session

    def admit(self, method: str, headers: Mapping[str, str], cookies: Mapping[str, str], role: str) -> Principal:
        """Return who asks, if they may do what `role` may. Raises Problem 401 or 403."""
        principal = self.identify(headers, cookies)
        if principal.csrf is not None and method not in SAFE_METHODS:
            given = headers.get(CSRF_HEADER, "")
            if not hmac.compare_digest(given.encode(), principal.csrf.encode()):
                raise Problem(
                    403, "csrf", "The header X-CSRF-Token is missing or wrong.", "GET /api/v1/session tells the token."
                )
        if not principal.may(role):
            needed = " or ".join(ROLES[ROLES.index(role) :])
            raise Problem(
                403,
                "role",
                f"This needs the role {needed}; {principal.who} has {principal.role}.",
                "Ask who manages the station.",
            )
        return principal


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _unknown(message: str) -> Problem:
    return Problem(401, "unauthorised", message, SIGN_IN, headers={"WWW-Authenticate": 'Bearer realm="spadework"'})


class Origins:
    """Keeps web sites out that a browser on this machine has open: by the name under which the station is asked for, and by where a
    request comes from."""

    def __init__(self, settings: Settings) -> None:
        self._local = is_loopback(settings.host)
        self._open = not settings.tokens
        self._names = {"localhost", settings.host.lower().strip("[]"), *(name.lower() for name in settings.hosts)}
        if not self._local:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def check(self, method: str, scheme: str, headers: Mapping[str, str], *, api: bool) -> None:
        """Raise Problem 421 or 403 for a request that no page or program of the station's own would send."""
        host = headers.get("host", "")
        if not self._is_own(_host_name(host)):
            raise Problem(
                421,
                "host",
                "The station is not asked for under this name.",
                "Use its own address, or start it with --allow-host NAME.",
            )
        if self._open and any(name in PROXY_HEADERS or name.startswith(FORWARDED) for name in headers):
            raise Problem(
                403,
                "proxy",
                "This request came through a proxy, and the station has no tokens.",
                "Start it with --token-file.",
            )
        if not api:
            return
        foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        origin = headers.get("origin")
        if foreign or (
            method not in SAFE_METHODS and origin is not None and origin.lower() != f"{scheme}://{host}".lower()
        ):
            raise Problem(
                403, "origin", "This request comes from another web site.", "Use the station's own page, or a program."
            )

    def _is_own(self, name: str) -> bool:
        """An address is no name that somebody could point elsewhere, so any will do where others may reach the station."""
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._local


def _host_name(host: str) -> str:
    """The Host header without its port."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")
