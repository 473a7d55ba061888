"""What was found in a snapshot's files, what was proven of its database, and how often the service died under a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("inspection", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("service_deaths", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("databases", sa.Column("proof", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("databases", "proof")
    op.drop_column("jobs", "service_deaths")
    op.drop_column("jobs", "inspection")
