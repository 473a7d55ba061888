"""Why a job is where it is: codes with fields, their sentences, and tables of a version that had sentences alone."""

from __future__ import annotations

import sqlite3
import string
from contextlib import closing
from pathlib import Path

import pytest

from bgdeploy.jobs import migrate, reasons
from bgdeploy.jobs.reasons import Code, Reason, because, read
from bgdeploy.jobs.states import Actor
from bgdeploy.jobs.store import Store, open_store
from bgdeploy.jobs.transitions import write
from bgdeploy.plain import LONGEST
from tests.jobs.tables import add_customer, add_job, opened, read_job

GOAL = {"customer": "acme", "database": "acme-1"}
LOST = [{"name": "Person", "before": 2000, "after": 900}, {"name": "K->N", "before": 3, "after": 0}]
# What the version before wrote, word for word.
SENTENCES = [
    (because(Code.FOLDER_GONE), "folder gone"),
    (because(Code.CHANGED), "changed, settling"),
    (because(Code.NO_FILES), "no data files yet"),
    (because(Code.NOT_FINISHED, sign="_started_7 has no _committed_7"),
     "not finished: _started_7 has no _committed_7; remove it when nothing writes any more"),
    (because(Code.SETTLING, marker=None, newest=None, since=None, settle_seconds=30.0),
     "settling: it just changed, ready when unchanged for 30 s"),
    (because(Code.SETTLING, marker="_SUCCESS", newest="a.parquet", since="2026-01-31T12:00:00Z", settle_seconds=0.5),
     "_SUCCESS is older than a.parquet; settling: unchanged since 2026-01-31T12:00:00Z, ready when unchanged for 0.5 s"),
    (because(Code.TARGET_UNHEALTHY, reasons=("a: 2 of 1", "b")), "the target is not well: a: 2 of 1; b"),
    (because(Code.NO_ROOM, short=["disk: {1} of 2"]), "waits for room: disk: {1} of 2"),
    (because(Code.HOLDER_LOST, holder="h/1"), "resumes after h/1 was lost"),
    (because(Code.ASKED_FOR, by="me"), "asked for by me"),
    (because(Code.PAUSED, customer="acme"), "acme is paused; go on with: bgdeploy resume acme"),
    (because(Code.PAUSED, customer="a b", why="x"), "a b is paused (x); go on with: bgdeploy resume 'a b'"),
    (because(Code.HELD_FOR_SWITCH, customer="acme"), "waits for: bgdeploy switch acme"),
    (because(Code.NOT_NEWER, **GOAL),
     "not newer than what was live already; to use it all the same: bgdeploy switch acme --to acme-1"),
    (because(Code.SHRUNK, **GOAL, job=7, lost=LOST, max_percent=50.0),
     "fewer rows than live: Person 2,000 -> 900 (-55 %, at most 50 %); K->N 3 -> 0 (-100 %, at most 50 %). If right: "
     "bgdeploy switch acme --to acme-1; else: drop a newer snapshot, or mend its folder and: bgdeploy retry 7 --reload"),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "sentence"), SENTENCES, ids=lambda one: str(getattr(one, "code", "")))
def test_each_reason_says_what_it_always_said(reason: Reason, sentence: str) -> None:
    assert str(reason) == sentence


def test_every_code_has_one_wording_and_none_steers_by_its_fields() -> None:
    assert set(reasons._WORDINGS) == set(Code)
    for wording in reasons._WORDINGS.values():
        if isinstance(wording, str):
            assert all(
                name is None or name.isidentifier() for _, name, _, _ in string.Formatter().parse(wording)
            )
    with pytest.raises(ValueError, match="no-such"):
        because("no-such")


