"""The job table: all tables of the first version, and what the file itself refuses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# What the file itself refuses, whoever writes to it. Frozen here; a test compares it with the law.
EDGES = (
    "discovered>queued",
    "queued>discovered",
    "discovered>failed",
    "queued>failed",
    "discovered>cleaned",
    "queued>cleaned",
    "queued>loading",
    "loading>loaded",
    "loading>queued",
    "loading>failed",
    "loaded>switched",
    "loaded>failed",
    "loaded>cleaned",
    "switched>cleaned",
    "failed>queued",
    "failed>discovered",
)
TRIGGERS = {
    "jobs_edges": "BEFORE UPDATE OF state ON jobs WHEN OLD.state <> NEW.state"
    f" AND (OLD.state || '>' || NEW.state) NOT IN {EDGES}",
    "job_events_stay": "BEFORE UPDATE ON job_events",
    "switches_stay": "BEFORE UPDATE ON switches",
    "switches_kept": "BEFORE DELETE ON switches",
}


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("alias", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("live", sa.String(), nullable=True),
        sa.Column("live_timestamp", sa.Integer(), nullable=True),
        sa.Column("live_build", sa.Integer(), nullable=True),
        sa.Column("live_since", sa.Double(), nullable=True),
        sa.Column("floor_timestamp", sa.Integer(), nullable=False),
        sa.Column("floor_build", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("intent", sa.String(), nullable=True),
        sa.Column("intent_kind", sa.String(), nullable=True),
        sa.Column("intent_who", sa.String(), nullable=True),
        sa.Column("intent_by", sa.String(), nullable=True),
        sa.Column("intent_why", sa.String(), nullable=True),
        sa.Column("intent_at", sa.Double(), nullable=True),
        sa.Column("paused_at", sa.Double(), nullable=True),
        sa.Column("paused_why", sa.String(), nullable=True),
        sa.Column("served_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_customers")),
        sa.UniqueConstraint("alias", name=op.f("uq_customers_alias")),
    )
    op.create_table(
        "identity",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("base_path", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_identity_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity")),
    )
    op.create_table(
        "job_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("customer", sa.String(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("target", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=True),
        sa.Column("message", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_events")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("job_events", schema=None) as batch_op:
        batch_op.create_index("ix_job_events_job_id", ["job_id", "id"], unique=False)

    op.create_table(
        "switches",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("customer", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("target", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("took_ms", sa.Double(), nullable=True),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_switches")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("switches", schema=None) as batch_op:
        batch_op.create_index("ix_switches_customer", ["customer", "id"], unique=False)

    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("customer", sa.String(), nullable=False),
        sa.Column("timestamp", sa.Integer(), nullable=False),
        sa.Column("build", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_expires", sa.Double(), nullable=True),
        sa.Column("child_pid", sa.Integer(), nullable=True),
        sa.Column("child_started", sa.Double(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("interruptions", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("cancel_at", sa.Double(), nullable=True),
        sa.Column("blocked", sa.Boolean(), nullable=False),
        sa.Column("requested", sa.Boolean(), nullable=False),
        sa.Column("step", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("fingerprint_at", sa.Double(), nullable=True),
        sa.Column("changed", sa.Boolean(), nullable=False),
        sa.Column("database", sa.String(), nullable=True),
        sa.Column("rows_expected", sa.Integer(), nullable=True),
        sa.Column("rows_confirmed", sa.Integer(), nullable=False),
        sa.Column("bytes_expected", sa.Integer(), nullable=True),
        sa.Column("settings", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("queued_at", sa.Double(), nullable=True),
        sa.Column("loading_at", sa.Double(), nullable=True),
        sa.Column("loaded_at", sa.Double(), nullable=True),
        sa.Column("switched_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "state IN ('discovered', 'queued', 'loading', 'loaded', 'switched', 'cleaned', 'failed')",
            name=op.f("ck_jobs_state"),
        ),
        sa.ForeignKeyConstraint(["customer"], ["customers.name"], name=op.f("fk_jobs_customer_customers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("customer", "timestamp", "build", name=op.f("uq_jobs_customer_timestamp_build")),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_jobs_discovered",
            ["customer", "timestamp"],
            unique=False,
            sqlite_where=sa.text("state = 'discovered'"),
        )
        batch_op.create_index(
            "ix_jobs_leased", ["lease_expires"], unique=False, sqlite_where=sa.text("lease_owner IS NOT NULL")
        )
        batch_op.create_index(
            "ix_jobs_loaded",
            ["customer", "timestamp"],
            unique=False,
            sqlite_where=sa.text("state = 'loaded'"),
        )
        batch_op.create_index(
            "ix_jobs_queued",
            ["customer", "timestamp", "build"],
            unique=False,
            sqlite_where=sa.text("state = 'queued'"),
        )
        batch_op.create_index("ix_jobs_updated_at", ["updated_at"], unique=False)
        batch_op.create_index(
            "uq_jobs_loading", ["customer"], unique=True, sqlite_where=sa.text("state = 'loading'")
        )

    op.create_table(
        "databases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("customer", sa.String(), nullable=False),
        sa.Column("timestamp", sa.Integer(), nullable=False),
        sa.Column("build", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("verified_at", sa.Double(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=True),
        sa.Column("left_at", sa.Double(), nullable=True),
        sa.Column("pinned_at", sa.Double(), nullable=True),
        sa.Column("bad_at", sa.Double(), nullable=True),
        sa.Column("bad_why", sa.String(), nullable=True),
        sa.Column("drop_at", sa.Double(), nullable=True),
        sa.Column("drop_why", sa.String(), nullable=True),
        sa.Column("dropped_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["customer"], ["customers.name"], name=op.f("fk_databases_customer_customers")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_databases_job_id_jobs")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_databases")),
    )
    with op.batch_alter_table("databases", schema=None) as batch_op:
        batch_op.create_index("ix_databases_job_id", ["job_id"], unique=False)
        batch_op.create_index(
            "ix_databases_kept", ["customer"], unique=False, sqlite_where=sa.text("dropped_at IS NULL")
        )

    op.create_table(
        "load_tables",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("database", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("source_label", sa.String(), nullable=True),
        sa.Column("target_label", sa.String(), nullable=True),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("rows_expected", sa.Integer(), nullable=False),
        sa.Column("rows_confirmed", sa.Integer(), nullable=True),
        sa.Column("starts", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("confirmed_at", sa.Double(), nullable=True),
        sa.Column("confirmed_fence", sa.Integer(), nullable=True),
        sa.Column("found", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_load_tables_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_load_tables")),
        sa.UniqueConstraint(
            "job_id", "database", "number", name=op.f("uq_load_tables_job_id_database_number")
        ),
    )
    for name, when in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {when} BEGIN SELECT RAISE(ABORT, 'refused by {name}'); END")


def downgrade() -> None:
    for table in ("switches", "load_tables", "job_events", "databases", "jobs", "identity", "customers"):
        op.drop_table(table)
