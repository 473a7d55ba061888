"""Customers may leave: when somebody said so, who, and why."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("customers", sa.Column("removed_at", sa.Double(), nullable=True))
    op.add_column("customers", sa.Column("removed_by", sa.String(), nullable=True))
    op.add_column("customers", sa.Column("removed_why", sa.String(), nullable=True))


def downgrade() -> None:
    for name in ("removed_why", "removed_by", "removed_at"):
        op.drop_column("customers", name)
