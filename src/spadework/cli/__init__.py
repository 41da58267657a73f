"""The command line: parses, calls the library, prints. `spadework --help` names every command.

Exit codes: 0 done; 1 done, but some pictures or runs failed and are named on standard error; 2 nothing done, bad input; 130 interrupted.
Standard output carries results only; progress, notes and errors go to standard error. With `--json` it carries one JSON document.
"""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Run the command line; the entry point of `spadework`."""
    from spadework.cli.app import app
    from spadework.errors import SpadeworkError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may hold bytes that are no text
    try:
        app(prog_name="spadework")
    except SpadeworkError as error:
        sys.stdout.flush()
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("Aborted.\n")  # as Typer says where it catches the interruption itself
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe went away, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
