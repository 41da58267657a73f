"""The schema of the history's database: which version it has, and the way to the newest.

All steps run in one transaction that no other writer shares: two processes that start at once upgrade once, and a crash leaves the
database as it was.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from spadework.errors import MissingExtraError
from spadework.server.database import Database, HistoryVersionError

try:
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
except ImportError as error:
    raise MissingExtraError("the station's history", "server") from error

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "spadework_version"


def newest() -> str:
    """Return the version that this Spadework makes and knows."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None  # there is at least one
    return head


def version(connection: sa.Connection) -> str | None:
    """Return the version of a database; None for an empty one."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def upgrade(database: Database) -> None:
    """Bring a database to the newest version; a new one gets its tables.

    Raises:
        HistoryVersionError: a newer Spadework made it, or it holds tables of something else; it is unchanged.
        HistoryUnavailableError: it does not answer.
    """
    database.prepare()
    with database.writing() as connection:
        found = version(connection)
        if found == newest():
            return
        _check(database, connection, found)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _check(database: Database, connection: sa.Connection, found: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise HistoryVersionError(
            f"{database.name}: is of version {found}, this Spadework knows up to {newest()}: a newer one made it. "
            "Upgrade Spadework, or give another database; nothing was changed."
        )
    if found is None and sa.inspect(connection).has_table("inspections"):
        raise HistoryVersionError(
            f"{database.name}: holds a table 'inspections' that Spadework did not make. "
            "Give the history a database of its own; nothing was changed."
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
