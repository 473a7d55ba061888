"""Configurations, job tables and disks that are wrong, with what a user sees.

``{here}`` stands for the temporary folder and ``{n}`` for a number that varies; all else is exact.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bgdeploy.actions import page

Damage = Callable[[Path], object]
_NONE_STARTED = f"  Nothing was started.\n  Every key is explained in {page('configuration.md')}.\n"
# What stands in config.yaml, and what every command says of it.
CONFIGS: dict[str, tuple[str, str]] = {
    "several faults": (
        "target: ladybird\norchestrator:\n  num_workers: many\n  keep_database: 2\ndataset: 7\n",
        "bgdeploy: {here}/config.yaml:1: target: 'ladybird' is not one of 'ladybug' or 'neo4j', did you mean ladybug?\n"
        "{here}/config.yaml:3: orchestrator.num_workers: 'many' is not a whole number\n"
        "{here}/config.yaml:4: orchestrator.keep_database: unknown key, did you mean keep_databases?\n"
        "{here}/config.yaml:5: dataset: must be a section with keys of its own (base_path, settle_seconds, expire_days, columns)\n"
        + _NONE_STARTED,
    ),
    "no YAML": (
        "a: b: c\n",
        "bgdeploy: {here}/config.yaml:1: YAML syntax: mapping values are not allowed here\n" + _NONE_STARTED,
    ),
    "a variable that is not set": (
        "state_dir: ${NOT_SET_ANYWHERE}\n",
        "bgdeploy: {here}/config.yaml:1: state_dir: the environment variable NOT_SET_ANYWHERE is not set and ${NOT_SET_ANYWHERE} has no default\n"
        + _NONE_STARTED,
    ),
    "a list": (
        "- a\n- b\n",
        "bgdeploy: {here}/config.yaml:1: must hold `key: value` lines at the top level\n" + _NONE_STARTED,
    ),
    "a number that is none": (
        "dataset: {settle_seconds: soon}\n",
        "bgdeploy: {here}/config.yaml:1: dataset.settle_seconds: 'soon' is not a number\n" + _NONE_STARTED,
    ),
    "a key of another section": (
        "num_worker: 3\n",
        "bgdeploy: {here}/config.yaml:1: num_worker: unknown key, did you mean orchestrator.num_workers?\n"
        + _NONE_STARTED,
    ),
}


def sql(statement: str) -> Damage:
    """Somebody's hand in the job table."""

    def act(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement)

    return act


def cut(path: Path) -> None:
    """What a copy that was cut off leaves."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_another(path: Path) -> None:
    """A database that some other program keeps there."""
    path.unlink()
    sql("CREATE TABLE notes (text)")(path)


def folder(path: Path) -> None:
    """A folder in its place."""
    path.unlink()
    path.mkdir()


_RESTORE = (
    "  Nothing was changed; databases and aliases are untouched.\n"
    "  Stop bgdeploy and put a copy back (your own, or a jobs.db.backup-* beside it). Without one, move it away "
    "and start again: what is live stays live, and the newest snapshots are loaded anew.\n"
)
_REBIND = (
    "  Nothing was changed.\n  Use another state_dir, or move it on purpose with: bgdeploy init --rebind\n"
)
SHUT = (
    "  Nothing was changed; what is live stays live.\n"
    "  Check that it is a file, that its disk is not read-only, and owner and rights of its folder.\n"
)
_TABLE = "bgdeploy: The job table {here}/state/jobs.db"
# What happened to the job table; exit code and stderr of every command.
JOB_TABLES: dict[str, tuple[Damage, int, str]] = {
    "no database": (
        lambda path: path.write_bytes(b"\0\1" * 5000),
        6,
        f"{_TABLE} cannot be read (file is not a database).\n{_RESTORE}",
    ),
    "cut off": (cut, 6, f"{_TABLE} cannot be read (database disk image is malformed).\n{_RESTORE}"),
    "a folder": (folder, 6, f"{_TABLE} cannot be opened for writing (unable to open database file).\n{SHUT}"),
    "of a newer version": (
        sql("UPDATE alembic_version SET version_num = '9999'"),
        6,
        f"{_TABLE} is at revision 9999, which this version (up to {{n}}) does not know.\n"
        "  Nothing was changed.\n  Install the newer bgdeploy that wrote it, or use another state_dir.\n",
    ),
    "of another program": (
        of_another,
        6,
        "bgdeploy: {here}/state/jobs.db is no job table: another program keeps notes in it.\n"
        "  Nothing was changed.\n  Use another state_dir or database_url.\n",
    ),
    "of another base folder": (
        sql("UPDATE identity SET base_path = '/srv/data'"),
        5,
        f"{_TABLE} belongs to another set-up (base_path: '/srv/data' there, '{{here}}/data' here).\n{_REBIND}",
    ),
    "of another target": (
        sql("UPDATE identity SET target = 'neo4j'"),
        5,
        f"{_TABLE} belongs to another set-up (target: 'neo4j' there, 'ladybug' here).\n{_REBIND}",
    ),
    "of another state folder": (
        sql("UPDATE identity SET place = '/srv/state'"),
        5,
        "bgdeploy: The job table belongs to another set-up (place: '/srv/state' there, '{here}/state' here).\n"
        + _REBIND,
    ),
}
