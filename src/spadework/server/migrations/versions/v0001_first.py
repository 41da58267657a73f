"""The first version: inspections, watched files, decisions, changes of models."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make all tables."""
    _inspections()
    _watched_files()
    _decisions()
    _model_changes()


def _inspections() -> None:
    op.create_table(
        "inspections",
        sa.Column("id", number, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_hash", sa.Text, nullable=False),
        sa.Column("backbone_hash", sa.Text),
        sa.Column("detector", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("folded_name", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("picture", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("threshold", sa.Double),
        sa.Column("map_threshold", sa.Double),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("nearest_distance", sa.Double),
        sa.Column("evidence", sa.Text),
        sa.Column("decision_id", number),
        sa.Column("decision_kind", sa.Text),
        sa.Column("files_removed_at", sa.BigInteger),
        sa.Column("nearest", sa.Text, nullable=False),
        sa.Column("timings", sa.Text, nullable=False),
        sa.Column("regions", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_inspections"),
    )
    indices = {
        "all": ["at", "id", "verdict", "decision_kind", "score", "folded_name"],
        "model": ["model", "at", "id", "verdict", "decision_kind", "score", "nearest_distance", "folded_name"],
        "verdict": ["verdict", "at", "id"],
        "decision": ["decision_kind", "at", "id"],
        "picture": ["picture"],
        "evidence": ["evidence"],
    }
    for name, columns in indices.items():
        op.create_index(f"ix_inspections_{name}", "inspections", columns)
    there = sa.text("files_removed_at IS NULL")
    op.create_index("ix_inspections_files", "inspections", ["at", "id"], sqlite_where=there, postgresql_where=there)


def _watched_files() -> None:
    op.create_table(
        "watched_files",
        sa.Column("inspection_id", number, autoincrement=False, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("inode", sa.Text, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("by_path", sa.Text, nullable=False),
        sa.Column("by_inode", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("inspection_id", name="pk_watched_files"),
        sa.ForeignKeyConstraint(["inspection_id"], ["inspections.id"], name="fk_watched_files_inspection_id"),
        sa.UniqueConstraint("by_path", "model", name="uq_watched_files_by_path_model"),
        sa.UniqueConstraint("by_inode", "model", name="uq_watched_files_by_inode_model"),
    )


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", number, autoincrement=False, nullable=False),
        sa.Column("inspection_id", number, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_hash", sa.Text, nullable=False),
        sa.Column("threshold", sa.Double),
        sa.Column("appended", sa.Boolean, nullable=False),
        sa.Column("undone_at", sa.BigInteger),
        sa.Column("undone_by", sa.Text),
        sa.Column("withdrawn", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
        sa.ForeignKeyConstraint(["inspection_id"], ["inspections.id"], name="fk_decisions_inspection_id"),
    )
    op.create_index("ix_decisions_inspection_id_id", "decisions", ["inspection_id", "id"])
    op.create_index("ix_decisions_model_id", "decisions", ["model", "id"])


def _model_changes() -> None:
    op.create_table(
        "model_changes",
        sa.Column("id", number, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("model_hash_before", sa.Text, nullable=False),
        sa.Column("model_hash_after", sa.Text, nullable=False),
        sa.Column("inspection_id", number),
        sa.Column("pictures", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_changes"),
        sa.ForeignKeyConstraint(["inspection_id"], ["inspections.id"], name="fk_model_changes_inspection_id"),
    )
    op.create_index("ix_model_changes_model_id", "model_changes", ["model", "id"])
    op.create_index("ix_model_changes_inspection_id", "model_changes", ["inspection_id"])
    op.create_table(
        "changed_pictures",
        sa.Column("change_id", number, autoincrement=False, nullable=False),
        sa.Column("picture", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("change_id", "picture", name="pk_changed_pictures"),
        sa.ForeignKeyConstraint(["change_id"], ["model_changes.id"], name="fk_changed_pictures_change_id"),
    )
    op.create_index("ix_changed_pictures_picture_change_id", "changed_pictures", ["picture", "change_id"])


def downgrade() -> None:
    """Refuse: what the station remembers is not thrown away."""
    raise RuntimeError("there is no way back: restore the back-up that was made before the upgrade.")
