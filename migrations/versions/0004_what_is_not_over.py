"""An index of the jobs that are not over: few, where a hundred thousand are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_index(
        "ix_jobs_open", "jobs", ["customer", "timestamp"], sqlite_where=sa.text("state <> 'cleaned'")
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_open", "jobs")
