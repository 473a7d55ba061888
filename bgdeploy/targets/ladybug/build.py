"""Build: make a database file from a snapshot, group by group, and go on after any crash.

The engine has no other way to tell. It counts row groups it has begun to read, and builds the key's
index after the last one: a sign of life and a rough share, never a checkpoint.

Every COPY is a statement of its own over whole files, and a table's row count is the checkpoint: it
must equal the rows of its first k groups. Any doubt, and the build is deleted and started again.
After a COPY that failed nothing more is asked of the engine: it was seen to corrupt its memory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bgdeploy.durable import sync, write_durably
from bgdeploy.errors import BadInput, BgdeployError, TargetError, TargetFull
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.parquet import Parquet, find_bad_text
from bgdeploy.snapshots.proof import keeps_labels
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Group, Ledger
from bgdeploy.targets.groups import Desk, Doubt, Most, diagnose, find_table, keep_plan
from bgdeploy.targets.ladybug.disk import GRAPH, NEED
from bgdeploy.targets.ladybug.engine import Engine, QueryFailed, open_engine, text
from bgdeploy.targets.ladybug.reading import (
    copy_nodes,
    copy_relationships,
    count,
    create_node,
    create_relationship,
    names,
    read_group,
)
from bgdeploy.targets.ladybug.target import disk_needed, rows_at_once

if TYPE_CHECKING:
    pass


# Watching: how far a COPY has read, as the engine prints it on standard output.

TURN_ON = "CALL progress_bar=true"
_EVERY = 1.0  # seconds between two notes
_LAST = re.compile(rb"Pipelines Finished: (\d+)/|Progress: (\d+)%")


@contextmanager
def watched(tell: Callable[[float], None]) -> Iterator[None]:
    """Call ``tell`` each second, from a thread, with the share (0 to 1) of its rows that a statement has read."""
    reading, writing = os.pipe()
    kept = os.dup(1)
    os.dup2(writing, 1)
    os.close(writing)
    seen, over = _Seen(), threading.Event()
    threads = [
        threading.Thread(target=_read, args=(reading, seen), daemon=True),
        threading.Thread(target=_tell, args=(seen, over, tell), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        os.dup2(kept, 1)  # the last end for writing is closed by this, which ends the reader
        os.close(kept)
        over.set()
        for thread in threads:
            thread.join()
        os.close(reading)


class _Seen:
    share = 0.0


def _read(reading: int, seen: _Seen) -> None:
    text = b""
    while piece := os.read(reading, 65_536):
        text = (text + piece)[-4096:]
        seen.share = max(
            seen.share, _share(text)
        )  # the end of the first pipeline may have left the text by now


def _share(text: bytes) -> float:
    """What the last lines say; once its first pipeline is over a COPY has read everything."""
    share = 0.0
    for finished, percent in _LAST.findall(text):
        share = min(int(finished), 1) * 1.0 if finished else max(share == 1.0, int(percent) / 100)
    return share


def _tell(seen: _Seen, over: threading.Event, tell: Callable[[float], None]) -> None:
    while not over.wait(_EVERY):
        tell(seen.share)


# Refusals: what the engine says when it will not copy, checked against the files, with a cure.

_KEPT = "What is live stays live; the build was deleted."


class PoolTooSmall(TargetError):
    """The buffer pool is full; the next try gets twice as much, once."""

    code = "pool"


class Contradicted(TargetError):
    """The engine refused a key that the files prove right; the next try runs on one thread."""

    code = "contradicted"


def explain(error: QueryFailed, group: Group | None, work: Build) -> BgdeployError:
    """Return what a failed COPY means: bad input, no room, too little memory, or the engine's own fault.

    For an id or an end that the engine refused, all files of the table are searched.
    """
    said = error.what
    low = said.lower()
    where = _where(group)
    if "no space left" in low or "disk quota" in low or "errno 28" in low:
        return TargetFull(f"The disk is full while loading {where}: {said}", kept=_KEPT, cure="Make room.")
    if "buffer pool is full" in low or "buffer manager" in low:
        cure = "The next try copies less at once, with twice the memory; if that fails too, raise ladybug.buffer_pool_mb."
        return PoolTooSmall(f"The buffer pool is too small to load {where}: {said}", kept=_KEPT, cure=cure)
    if group is not None and "primary key" in low:
        return _explain_key(said, group, work)
    if group is not None and any(
        word in low for word in ("conversion exception", "overflow exception", "cast")
    ):
        return BadInput(f"{where} holds a value that does not fit its column: {said}", kept=_KEPT)
    if "invalid string encoding" in low and (bad := find_bad_text(work.snapshot)) is not None:
        return bad
    if (damaged := _find_damaged(group, work.snapshot)) is not None:
        return BadInput(f"{damaged} is damaged: {said}", kept=_KEPT, cure="Write it again.")
    return TargetError(f"The engine could not load {where}: {said}", kept=_KEPT)


def _find_damaged(group: Group | None, snapshot: Snapshot) -> str | None:
    """The first file that another reader cannot read either; split files were written by ourselves."""
    every = [file.path for table in snapshot.tables for file in table.files]
    files = every if group is None else [file for file in group.files if file in every]
    return next((file for file in files if not _reads(snapshot.path / file)), None)


def _reads(path: Path) -> bool:
    try:
        with Parquet(path) as parquet:
            rows = sum(batch.num_rows for batch in parquet.iter_batches(65_536))
            return bool(rows == parquet.metadata.num_rows)
    except (OSError, pa.ArrowException):
        return False


def _where(group: Group | None) -> str:
    if group is None:
        return "the build"
    files = group.files[0] + (f" and {len(group.files) - 1} more" if len(group.files) > 1 else "")
    if group.kind == "node":
        return f"{group.name} ({files})"
    return f"({group.source_label})-[{group.name}]->({group.target_label}) ({files})"


def _explain_key(said: str, group: Group, work: Build) -> BgdeployError:
    """Let the files tell what is wrong with the ids; where they are right, the engine is not."""
    where = _where(group)
    found = Misfit(group.kind, group.name, f"{where} was refused: {said}")
    desk = Desk(work.snapshot, work.ledger, work.folder, across=False)
    if (bad := diagnose(desk, found, _KEPT)) is not None:
        return bad
    what = f"Loading {where}, the engine said: {said} But in the files every id is right."
    return Contradicted(what, kept=_KEPT, cure="The next try runs on one thread.")


# Build: make a database file from a snapshot, group by group, and go on after any crash.

_HINTS = "hints.json"
_SMALLER = 8  # a COPY that did not fit is made in so many, and with twice the pool


@dataclass(frozen=True)
class Build:
    """One build in progress; ``folder`` is private to this process, which holds its lock."""

    folder: Path
    snapshot: Snapshot
    ledger: Ledger
    settings: Mapping[str, Any]

    @property
    def graph(self) -> Path:
        """The database file."""
        return self.folder / GRAPH


def build(work: Build) -> None:
    """Load every group and close the file; raises BadInput, TargetFull or TargetError."""
    _check_names(work.snapshot)
    work.folder.mkdir(parents=True, exist_ok=True)
    write_durably(work.folder / NEED, json.dumps(disk_needed(work.snapshot)))
    try:
        _load(work)
    except Doubt as doubt:
        _start_again(work, str(doubt))
        try:
            _load(work)
        except Doubt as again:
            raise TargetError(f"A fresh build is already wrong: {again}.", kept="It was deleted.") from again
    _check_alone(work)
    sync(work.graph)
    sync(work.folder)
    work.ledger.step("closed")


def _check_names(snapshot: Snapshot) -> None:
    """Refuse what the engine makes a table of and then takes for another database's in every question."""
    for table in snapshot.tables:
        if "." in table.name:
            word, home = ("label", "nodes") if table.kind == "node" else ("type", "relationships")
            raise BadInput(
                f"{home}/{table.name}: a {word} with a dot cannot be asked for in the embedded database.",
                kept="Nothing of the snapshot was loaded.",
                cure=f"Rename the folder, for instance to {home}/{table.name.replace('.', '_')}.",
            )
        for column in table.columns:
            if column.name.casefold() == "rowid" and column.role in ("id", "property"):
                raise BadInput(
                    f"{table.files[0].path}: the embedded database has row numbers of its own under the name {column.name!r}.",
                    kept="Nothing of the snapshot was loaded.",
                    cure="Rename the column, for instance to 'row_id'.",
                )


