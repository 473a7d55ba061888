"""Loading processes are known by boot and tick, not by a time of day that moves when the clock is set."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("child_born", sa.String(), nullable=True))
    op.drop_column("jobs", "child_started")


def downgrade() -> None:
    op.add_column("jobs", sa.Column("child_started", sa.Double(), nullable=True))
    op.drop_column("jobs", "child_born")
