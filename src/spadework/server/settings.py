"""What a station is told when it starts: models, folders, address, tokens and limits. Checked here, once, before anything is opened."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spadework.errors import InputError

ROLES = ("inspect", "decide", "manage")  # each may do what those before it may
TOKENS_VARIABLE = "SPADEWORK_TOKENS"
LEAST_TOKEN = 16  # characters; shorter ones can be guessed
MIB, GIB = 1 << 20, 1 << 30
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HOW_TO_TOKEN = (
    f"Write a file with one line a person or machine, NAME:ROLE:TOKEN (roles: {', '.join(ROLES)}), and pass it with "
    f"--token-file, or set {TOKENS_VARIABLE} to such lines. A token: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
)


@dataclass(frozen=True)
class Token:
    """Whose token it is and what its holder may do. The token itself never shows in messages and logs."""

    name: str
    role: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class WatchedFolder:
    """A folder whose new pictures are inspected by a model."""

    model: str
    folder: Path


@dataclass(frozen=True)
class Settings:
    """A station's settings; see `spadework serve --help`.

    models: model folders by name. folder: pictures and, by default, the database. database: its URL, None for SQLite in `folder`.
    host, port: where it listens; port 0 takes a free one. hosts: further names under which it may be asked for, e.g. by a proxy.
    tokens: who may do what; none: everybody on this machine may do everything.
    max_upload: bytes of a body. max_pixels: of a picture. rate: requests a second of one client. queue: inspections that may wait.
    batch: pictures a forward pass. decoders: processes that decode. decode_seconds, decode_bytes: limits of one decoding.
    body_seconds: how long a client may take to send a body. stop_seconds: how long a stop waits for what was accepted.
    keep_days, keep_bytes: how long, and how much of, pictures nobody marked are kept; None for ever.
    """

    models: Mapping[str, Path]
    folder: Path
    database: str | None = None
    watches: tuple[WatchedFolder, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    tokens: tuple[Token, ...] = ()
    max_upload: int = 64 * MIB
    max_pixels: int = 50_000_000
    rate: float = 200.0
    queue: int = 64
    batch: int = 8
    threads: int | None = None
    decoders: int = 2
    decode_seconds: float = 10.0
    decode_bytes: int = 2 * GIB
    body_seconds: float = 60.0
    stop_seconds: float = 30.0
    keep_days: float | None = None
    keep_bytes: int | None = None

    def __post_init__(self) -> None:
        _check_numbers(self)
        if not self.models:
            raise InputError("a station needs a model: `spadework serve part.spade`.")
        for name, path in self.models.items():
            _check_name(name, path)
        for watch in self.watches:
            _check_watch(watch, self.models)
        if self.tokens:
            return
        if not is_loopback(self.host):
            raise InputError(
                f"--host {self.host} can be reached from other machines, so a station there needs tokens. {HOW_TO_TOKEN}"
            )
        if self.hosts:
            raise InputError(
                f"--allow-host {self.hosts[0]} is for a station behind a proxy, which others reach, so it needs tokens. {HOW_TO_TOKEN}"
            )

    @property
    def database_url(self) -> str:
        """The URL of the database: as given, or SQLite in the station's folder."""
        return self.database or f"sqlite:///{self.folder.absolute() / 'history.sqlite'}"

    @property
    def pictures(self) -> Path:
        """Where pictures and maps are kept."""
        return self.folder / "pictures"

    @property
    def queued_bytes(self) -> int:
        """How much decoded pictures that wait may take: what a queue of ordinary ones does, and always room for the largest two."""
        return max(GIB, 2 * 3 * self.max_pixels)


def _check_numbers(settings: Settings) -> None:
    least = {"max_upload": 1, "max_pixels": 1, "queue": 1, "batch": 1, "decoders": 1, "decode_bytes": 1}
    for name, lowest in least.items():
        if getattr(settings, name) < lowest:
            raise InputError(f"{name} must be at least {lowest}, not {getattr(settings, name)}.")
    for name in ("rate", "decode_seconds", "body_seconds", "stop_seconds", "keep_days", "keep_bytes"):
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise InputError(f"{name} must be above 0, not {value}.")
    if not 0 <= settings.port <= 65535:
        raise InputError(f"port must lie in 0..65535, not {settings.port}; 0 takes a free one.")


