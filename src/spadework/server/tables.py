"""The tables of the history, as they stand after the last migration.

Rows are added, never changed, but for marks that are set once: a decision is undone, its picture went into the model or out of it again, files
were removed. `inspections.decision_id` and `decision_kind` repeat what `decisions` says, so that lists need no search.
Numbers are given by the one writer, without gaps: the highest number is also how many there are.
"""

from __future__ import annotations

import sqlalchemy as sa

from spadework.server.database import JsonText, UtcTime

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)


Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # where INTEGER is the row's own number, and has 64 bits


def _number() -> sa.Column[int]:
    return sa.Column("id", Number, primary_key=True, autoincrement=False)


HAS_FILES = sa.text("files_removed_at IS NULL")

inspections = sa.Table(
    "inspections",
    metadata,
    _number(),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("model_hash", sa.Text, nullable=False),
    sa.Column("backbone_hash", sa.Text),
    sa.Column("detector", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("folded_name", sa.Text, nullable=False),  # for finding it by a part, whatever the case
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
    sa.Column("decision_id", Number),
    sa.Column("decision_kind", sa.Text),
    sa.Column("files_removed_at", UtcTime),
    sa.Column("nearest", JsonText, nullable=False),  # the bulky ones last: what is searched is read without them
    sa.Column("timings", JsonText, nullable=False),
    sa.Column("regions", JsonText, nullable=False),
    # Any filter can be answered from the first index alone, newest first, and a model's from the second, which charts are made from too.
    sa.Index("ix_inspections_all", "at", "id", "verdict", "decision_kind", "score", "folded_name"),
    sa.Index(
        "ix_inspections_model",
        *("model", "at", "id", "verdict", "decision_kind", "score", "nearest_distance", "folded_name"),
    ),
    sa.Index("ix_inspections_verdict", "verdict", "at", "id"),
    sa.Index("ix_inspections_decision", "decision_kind", "at", "id"),
    sa.Index("ix_inspections_picture", "picture"),
    sa.Index("ix_inspections_evidence", "evidence"),
    # Those that have their files: what a clean-up goes through, also when a million before them have none.
    sa.Index("ix_inspections_files", "at", "id", sqlite_where=HAS_FILES, postgresql_where=HAS_FILES),
)

watched_files = sa.Table(
    "watched_files",
    metadata,
    sa.Column("inspection_id", Number, sa.ForeignKey("inspections.id"), primary_key=True, autoincrement=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("device", sa.Text, nullable=False),  # text: both may exceed what a database calls an integer
    sa.Column("inode", sa.Text, nullable=False),
    sa.Column("mtime_ns", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("by_path", sa.Text, nullable=False),  # SHA-256 of picture, size, mtime and path ...
    sa.Column("by_inode", sa.Text, nullable=False),  # ... and of the same with device and inode: a renamed file
    sa.UniqueConstraint("by_path", "model"),
    sa.UniqueConstraint("by_inode", "model"),
)

decisions = sa.Table(
    "decisions",
    metadata,
    _number(),
    sa.Column("inspection_id", Number, sa.ForeignKey("inspections.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("model_hash", sa.Text, nullable=False),
    sa.Column("threshold", sa.Double),
    sa.Column("appended", sa.Boolean, nullable=False),
    sa.Column("undone_at", UtcTime),
    sa.Column("undone_by", sa.Text),
    sa.Column("withdrawn", sa.Boolean, nullable=False),
    sa.Index(None, "inspection_id", "id"),
    sa.Index(None, "model", "id"),
)

model_changes = sa.Table(
    "model_changes",
    metadata,
    _number(),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("model_hash_before", sa.Text, nullable=False),
    sa.Column("model_hash_after", sa.Text, nullable=False),
    sa.Column("inspection_id", Number, sa.ForeignKey("inspections.id")),
    sa.Column("pictures", JsonText, nullable=False),
    sa.Column("detail", JsonText, nullable=False),
    sa.Index(None, "model", "id"),
    sa.Index(None, "inspection_id"),
)

changed_pictures = sa.Table(
    "changed_pictures",
    metadata,
    sa.Column("change_id", Number, sa.ForeignKey("model_changes.id"), primary_key=True, autoincrement=False),
    sa.Column("picture", sa.Text, primary_key=True),
    sa.Index(None, "picture", "change_id"),
)
