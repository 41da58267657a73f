"""A PostgreSQL server for tests: from Debian's packages, on a socket in a folder of its own, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARIES = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs; None where there is none."""
    found = [folder for folder in BINARIES.glob("*/bin") if (folder / "initdb").is_file()]
    named = shutil.which("initdb")
    if not found and named:
        found = [Path(named).resolve().parent]
    return max(
        found,
        key=lambda folder: [int(part) for part in folder.parent.name.split(".") if part.isdecimal()],
        default=None,
    )


def why_not() -> str | None:
    """Why no server can be started; None if one can."""
    if programs() is None:
        return "PostgreSQL is not installed: no initdb in /usr/lib/postgresql/*/bin or on PATH"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed: the extra 'postgresql'"
    if os.name == "nt":
        return "the server is started on a Unix socket"
    if os.geteuid() == 0 and _someone() is None:
        return "PostgreSQL does not run as root, and there is no other user to run it as"
    return None


def _someone() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


@contextmanager
def server() -> Iterator[str]:
    """Start a server and give its URL without a database's name; it ends with the context."""
    tools = programs()
    assert tools is not None
    folder = Path(tempfile.mkdtemp(prefix="spadework-pg-"))  # short: a socket's path may have 107 bytes
    someone = _someone() if os.geteuid() == 0 else None
    run = {} if someone is None else {"user": someone.pw_uid, "group": someone.pw_gid, "extra_groups": []}
    if someone is not None:
        os.chown(folder, someone.pw_uid, someone.pw_gid)
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    data = folder / "data"
    initdb = [tools / "initdb", "-D", data, "-U", "station", "-A", "trust", "--no-sync", "-E", "UTF8"]
    process = None
    try:
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=folder, **run)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "fsync": "off",
            "shared_buffers": "32MB",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [tools / "postgres", "-D", data, *options], stdout=log, stderr=log, env=environment, cwd=folder, **run
            )
        ready = [tools / "pg_isready", "-h", folder, "-U", "station", "-t", "1", "-q"]
        for _ in range(200):
            if process.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            if subprocess.run(ready, cwd=folder).returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise RuntimeError("PostgreSQL does not answer:\n" + (folder / "log").read_text())
        yield f"postgresql://station@/{{}}?host={folder}"
    finally:
        if process is not None:
            process.terminate()  # no new connections, the old ones end by themselves ...
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.send_signal(2)  # ... or are ended
                process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def new_database(url: str, name: str) -> str:
    """Make an empty database on the server of this URL and return its own URL."""
    import psycopg

    with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return url.format(name)
