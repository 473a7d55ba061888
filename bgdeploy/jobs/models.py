"""The tables of the job table. Times are seconds since 1970 (UTC); JSON columns hold plain data.

Plain tables and no mapped classes: importing the mapper would add a quarter to the start of every command.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

from bgdeploy.jobs.states import State

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
_STATES = ", ".join(f"'{state}'" for state in State)
metadata = MetaData(naming_convention=NAMING)


def _key(name: str, kind: type[Any] = Integer) -> Column[Any]:
    return Column(name, kind, primary_key=True)


def _must(name: str, kind: type[Any], *more: Any, **default: Any) -> Column[Any]:
    return Column(name, kind, *more, nullable=False, **default)


def _may(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=True)


# Whom this job table speaks of; one row.
identity = Table(
    "identity",
    metadata,
    _key("id"),
    _must("target", String),
    _must("place", String),  # state folder (ladybug) or DBMS id (neo4j)
    _must("base_path", String),
    _must("created_at", Double),
    CheckConstraint("id = 1", name="one_row"),
)

# A tenant: what is live, what may become live, and the one intent to move its alias.
customers = Table(
    "customers",
    metadata,
    _key("name", String),
    _must("alias", String),
    _must("created_at", Double),
    _may("live", String),
    _may("live_timestamp", Integer),
    _may("live_build", Integer),
    _may("live_since", Double),
    _must("floor_timestamp", Integer, default=0),
    _must("floor_build", Integer, default=0),
    _must("generation", Integer, default=0),
    _may("intent", String),  # the database the alias is being moved to
    _may("intent_kind", String),
    _may("intent_who", String),
    _may("intent_by", String),  # owner id of the process that moves it
    _may("intent_why", String),
    _may("intent_at", Double),
    _may("paused_at", Double),
    _may("paused_why", String),
    _must("served_at", Double, default=0.0),  # last claim: the longest unserved goes first
    _may("removed_at", Double),  # a person said that it leaves; nothing of it is found or loaded any more
    _may("removed_by", String),
    _may("removed_why", String),
    UniqueConstraint("alias"),
)

# One build of one snapshot on its way through the states.
jobs = Table(
    "jobs",
    metadata,
    _key("id"),
    _must("customer", String, ForeignKey("customers.name")),
    _must("timestamp", Integer),
    _must("build", Integer, default=1),
    _must("state", String),
    _must("fence", Integer, default=0),
    _may("lease_owner", String),
    _may("lease_expires", Double),
    _may("child_pid", Integer),
    _may("child_born", String),
    _must("attempt", Integer, default=0),
    _must("interruptions", Integer, default=0),  # how often in a row the whole service died under it
    _must("not_before", Double, default=0.0),
    _may("cancel_at", Double),
    _must("blocked", Boolean, default=False),
    _must("requested", Boolean, default=False),  # a person asked: floor and window do not hold it
    _must("furthest", Integer, default=0),  # the most any run of it confirmed: rows, then one for each step
    _may("step", String),  # last confirmed step of the load
    _may("reason", String),  # why it is not further, for people: written from the two below, read by no logic
    _may("reason_code", String),  # of jobs/reasons.py; nothing where it is judged again
    _may("reason_fields", JSON(none_as_null=True)),
    _may("error", String),
    _may("error_code", String),
    _may("fingerprint", String),
    _may("fingerprint_at", Double),  # since when the folder looks like this
    _must("changed", Boolean, default=False),  # its folder changed after it was loaded
    _may("database", String),
    _may("rows_expected", Integer),
    _must("rows_confirmed", Integer, default=0),
    _may("rows_seen", Integer),  # confirmed ones and those on their way, as far as the target tells
    _may("bytes_expected", Integer),
    _may("settings", JSON),  # the plan's settings, kept for every later run
    _may("inspection", JSON),  # what the inspector found in its files: tables, columns, rows
    _must("created_at", Double),
    _must("updated_at", Double),
    _may("queued_at", Double),
    _may("loading_at", Double),
    _may("loaded_at", Double),
    _may("switched_at", Double),
    _may("ended_at", Double),
    UniqueConstraint("customer", "timestamp", "build"),
    CheckConstraint(f"state IN ({_STATES})", name="state"),
    Index("ix_jobs_queued", "customer", "timestamp", "build", sqlite_where=text("state = 'queued'")),
    Index("ix_jobs_discovered", "customer", "timestamp", sqlite_where=text("state = 'discovered'")),
    Index("ix_jobs_loaded", "customer", "timestamp", sqlite_where=text("state = 'loaded'")),
    Index("uq_jobs_loading", "customer", unique=True, sqlite_where=text("state = 'loading'")),
    Index("ix_jobs_leased", "lease_expires", sqlite_where=text("lease_owner IS NOT NULL")),
    Index("ix_jobs_open", "customer", "timestamp", sqlite_where=text("state <> 'cleaned'")),
    Index("ix_jobs_updated_at", "updated_at"),
)

# What happened, append-only; a transition has its event in the same transaction.
events = Table(
    "job_events",
    metadata,
    _key("id"),
    _may("job_id", Integer),
    _may("customer", String),
    _must("at", Double),
    _must("kind", String),
    _may("source", String),
    _may("target", String),
    _must("actor", String),
    _may("owner", String),
    _may("fence", Integer),
    _must("message", String),
    _may("fields", JSON(none_as_null=True)),  # what the sentence is made of
    Index("ix_job_events_job_id", "job_id", "id"),
    sqlite_autoincrement=True,  # ids are never used twice, also after pruning
)

# The ledger of a load: one row per group of files that is committed at once.
load_tables = Table(
    "load_tables",
    metadata,
    _key("id"),
    _must("job_id", Integer, ForeignKey("jobs.id")),
    _must("database", String),
    _must("number", Integer),
    _must("kind", String),
    _must("name", String),
    _may("source_label", String),
    _may("target_label", String),
    _must("files", JSON),
    _must("rows_expected", Integer),
    _may("rows_confirmed", Integer),
    _may("rows_seen", Integer),
    _must("starts", Integer, default=0),
    _may("started_at", Double),
    _may("confirmed_at", Double),
    _may("confirmed_fence", Integer),
    _must("found", Boolean, default=False),  # committed by a run that died before it could say so
    UniqueConstraint("job_id", "database", "number"),
)

# A database that bgdeploy made and therefore owns; the name is never used twice.
databases = Table(
    "databases",
    metadata,
    _key("name", String),
    _must("job_id", Integer, ForeignKey("jobs.id")),
    _must("customer", String, ForeignKey("customers.name")),
    _must("timestamp", Integer),
    _must("build", Integer),
    _must("created_at", Double),
    _may("verified_at", Double),
    _may("mark", String),  # what tells it from another of its name, where the target has such a thing
    _may("counts", JSON),  # {"labels": {...}, "types": {...}}, asked of the database
    _may("proof", JSON),  # what was compared with the files and how, with the digests
    _may("left_at", Double),  # when the alias moved away
    _may("pinned_at", Double),
    _may("bad_at", Double),
    _may("bad_why", String),
    _may("drop_at", Double),  # the intent; from here on nothing may point at it
    _may("drop_why", String),
    _may("dropped_at", Double),
    Index("ix_databases_job_id", "job_id"),
    Index("ix_databases_kept", "customer", sqlite_where=text("dropped_at IS NULL")),
)

# Every move of an alias, append-only and kept for ever.
switches = Table(
    "switches",
    metadata,
    _key("id"),
    _must("customer", String),
    _must("at", Double),
    _may("source", String),
    _may("target", String),
    _must("kind", String),  # deploy, switch, rollback, found, repair
    _must("by", String),
    _must("why", String),
    _must("generation", Integer),
    _may("took_ms", Double),
    _may("job_id", Integer),
    Index("ix_switches_customer", "customer", "id"),
    sqlite_autoincrement=True,
)

# A process that works, or did: it renews ``seen_at`` while it lives; a lease's holder is found by ``owner``.
processes = Table(
    "processes",
    metadata,
    _key("id"),
    _must("owner", String),
    _must("host", String),  # with the process namespace on it, since pids mean nothing in another
    _must("pid", Integer),
    _must("born", String),  # tick and boot at which it started: no later process has the same
    _must("version", String),
    _must("role", String),  # serve, work, run
    _must("workers", Integer),
    _must("started_at", Double),
    _must("beat_seconds", Double),  # how often it means to give a sign of life
    _must("seen_at", Double),
    _may("stopped_at", Double),
    _may("last_words", String),
    UniqueConstraint("owner"),
)
