"""The command that runs an inspection station: serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spadework.cli.console import note, say

Gigabytes = 1_000_000_000


def serve(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="Fitted models, NAME.spade; each is served under NAME.", show_default=False
        ),
    ],
    watch: Annotated[
        list[str],
        typer.Option(
            metavar="FOLDER",
            help="Inspect each picture that appears in this folder, once; MODEL=FOLDER where several are served; may be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - Typer reads it as "none given"
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The history's database, e.g. postgresql+psycopg://user@host/name.  [default: SQLite in --folder]",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where history and pictures go.  [default: station, beside the first model]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; others than loopback need tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="Which port; 0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Who may do what: lines NAME:ROLE:TOKEN, roles inspect, decide, manage. Also read from SPADEWORK_TOKENS.",
            show_default=False,
        ),
    ] = None,
    allow_host: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="A further name under which it may be asked for, e.g. a proxy's; may be repeated.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    max_upload: Annotated[float, typer.Option(metavar="MB", help="The largest file that is taken.")] = 64,
    max_pixels: Annotated[
        float, typer.Option(metavar="MILLIONS", help="The largest picture that is taken, in megapixels.")
    ] = 50,
    rate: Annotated[float, typer.Option(metavar="N", help="Requests a second that one client may send.")] = 200,
    queue: Annotated[
        int, typer.Option(metavar="N", help="Pictures that may wait; more are turned away with 503.")
    ] = 64,
    keep_days: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS", help="Remove pictures nobody marked after so long.  [default: never]", show_default=False
        ),
    ] = None,
    keep_gb: Annotated[
        float | None,
        typer.Option(
            metavar="GB",
            help="Remove the oldest pictures nobody marked above so much.  [default: never]",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Threads of the network and of the search.  [default: one a core]", show_default=False
        ),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Run an inspection station: a page and a service.

    It stops at Ctrl-C or SIGTERM, after what it accepted is finished. Logs go to standard error, one JSON object a line.
    """
    from spadework.errors import MissingExtraError

    try:
        import spadework.server.serve as server
        from spadework.server.settings import MIB, Settings, find_tokens, name_models, read_watches
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("spadework"):
            raise
        raise MissingExtraError("the inspection station", "server") from error

    named = name_models(models)
    settings = Settings(
        models=named,
        folder=folder or models[0].absolute().parent / "station",
        database=database,
        watches=read_watches(watch, named),
        host=host,
        port=port,
        hosts=tuple(allow_host),
        tokens=find_tokens(token_file),
        max_upload=round(max_upload * MIB),
        max_pixels=round(max_pixels * 1_000_000),
        rate=rate,
        queue=queue,
        threads=threads,
        keep_days=keep_days,
        keep_bytes=None if keep_gb is None else round(keep_gb * Gigabytes),
    )

    def ready(address: str) -> None:
        say(f"Spadework is at {address}")
        note("Stop it with Ctrl-C.")
        if open_browser:
            import webbrowser

            webbrowser.open(address)

    server.serve(settings, on_ready=ready)