def test_what_is_stored_is_equal_to_what_it_was_made_of_and_goes_as_one(store: Store) -> None:
    add_customer(store, "acme")
    job_id = add_job(store, "acme", 1)
    for reason, _ in SENTENCES:
        with opened(store, Actor.WORKER) as tx:
            write(tx, read_job(store, job_id), reason=reason)
        row = read_job(store, job_id)
        assert (read(row), row["reason"]) == (reason, str(reason))
    with opened(store, Actor.WORKER) as tx:
        write(tx, read_job(store, job_id), reason=None)
    with closing(sqlite3.connect(store.path)) as raw:
        assert raw.execute("SELECT reason, reason_code, reason_fields FROM jobs").fetchall() == [(None,) * 3]


def test_a_field_is_never_longer_than_its_limit_and_steers_no_terminal() -> None:
    reason = because(Code.NO_ROOM, short=["x\x1b[2K" * LONGEST], deep={"a": ["\a"]})
    assert len(reason.fields["short"][0]) <= LONGEST and "\x1b" not in str(reason)
    assert reason.fields["deep"] == {"a": ["\N{REPLACEMENT CHARACTER}"]}


def test_a_sentence_alone_is_refused(store: Store) -> None:
    add_customer(store, "acme")
    job_id = add_job(store, "acme", 1)
    with pytest.raises(AttributeError), opened(store, Actor.WORKER) as tx:
        write(tx, read_job(store, job_id), reason="folder gone")
    assert read_job(store, job_id)["reason"] is None


def test_a_code_of_a_later_version_is_judged_again(store: Store) -> None:
    add_customer(store, "acme")
    row = read_job(
        store, add_job(store, "acme", 1, reason="x", reason_code="of-a-later-one", reason_fields={"a": 1})
    )
    assert read(row) is None


# Rows as revision 0008 had them: (state, blocked, reason), and what becomes of each.
OLDER: list[tuple[str, int, str | None, Reason | None]] = [
    ("discovered", 0, "folder gone", because(Code.FOLDER_GONE)),
    ("discovered", 0, "no data files yet", None),
    ("loaded", 1, None, None),
    ("loaded", 1, "waits for: bgdeploy switch acme", None),
    ("queued", 0, "The alias is moved by another. To go back: bgdeploy switch acme --to acme-1", None),
    ("loaded", 1, "The alias is moved by another. To go back: bgdeploy switch acme --to acme-1", None),
    ("loaded", 1, "fewer rows than live: who knows. If right: bgdeploy switch acme --to acme-1; else: x", None),
    *(("loaded", 1, text, reason) for reason, text in SENTENCES if reason.code in (Code.NOT_NEWER, Code.SHRUNK)),
]  # fmt: skip


def test_a_table_of_the_version_before_keeps_its_sentences_and_gets_the_codes_that_logic_needs(
    path: Path,
) -> None:
    from alembic import command

    command.upgrade(migrate._alembic(path), "0008")
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("INSERT INTO customers (name, alias, created_at, floor_timestamp, floor_build, generation, served_at)"
                    " VALUES ('acme', 'acme', 0, 0, 0, 0, 0)")  # fmt: skip
        for number, (state, blocked, text, _) in enumerate(OLDER, 1):
            raw.execute(
                "INSERT INTO jobs (id, customer, timestamp, build, state, fence, attempt, interruptions, not_before, blocked,"
                " requested, furthest, changed, rows_confirmed, created_at, updated_at, database, reason)"
                " VALUES (?, 'acme', ?, 1, ?, 0, 0, 0, 0, ?, 0, 0, 0, 0, 0, 0, 'acme-1', ?)",
                (number, number, state, blocked, text),
            )
        raw.execute(
            "INSERT INTO job_events (job_id, at, kind, actor, message) VALUES (1, 0, 'load.step', 'worker', 'x')"
        )
    migrate.ensure(path)
    store = open_store(path)
    for number, (state, blocked, text, reason) in enumerate(OLDER, 1):
        row = read_job(store, number)
        assert (row["state"], row["blocked"], row["reason"]) == (state, bool(blocked), text)
        # A field that names the job is the row's own.
        wanted = reason and Reason(
            reason.code, {**reason.fields, **({"job": number} if "job" in reason.fields else {})}
        )
        assert read(row) == wanted, text
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT message, fields FROM job_events").fetchall() == [("x", None)]
    store.close()