def _check_name(name: str, path: Path) -> None:
    if not NAME.fullmatch(name):
        raise InputError(
            f"{path}: a model that is served needs a name of letters, digits, '.', '_' and '-', not {name!r}. Rename its folder."
        )


def _check_watch(watch: WatchedFolder, models: Mapping[str, Path]) -> None:
    if watch.model not in models:
        raise InputError(f"--watch: there is no model {watch.model!r}; there are {', '.join(sorted(models))}.")
    if not watch.folder.is_dir():
        raise InputError(f"--watch: {watch.folder} is no folder. Make it first, or check the spelling.")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there; a name is looked up, and every address must be local."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        pass
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"--host {host}: no such address on this machine. Use 127.0.0.1, or 0.0.0.0 for all."
        ) from error
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def name_models(paths: Iterable[Path]) -> dict[str, Path]:
    """Name models after their folders, without the suffix.

    Raises:
        InputError: two have the same name.
    """
    named: dict[str, Path] = {}
    for path in paths:
        name = path.absolute().name.removesuffix(".spade")
        if name in named:
            raise InputError(f"{path} and {named[name]} would both be called {name!r}. Rename one of the folders.")
        named[name] = path
    return named


def read_watches(values: Sequence[str], models: Mapping[str, Path]) -> tuple[WatchedFolder, ...]:
    """Read `--watch` values: FOLDER where there is one model, MODEL=FOLDER where there are several."""
    return tuple(_read_watch(value, models) for value in values)


def _read_watch(value: str, models: Mapping[str, Path]) -> WatchedFolder:
    name, equals, folder = value.partition("=")
    if equals and name in models:
        return WatchedFolder(name, Path(folder))
    if len(models) == 1:
        return WatchedFolder(next(iter(models)), Path(value))
    raise InputError(f"--watch {value}: say for which model, e.g. --watch {next(iter(models))}={folder or value}.")


def find_tokens(file: Path | None) -> tuple[Token, ...]:
    """Read tokens from a file and from the environment's SPADEWORK_TOKENS.

    Raises:
        InputError: the file cannot be read, or a line breaks a rule. Messages name the line, never what stands in it.
    """
    found: list[Token] = []
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InputError(f"--token-file {file}: cannot be read: {why}.") from error
        found += _read_tokens(text, str(file))
        if not found:
            raise InputError(f"--token-file {file}: holds no token. {HOW_TO_TOKEN}")
    found += _read_tokens(os.environ.get(TOKENS_VARIABLE, ""), TOKENS_VARIABLE)
    for what in ("name", "secret"):
        if len({getattr(token, what) for token in found}) < len(found):
            shown = "names" if what == "name" else "tokens"
            raise InputError(f"two {shown} are the same: everybody needs an own one, so that it shows who did what.")
    return tuple(found)


def _read_tokens(text: str, where: str) -> list[Token]:
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [_read_token(line, f"{where}, line {number}") for number, line in lines if line and not line.startswith("#")]


def _read_token(line: str, where: str) -> Token:
    parts = line.split(":", 2)
    if len(parts) != 3:
        raise InputError(f"{where}: must be NAME:ROLE:TOKEN.")
    name, role, secret = (part.strip() for part in parts)
    if not NAME.fullmatch(name):
        raise InputError(f"{where}: the name must be of letters, digits, '.', '_' and '-', at most 64.")
    if role not in ROLES:
        raise InputError(f"{where}: the role must be one of {', '.join(ROLES)}.")
    if len(secret) < LEAST_TOKEN or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise InputError(f"{where}: the token must have at least {LEAST_TOKEN} printable ASCII characters, no space.")
    return Token(name, role, secret)
