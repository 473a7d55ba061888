"""Rows on their way: how far a load has come that has not committed yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = ("jobs", "load_tables")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("rows_seen", sa.Integer(), nullable=True))


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "rows_seen")
