"""What tells a database of ours from another of its name; the count of interruptions takes the place of an older one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("databases", sa.Column("mark", sa.String(), nullable=True))
    op.drop_column("jobs", "interruptions")  # nobody read it any more: it counted deaths of children too
    op.alter_column("jobs", "service_deaths", new_column_name="interruptions")


def downgrade() -> None:
    op.alter_column("jobs", "interruptions", new_column_name="service_deaths")
    op.add_column("jobs", sa.Column("interruptions", sa.Integer(), nullable=False, server_default="0"))
    op.drop_column("databases", "mark")
