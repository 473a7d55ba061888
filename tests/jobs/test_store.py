"""The job table's file: transactions, patience, durability, disks that are full, migrations."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from bgdeploy.errors import StoreError, StoreFull, StoreLost
from bgdeploy.jobs import migrate
from bgdeploy.jobs import store as store_module
from bgdeploy.jobs.models import metadata, processes
from bgdeploy.jobs.states import State
from bgdeploy.jobs.store import Store, open_store
from bgdeploy.jobs.transitions import customers, jobs
from tests.jobs.tables import add_customer, add_job, discover
from tests.tmpfs import small_disk


def test_a_write_holds_the_lock_from_its_first_instruction(store: Store, path: Path) -> None:
    with store.write() as connection:
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection) and raw.in_transaction
        rival = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            rival.execute("BEGIN IMMEDIATE")
        rival.close()


def test_a_read_is_a_transaction_and_never_waits_for_a_writer(store: Store) -> None:
    add_customer(store, "acme")
    with store.write() as writing:
        writing.execute(customers.insert().values(name="b", alias="b", created_at=0.0))
        with store.read() as reading:
            raw = reading.connection.dbapi_connection
            assert isinstance(raw, sqlite3.Connection) and raw.in_transaction
            assert reading.execute(sa.select(customers.c.name)).scalars().all() == ["acme"]


def test_the_pragmas_that_durability_rests_on_are_in_force(store: Store) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "wal_autocheckpoint": 0}
    for begin in (store.write, store.read):
        with begin() as connection:
            found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in wanted}
        assert found == wanted


def test_an_error_rolls_everything_back(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.write() as connection:
        connection.execute(customers.insert().values(name="a", alias="a", created_at=0.0))
        raise ZeroDivisionError
    with store.read() as connection:
        assert not connection.execute(sa.select(customers)).all()


def test_waiting_writers_all_get_their_turn(store: Store) -> None:
    add_customer(store, "acme")
    job_id = add_job(store, "acme", 1)

    def count_up() -> None:
        for _ in range(25):
            with store.write() as connection:
                connection.execute(jobs.update().where(jobs.c.id == job_id).values(fence=jobs.c.fence + 1))

    threads = [threading.Thread(target=count_up) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        assert connection.execute(sa.select(jobs.c.fence)).scalar_one() == 200


def test_a_lock_that_never_ends_is_an_error_that_names_the_file(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOCK_DEADLINE", 0.05)
    rival = sqlite3.connect(path)
    rival.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="stayed locked") as caught, store.write():
        raise AssertionError("the lock was not respected")
    assert str(path) in caught.value.what
    rival.close()


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved", "its folder moved"])
def test_a_file_that_went_away_is_never_gone_on_with(tmp_path: Path, migrated: Path, how: str) -> None:
    path = tmp_path / "state" / "jobs.db"
    path.parent.mkdir()
    shutil.copy(migrated, path)
    store = open_store(path)
    add_customer(store, "acme")
    if how == "deleted":
        path.unlink()
    elif how == "replaced":
        shutil.copy(migrated, tmp_path / "other.db")
        os.replace(tmp_path / "other.db", path)
    else:
        gone = path if how == "moved" else path.parent
        gone.rename(tmp_path / "elsewhere")
    for act in (store.write, store.read):
        with pytest.raises(StoreLost, match=r"deleted, replaced or moved") as caught, act():
            raise AssertionError("it went on with a file that has no name")
        assert "start again" in caught.value.cure
    with pytest.raises(StoreLost):
        store.truncate_log()
    store.close()


def test_folding_the_log_in_waits_for_no_reader_and_so_keeps_no_writer_waiting(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_customer(store, "acme")
    shell = sqlite3.connect(path)
    shell.execute("BEGIN")
    shell.execute("SELECT * FROM customers").fetchall()
    add_job(store, "acme", 1)
    held: list[int] = []
    folding = threading.Thread(target=lambda: held.append(store.truncate_log()))
    folding.start()
    monkeypatch.setattr(store_module, "LOCK_DEADLINE", 5.0)
    while folding.is_alive():
        add_customer(store, f"c{os.urandom(8).hex()}")
    assert held[0] > 0
    shell.close()
    assert store.truncate_log() == 0
    assert os.path.getsize(f"{path}-wal") == 0


def test_one_job_per_snapshot_however_often_it_is_found(store: Store) -> None:
    add_customer(store, "acme")
    assert discover(store, "acme", 1) is not None
    assert discover(store, "acme", 1) is None


def test_two_loads_of_one_customer_are_refused_by_the_file(store: Store) -> None:
    add_customer(store, "acme")
    add_job(store, "acme", 1, State.LOADING)
    with pytest.raises(sa.exc.IntegrityError):
        add_job(store, "acme", 2, State.LOADING)


def test_a_full_disk_is_told_and_nothing_is_lost(migrated: Path) -> None:
    with small_disk(megabytes=2) as disk:
        path = disk / "jobs.db"
        path.write_bytes(migrated.read_bytes())
        store = open_store(path)
        add_customer(store, "acme")
        filler = disk / "filler"
        filler.write_bytes(b"x" * (_free(disk) - 40_960))
        with pytest.raises(StoreFull) as caught:
            for timestamp in range(5000):
                add_job(store, "acme", timestamp)
        assert "Free some space" in caught.value.cure
        with store.read() as connection:
            before = connection.execute(sa.select(sa.func.count()).select_from(jobs)).scalar_one()
        filler.unlink()
        add_job(store, "acme", 9999)
        with store.read() as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(jobs)).scalar_one() == before + 1
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
        store.close()


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def test_a_new_file_is_made_at_the_newest_revision(path: Path) -> None:
    assert migrate.current(path) is None
    migrate.ensure(path)
    assert migrate.current(path) == migrate.HEAD


def test_the_head_in_code_is_the_newest_script() -> None:
    newest = max(file.name[:4] for file in migrate.scripts().glob("versions/[0-9]*.py"))
    assert newest == migrate.HEAD


def test_the_migrations_make_exactly_the_models(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    assert found == []


def test_an_older_file_is_backed_up_before_it_is_changed(path: Path) -> None:
    migrate.ensure(path)
    with sqlite3.connect(path) as raw:
        raw.execute(
            "INSERT INTO customers (name, alias, created_at, floor_timestamp, floor_build, generation, served_at)"
            " VALUES ('acme', 'acme', 0, 0, 0, 0, 0)"
        )
    raw.close()
    migrate._back_up(path, "0001")
    (backup,) = path.parent.glob("jobs.db.backup-0001-*")
    kept = sqlite3.connect(backup)
    assert kept.execute("SELECT name FROM customers").fetchall() == [("acme",)]
    kept.close()


def make_older(path: Path) -> None:
    from alembic import command

    command.upgrade(migrate._alembic(path), "0005")


def test_an_older_file_that_stays_locked_is_an_error_with_its_cure_and_stays_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_older(path)
    monkeypatch.setattr(store_module, "LOCK_DEADLINE", 0.05)
    rival = sqlite3.connect(path)
    rival.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="stayed locked"):
        migrate.ensure(path)
    rival.close()
    assert migrate.current(path) == "0005"


def test_a_table_of_before_processes_were_on_record_keeps_all_it_has(path: Path) -> None:
    from alembic import command

    command.upgrade(migrate._alembic(path), "0009")
    with sqlite3.connect(path) as raw:
        raw.execute(
            "INSERT INTO customers (name, alias, created_at, floor_timestamp, floor_build, generation, served_at)"
            " VALUES ('acme', 'acme', 0, 0, 0, 0, 0)"
        )
        raw.execute(
            "INSERT INTO jobs (customer, timestamp, build, state, fence, lease_owner, lease_expires, attempt, interruptions,"
            " not_before, blocked, requested, furthest, changed, rows_confirmed, created_at, updated_at)"
            " VALUES ('acme', 1, 1, 'loading', 1, 'host~1/7/1-boot/0', 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)"
        )
    raw.close()
    migrate.ensure(path)
    opened = open_store(path)
    with opened.read() as connection:
        assert connection.execute(sa.select(jobs.c.lease_owner)).scalars().all() == ["host~1/7/1-boot/0"]
        assert connection.execute(sa.select(processes)).all() == []
    opened.close()


@pytest.mark.parametrize("copies", [0.5, 1.0])
def test_an_older_file_on_a_full_disk_stays_as_it_is_and_no_torn_copy_stays(copies: float) -> None:
    with small_disk(megabytes=2) as disk:
        path = disk / "jobs.db"
        make_older(path)
        room = 40_960 + int(copies * path.stat().st_size)  # the first is for SQLite's shared memory
        (disk / "filler").write_bytes(b"x" * (_free(disk) - room))
        with pytest.raises(StoreFull):
            migrate.ensure(path)
        for copy in disk.glob("jobs.db.backup*"):
            assert migrate.current(copy) == "0005"
        (disk / "filler").unlink()
        assert migrate.current(path) == "0005"
        migrate.ensure(path)
        assert migrate.current(path) == migrate.HEAD


def test_a_copy_that_a_kill_cut_off_looks_like_none_and_is_made_anew(path: Path) -> None:
    make_older(path)
    torn = path.with_name("jobs.db.backup.part")
    torn.write_bytes(b"SQLite format 3")
    migrate.ensure(path)
    (copy,) = path.parent.glob("jobs.db.backup*")
    assert copy.name.startswith("jobs.db.backup-0005-")
    assert migrate.current(copy) == "0005"


def test_a_file_of_a_newer_version_is_refused(path: Path) -> None:
    migrate.ensure(path)
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(StoreError, match="9999") as caught:
        migrate.ensure(path)
    assert "newer bgdeploy" in caught.value.cure
    assert migrate.current(path) == "9999"


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"hello, this is not a database at all" * 100)
    with pytest.raises(StoreError, match="cannot be read"):
        migrate.ensure(path)


@pytest.mark.timeout(60)
def test_six_processes_that_start_at_once_migrate_once(path: Path) -> None:
    code = f"from pathlib import Path; from bgdeploy.jobs import migrate; migrate.ensure(Path({str(path)!r}))"
    started = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(6)]
    for process in started:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert migrate.current(path) == migrate.HEAD


def test_a_file_that_nobody_can_look_at_now_is_not_taken_for_lost(
    migrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, stat = open_store(migrated), os.stat

    def fail(path: object, **more: object) -> os.stat_result:
        if path == migrated:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return stat(path, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as broken:
        broken.setattr(os, "stat", fail)
        with store.read() as connection:
            assert connection.execute(sa.text("SELECT 1")).scalar_one() == 1
    store.close()