def delete(folder: Path) -> None:
    """Remove the database file and all it left beside it; hints for the next try stay."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name not in (_HINTS, NEED):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    sync(folder)


def _start_again(work: Build, reason: str) -> None:
    delete(work.folder)
    work.ledger.restart(reason)


def _load(work: Build) -> None:
    hints = _read_hints(work.folder)
    pool = int(work.settings["buffer_pool_mb"]) * int(hints.get("pool", 1))
    groups = _plan(work, rows_at_once(work.snapshot, work.settings, pool, int(hints.get("share", 1))))
    threads = int(hints.get("threads", work.settings["threads"]))
    options: dict[str, Any] = {"pool_mb": pool, "threads": threads, "room": 8 * disk_needed(work.snapshot)}
    with _inside(work.folder), _opened(work, options) as engine:
        _create_tables(work, engine, groups)
        engine.run(TURN_ON)
        done = _settle(work, engine, groups)
        for group in groups[len(done) :]:
            _copy(work, engine, group, anew="anew" in hints or "rewrite" in work.settings)
        _name(work, engine)
        engine.run("CHECKPOINT")


def _plan(work: Build, most: Most) -> Sequence[Group]:
    """The plan of what is there, or one by today's settings and hints where nothing is."""
    anew = not work.graph.exists()
    if anew and work.ledger.done():
        raise Doubt("groups were confirmed, and the file is gone")
    return keep_plan(work.snapshot, work.ledger, most, work.folder, anew=anew)


