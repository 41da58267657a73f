"""The database's schema: made once whoever comes first, known from one version to the next, and never lost by a crash."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from histories import clock, database_url, decide, history, opened, postgresql_server, seen

import spadework
from spadework.server import schema
from spadework.server.database import HistoryVersionError
from spadework.server.records import Filter
from spadework.server.tables import metadata

__all__ = ["clock", "database_url", "history", "postgresql_server"]  # fixtures

VERSIONS = schema.MIGRATIONS / "versions"


def upgrade(url, folder, barrier=None, answers=None):
    with opened(url, folder) as own:
        if barrier:
            barrier.wait()
        try:
            own.upgrade()
            told = own.record_many([seen(0)])[0].id
        except Exception as error:
            told = repr(error)
        if answers:
            answers.put(told)


def test_the_tables_are_those_that_the_code_knows(history):
    with history.database.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": schema.VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []
        assert schema.version(connection) == schema.newest()


def test_partial_indices_and_keys_are_made_too(history):
    """What the comparison above does not see."""
    with history.database.reading() as connection:
        told = sa.inspect(connection)
        files = next(i for i in told.get_indexes("inspections") if i["name"] == "ix_inspections_files")
        options = {key.split("_")[1]: str(value) for key, value in files["dialect_options"].items()}
        assert "files_removed_at IS NULL" in options["where"]
        for table in metadata.tables.values():
            assert set(told.get_pk_constraint(table.name)["constrained_columns"]) == set(
                table.primary_key.columns.keys()
            )
            columns = {one["name"]: one["nullable"] for one in told.get_columns(table.name)}
            assert columns == {one.name: one.nullable for one in table.columns}


def test_upgrading_again_changes_nothing(history):
    first = history.record_many([seen(0)])
    history.upgrade()
    assert history.find().items == tuple(first)


@pytest.mark.slow
def test_two_processes_that_start_at_once_upgrade_once(database_url, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(4), context.Queue()
    starting = [
        context.Process(target=upgrade, args=(database_url, tmp_path / "files", barrier, answers)) for _ in range(4)
    ]
    for process in starting:
        process.start()
    assert sorted(answers.get(timeout=60) for _ in starting) == [1, 2, 3, 4]
    for process in starting:
        process.join(60)


def test_a_database_of_a_newer_version_is_refused_and_unchanged(history):
    history.record_many([seen(0)])
    with history.database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(
        HistoryVersionError, match=f"of version 9999, this Spadework knows up to {schema.newest()}"
    ) as error:
        history.upgrade()
    assert "Upgrade Spadework" in str(error.value)
    assert history.count() == 1


def test_a_database_of_something_else_is_refused(database_url, tmp_path):
    with opened(database_url, tmp_path / "files") as own:
        with own.database.writing() as connection:
            connection.exec_driver_sql("CREATE TABLE inspections (id INTEGER)")
        with pytest.raises(HistoryVersionError, match="that Spadework did not make"):
            own.upgrade()


@pytest.fixture
def next_version(tmp_path, monkeypatch):
    """A Spadework of the future, with one migration more."""
    later = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, later)
    text = '''"""A column more."""
import sqlalchemy as sa
from alembic import op
revision = "next"
down_revision = "{newest}"
def upgrade():
    op.add_column("inspections", sa.Column("shift", sa.Text))
    op.create_index("ix_shift", "inspections", ["shift"])
    {fails}
'''

    def use(fails: str = "") -> None:
        (later / "versions" / "v9999_next.py").write_text(text.format(newest=newest, fails=fails))

    newest = schema.newest()
    monkeypatch.setattr(schema, "MIGRATIONS", later)
    return use


def test_an_older_database_is_brought_up_with_its_rows(history, next_version):
    first = history.record_many([seen(0), seen(1)])
    made = decide(history, 1)
    next_version()
    history.upgrade()
    with history.database.reading() as connection:
        assert schema.version(connection) == "next"
        assert "shift" in {column["name"] for column in sa.inspect(connection).get_columns("inspections")}
    assert history.get(2) == first[1]
    assert history.get(1).decision == made
    assert [one.id for one in history.record_many([seen(2)])] == [3]


def test_a_migration_that_fails_leaves_the_database_as_it_was(history, next_version):
    history.record_many([seen(0)])
    next_version("raise RuntimeError('power cut')")
    with pytest.raises(RuntimeError, match="power cut"):
        history.upgrade()
    with history.database.reading() as connection:
        assert schema.version(connection) == "0001"
        assert "shift" not in {column["name"] for column in sa.inspect(connection).get_columns("inspections")}
    assert history.count() == 1


def test_there_is_no_way_back(history):
    config = schema._config()
    with history.database.writing() as connection:
        config.attributes["connection"] = connection
        with pytest.raises(RuntimeError, match="restore the back-up"):
            command.downgrade(config, "base")


def test_migrations_are_packages_of_python_files_alone():
    """So they are in a wheel without being named."""
    found = pytest.importorskip("setuptools").find_packages(Path(spadework.__file__).parents[1])
    assert {"spadework.server.migrations", "spadework.server.migrations.versions"} <= set(found)
    files = {path for path in schema.MIGRATIONS.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.suffix for path in files} == {".py"}


# ---------------------------------------------------------------- killed


WRITER = """
import sys
from histories import Clock, decide, opened, seen
with opened(sys.argv[1], sys.argv[2], Clock()) as own:
    for k in range(10000):
        one = own.record_many([seen(10 * k + i) for i in range(5)])[0]
        made = decide(own, one, note=str(k))
        if k % 3 == 0:
            own.undo(made.id, "ben")
        print(one.id + 4, made.id, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")
def test_what_was_accepted_outlives_a_kill_at_any_moment(history, database_url, tmp_path):
    accepted = 0
    for wait in (3, 17, 40, 41, 42):
        places = [str(Path(spadework.__file__).parents[1]), str(Path(__file__).parent)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, database_url, str(tmp_path / "files")],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        lines = [process.stdout.readline() for _ in range(wait)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        process.wait()
        whole = [line for line in lines if line.endswith("\n")]
        accepted, decided = map(int, whole[-1].split())
        assert history.count() >= accepted and history.count() % 5 == 0  # whole batches
        assert history.decision(decided) is not None
    counted, cursor = 0, None
    while True:
        page = history.find(Filter(limit=1000, cursor=cursor))
        counted += len(page.items)
        for one in page.items:  # what the row repeats is what its decisions say
            standing = [d for d in history.decisions(one.id) if d.undone_at is None] if one.id % 5 == 1 else []
            assert one.decision == (standing[-1] if standing else None)
        cursor = page.cursor
        if cursor is None:
            break
    assert counted == history.count() >= accepted > 0
