"""Alembic comes here to run migrations, inside the transaction that `spadework.server.schema` opened."""

from alembic import context

from spadework.server.schema import VERSION_TABLE
from spadework.server.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,  # SQLite's too, where nobody ends the transaction behind its back
)
context.run_migrations()