@contextmanager
def _opened(work: Build, options: Mapping[str, Any]) -> Iterator[Engine]:
    existed = work.graph.exists()
    try:
        with open_engine(GRAPH, read_only=False, **options) as engine:
            yield engine
    except QueryFailed as error:
        if existed:
            raise Doubt(f"the engine refused the build that was there: {error.what}") from error
        raise explain(error, None, work) from error


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in the build's folder: the engine takes paths for patterns, and these are plain numbers."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _create_tables(work: Build, engine: Engine, groups: Sequence[Group]) -> None:
    tables = {table.name: table for table in reversed(work.snapshot.tables) if table.rows}
    for table in sorted(tables.values(), key=lambda one: one.kind):  # nodes first: relationships name them
        if table.kind == "node":
            same = [one for one in work.snapshot.nodes if one.name == table.name]
            engine.run(create_node(table, labels=keeps_labels(same)))
            continue
        pairs = [(g.source_label or "", g.target_label or "") for g in groups if g.name == table.name]
        engine.run(create_relationship(table, list(dict.fromkeys(pairs))))


def _name(work: Build, engine: Engine) -> None:
    """Give every property its own name; doing it again changes nothing."""
    for table in {table.name: table for table in work.snapshot.relationships if table.rows}.values():
        found = engine.rows(f"CALL table_info({text(table.name)}) RETURN name")
        for statement in names(table, [row["name"] for row in found]):
            engine.run(statement)


def _settle(work: Build, engine: Engine, groups: Sequence[Group]) -> Sequence[Group]:
    """Find out which groups are in the file already, tell the ledger, and return them."""
    found = {key: engine.count(count(some[0])) for key, some in _by_table(groups).items()}
    done: list[Group] = []
    for group in groups:
        key = _key(group)
        if found[key] < group.rows:
            break
        found[key] -= group.rows
        done.append(group)
    if any(found.values()):
        raise Doubt("a table's row count is no sum of its first groups")
    known = work.ledger.done()
    if not known <= {group.number for group in done}:
        raise Doubt("a group that was confirmed is not in the file")
    for group in done:
        if group.number not in known:
            work.ledger.confirmed(group.number, group.rows, found=True)
    return done


def _by_table(groups: Sequence[Group]) -> dict[tuple[str, str | None, str | None], list[Group]]:
    tables: dict[tuple[str, str | None, str | None], list[Group]] = {}
    for group in groups:
        tables.setdefault(_key(group), []).append(group)
    return tables


def _key(group: Group) -> tuple[str, str | None, str | None]:
    return group.name, group.source_label, group.target_label


def _copy(work: Build, engine: Engine, group: Group, *, anew: bool) -> None:
    reach("load.group.before")
    work.ledger.started(group.number)
    try:
        statement = _statement(work, engine, group, anew=anew)
        with watched(lambda share: work.ledger.seen(group.number, int(share * group.rows))):
            engine.run(statement)
    except QueryFailed as error:
        engine.abandon()
        _give_up(work, group, error)
    engine.release()
    reach("load.group.copied")
    work.ledger.confirmed(group.number, group.rows)
    reach("load.group.confirmed")


def _statement(work: Build, engine: Engine, group: Group, *, anew: bool) -> str:
    table = find_table(work.snapshot, group)
    reading = read_group(work.snapshot, table, group, work.folder, engine, anew=anew)
    if group.kind == "node":
        return copy_nodes(table, reading)
    return copy_relationships(table, group, reading)


def _give_up(work: Build, group: Group, error: QueryFailed) -> None:
    """A COPY failed: put the file out of reach at once, leave a hint if another way may help, and raise."""
    _start_again(work, f"a COPY failed: {error.what}")
    failure = explain(error, group, work)
    hints = _read_hints(work.folder)
    if failure.code == "pool":
        smaller = {"pool": 2, "share": _SMALLER * hints.get("share", 1)}
        write_durably(work.folder / _HINTS, json.dumps({**hints, **smaller}))
    if failure.code == "target" and "anew" not in hints:
        # A footer may not say what the pages hold: the next try trusts the engine's reader with nothing.
        write_durably(work.folder / _HINTS, json.dumps({**hints, "anew": 1}))
    if failure.code == "contradicted" and "threads" not in hints:
        write_durably(work.folder / _HINTS, json.dumps({**hints, "threads": 1}))
    raise failure from error


def _read_hints(folder: Path) -> dict[str, int]:
    try:
        hints: dict[str, int] = json.loads((folder / _HINTS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return hints


def _check_alone(work: Build) -> None:
    """A cleanly closed file has nothing of its own beside it."""
    beside = [path.name for path in work.folder.iterdir() if path.name.startswith(f"{GRAPH}.")]
    if beside:
        raise TargetError(
            f"The engine closed {work.graph} but left {', '.join(sorted(beside))} beside it.",
            kept="It is not published.",
            cure="It is opened and closed again at the next try.",
        )
