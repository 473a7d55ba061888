"""The tables of the job table. Times are seconds since 1970 (UTC); JSON columns hold plain data."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, MetaData, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bgdeploy.jobs.states import State

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
_STATES = ", ".join(f"'{state}'" for state in State)


class Base(DeclarativeBase):
    """Declarative base with named constraints, so that every later migration can name them."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}


class Identity(Base):
    """Whom this job table speaks of; one row."""

    __tablename__ = "identity"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    target: Mapped[str]
    place: Mapped[str]  # state folder (ladybug) or DBMS id (neo4j)
    base_path: Mapped[str]
    created_at: Mapped[float]


class Customer(Base):
    """A tenant: what is live, what may become live, and the one intent to move its alias."""

    __tablename__ = "customers"
    __table_args__ = (UniqueConstraint("alias"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str]
    created_at: Mapped[float]
    live: Mapped[str | None]
    live_timestamp: Mapped[int | None]
    live_build: Mapped[int | None]
    live_since: Mapped[float | None]
    floor_timestamp: Mapped[int] = mapped_column(default=0)
    floor_build: Mapped[int] = mapped_column(default=0)
    generation: Mapped[int] = mapped_column(default=0)
    intent: Mapped[str | None]  # the database the alias is being moved to
    intent_kind: Mapped[str | None]
    intent_who: Mapped[str | None]
    intent_by: Mapped[str | None]  # owner id of the process that moves it
    intent_why: Mapped[str | None]
    intent_at: Mapped[float | None]
    paused_at: Mapped[float | None]
    paused_why: Mapped[str | None]
    served_at: Mapped[float] = mapped_column(default=0.0)  # last claim: the longest unserved goes first
    removed_at: Mapped[
        float | None
    ]  # a person said that it leaves; nothing of it is found or loaded any more
    removed_by: Mapped[str | None]
    removed_why: Mapped[str | None]


class Job(Base):
    """One build of one snapshot on its way through the states."""

    __tablename__ = "jobs"
    __table_args__ = (
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

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(ForeignKey("customers.name"))
    timestamp: Mapped[int]
    build: Mapped[int] = mapped_column(default=1)
    state: Mapped[str]
    fence: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None]
    lease_expires: Mapped[float | None]
    child_pid: Mapped[int | None]
    child_started: Mapped[float | None]
    attempt: Mapped[int] = mapped_column(default=0)
    interruptions: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[float] = mapped_column(default=0.0)
    cancel_at: Mapped[float | None]
    blocked: Mapped[bool] = mapped_column(default=False)
    requested: Mapped[bool] = mapped_column(default=False)  # a person asked: floor and window do not hold it
    step: Mapped[str | None]  # last confirmed step of the load
    reason: Mapped[str | None]  # why it is not further, for people
    error: Mapped[str | None]
    error_code: Mapped[str | None]
    fingerprint: Mapped[str | None]
    fingerprint_at: Mapped[float | None]  # since when the folder looks like this
    changed: Mapped[bool] = mapped_column(default=False)  # its folder changed after it was loaded
    database: Mapped[str | None]
    rows_expected: Mapped[int | None]
    rows_confirmed: Mapped[int] = mapped_column(default=0)
    rows_seen: Mapped[int | None]  # confirmed ones and those on their way, as far as the target tells
    bytes_expected: Mapped[int | None]
    settings: Mapped[dict[str, Any] | None]  # the plan's settings, kept for every later run
    created_at: Mapped[float]
    updated_at: Mapped[float]
    queued_at: Mapped[float | None]
    loading_at: Mapped[float | None]
    loaded_at: Mapped[float | None]
    switched_at: Mapped[float | None]
    ended_at: Mapped[float | None]


class JobEvent(Base):
    """What happened, append-only; a transition has its event in the same transaction."""

    __tablename__ = "job_events"
    __table_args__ = (
        Index("ix_job_events_job_id", "job_id", "id"),
        {"sqlite_autoincrement": True},  # ids are never used twice, also after pruning
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int | None]
    customer: Mapped[str | None]
    at: Mapped[float]
    kind: Mapped[str]
    source: Mapped[str | None]
    target: Mapped[str | None]
    actor: Mapped[str]
    owner: Mapped[str | None]
    fence: Mapped[int | None]
    message: Mapped[str]


class LoadTable(Base):
    """The ledger of a load: one row per group of files that is committed at once."""

    __tablename__ = "load_tables"
    __table_args__ = (UniqueConstraint("job_id", "database", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    database: Mapped[str]
    number: Mapped[int]
    kind: Mapped[str]
    name: Mapped[str]
    source_label: Mapped[str | None]
    target_label: Mapped[str | None]
    files: Mapped[list[Any]]
    rows_expected: Mapped[int]
    rows_confirmed: Mapped[int | None]
    rows_seen: Mapped[int | None]
    starts: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[float | None]
    confirmed_at: Mapped[float | None]
    confirmed_fence: Mapped[int | None]
    found: Mapped[bool] = mapped_column(default=False)  # committed by a run that died before it could say so


class Database(Base):
    """A database that bgdeploy made and therefore owns; the name is never used twice."""

    __tablename__ = "databases"
    __table_args__ = (
        Index("ix_databases_job_id", "job_id"),
        Index("ix_databases_kept", "customer", sqlite_where=text("dropped_at IS NULL")),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    customer: Mapped[str] = mapped_column(ForeignKey("customers.name"))
    timestamp: Mapped[int]
    build: Mapped[int]
    created_at: Mapped[float]
    verified_at: Mapped[float | None]
    counts: Mapped[dict[str, Any] | None]  # {"labels": {...}, "types": {...}}, asked of the database
    left_at: Mapped[float | None]  # when the alias moved away
    pinned_at: Mapped[float | None]
    bad_at: Mapped[float | None]
    bad_why: Mapped[str | None]
    drop_at: Mapped[float | None]  # the intent; from here on nothing may point at it
    drop_why: Mapped[str | None]
    dropped_at: Mapped[float | None]


class Switch(Base):
    """Every move of an alias, append-only and kept for ever."""

    __tablename__ = "switches"
    __table_args__ = (Index("ix_switches_customer", "customer", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    at: Mapped[float]
    source: Mapped[str | None]
    target: Mapped[str | None]
    kind: Mapped[str]  # deploy, switch, rollback, found, repair
    by: Mapped[str]
    why: Mapped[str]
    generation: Mapped[int]
    took_ms: Mapped[float | None]
    job_id: Mapped[int | None]
