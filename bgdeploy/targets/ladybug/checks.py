"""What can be looked at on the embedded target: engine, published files, folders and what was left in them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bgdeploy.actions import Hint, do
from bgdeploy.errors import BgdeployError, StoreError
from bgdeploy.finding import Check, Finding, error, many, ok, shorten, warning
from bgdeploy.targets.base import Owned
from bgdeploy.targets.ladybug import disk
from bgdeploy.targets.ladybug.disk import FACTS, GRAPH, Paths, describe, read_facts
from bgdeploy.targets.ladybug.engine import version

SUBJECT = "databases"
_MORE = "ls -lR "


def checks(paths: Paths, owned: Owned) -> Sequence[Check]:
    """What is looked at below the state folder; no database is opened."""
    known = ("job table",)
    return [
        Check(SUBJECT, "engine", find_engine, limit=30.0),
        Check(SUBJECT, "who wrote them", partial(find_writers, paths, owned)),
        Check(SUBJECT, "sizes", partial(find_damage, paths, owned)),
        Check(SUBJECT, "protection", partial(find_open_doors, paths)),
        Check(SUBJECT, "one disk", partial(find_disks, paths)),
        Check(SUBJECT, "leftovers", partial(find_leftovers, paths, owned), needs=known),
        Check(SUBJECT, "names in aliases", partial(find_strange_aliases, paths)),
    ]


def find_engine() -> Iterator[Finding]:
    """The engine loads; its version and that of its file format."""
    try:
        here = version()
    except (ImportError, OSError) as failure:
        yield error(f"the engine does not load: {failure}", "pip install -r requirements.lock")
        return
    yield ok(f"the engine is ladybug {here['engine']}, its storage format {here['storage']}")


def find_writers(paths: Paths, owned: Owned) -> Iterator[Finding]:
    """Databases that another version of the engine wrote; its format moves forward only."""
    here, ids, live = version(), _read_jobs(owned), _pointed_at(paths)
    published = _published(paths)
    found = []
    for folder in published:
        facts = read_facts(folder)
        if (facts.get("engine"), facts.get("storage")) != (here["engine"], here["storage"]):
            found.append(_judge_writer(folder.name, facts, here, ids, live))
    yield from shorten(found, Hint(do("customers")))
    if not found:
        yield ok(f"{many(len(published), 'published database')}, all written by this engine")


def _judge_writer(
    name: str, facts: Mapping[str, Any], here: Mapping[str, Any], ids: Mapping[str, int], live: set[str]
) -> Finding:
    if "engine" not in facts:
        return warning(
            f"nobody knows which engine wrote {name}: its {FACTS} does not say", _reload(name, ids)
        )
    what = describe(name, facts, here)
    unreadable = facts.get("storage") != here["storage"] and name in live
    return (error if unreadable else warning)(what, _reload(name, ids))


def _read_jobs(owned: Owned) -> Mapping[str, int]:
    """The job of each database, for the cure; without a job table it is told all the same."""
    try:
        return owned()
    except StoreError:
        return {}


def _reload(name: str, ids: Mapping[str, int]) -> Hint:
    return Hint("Load its snapshot again: ", do("reload", job_id=ids.get(name)))


def find_damage(paths: Paths, owned: Owned) -> Iterator[Finding]:
    """Published files have the size they were published with; the same is asked before each switch."""
    ids, live = _read_jobs(owned), _pointed_at(paths)
    published = _published(paths)
    found = [one for folder in published if (one := _judge_size(folder, ids, live)) is not None]
    yield from shorten(found, f"{_MORE}{paths.databases}")
    if not found:
        yield ok(f"{many(len(published), 'published database')}, all with the size they were published with")


def _judge_size(folder: Path, ids: Mapping[str, int], live: set[str]) -> Finding | None:
    written = read_facts(folder).get("bytes")
    try:
        size = (folder / GRAPH).stat().st_size
    except FileNotFoundError:
        size = -1
    if size == written:
        return None
    is_live = folder.name in live
    now = f"{size:,} now" if size >= 0 else f"no {GRAPH} any more"
    was = f"{written:,} bytes" if isinstance(written, int) else "nobody knows how many bytes"
    what = f"{folder.name}{', which is live,' if is_live else ''} was published with {was} and has {now}"
    again = _reload(folder.name, ids)
    if is_live:
        return error(what, Hint("Go back first: ", do("rollback"), ". ", again))
    return warning(what, again)


def find_open_doors(paths: Paths) -> Iterator[Finding]:
    """Published databases are read-only, and nothing lies beside them that a writing client left."""
    published = _published(paths)
    found = [one for folder in published for one in _judge_folder(folder)]
    yield from shorten(found, f"{_MORE}{paths.databases}")
    if not found:
        yield ok(f"{many(len(published), 'published database')}, all read-only, with nothing beside them")


def _judge_folder(folder: Path) -> Iterator[Finding]:
    strange = sorted(set(os.listdir(folder)) - {GRAPH, FACTS})
    if strange:
        cure = "A client opened it for writing: let it open read-only. Then load it again, as it may have changed."
        yield warning(f"{folder} also holds {', '.join(strange)}", cure)
    for place, right in ((folder, "555"), (folder / GRAPH, "444")):
        if place.exists() and place.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
            yield warning(f"{place} may be written to", f"chmod {right} {place}")


def find_disks(paths: Paths) -> Iterator[Finding]:
    """A build is published by a rename, which works on one disk only."""
    homes = [home for home in (paths.root, paths.builds, paths.databases, paths.trash) if home.is_dir()]
    if len({home.stat().st_dev for home in homes}) > 1:
        what = (
            f"{', '.join(str(home) for home in homes)} do not lie on one disk, so no build can be published"
        )
        yield error(what, "Mount one disk at the state folder, and none below it.")
    elif homes:
        yield ok(f"everything below {paths.root} lies on one disk")


def find_leftovers(paths: Paths, owned: Owned) -> Iterator[Finding]:
    """Locks and files that no job owns; whole databases and builds are told as orphans."""
    ids = owned()
    found = [*_leftover_files(paths, ids), *_strange_folders(paths)]
    yield from shorten(found, f"ls -A {paths.builds} {paths.trash}")
    if not found:
        yield ok("nothing was left in builds and trash")


def _leftover_files(paths: Paths, ids: Mapping[str, int]) -> Iterator[Finding]:
    for path in _entries(paths.builds):
        name = path.name.removesuffix(".lock")
        if path.is_dir() or (name != path.name and name in ids):
            continue
        of = "a lock that no job owns" if name != path.name else "no build"
        yield warning(f"{path} is {of}", f"When nothing is loading: rm {path}")


def _strange_folders(paths: Paths) -> Iterator[Finding]:
    for path in [*_entries(paths.databases), *_entries(paths.trash)]:
        if not path.is_dir():
            yield warning(f"{path} is not bgdeploy's", "Remove it when you know what it is.")
    for path in _entries(paths.trash):
        if path.is_dir():
            yield warning(
                f"{path} was to be removed and is still there", "A running bgdeploy serve removes it."
            )


def find_strange_aliases(paths: Paths) -> Iterator[Finding]:
    """What lies among the aliases is a link, and its memory is a number."""
    found = [one for name in disk.aliases(paths) for one in _judge_alias(paths, name)]
    yield from found
    if not found:
        yield ok(f"{many(len(disk.aliases(paths)), 'name')} in {paths.aliases}, each a link")


def _judge_alias(paths: Paths, name: str) -> Iterator[Finding]:
    place = paths.aliases / name
    if not place.is_symlink():
        yield error(f"{place} is no link, so no alias can have that name", "Put it away if it is not yours.")
    try:
        disk.read_generation(paths, name)
    except BgdeployError as failure:
        yield error(failure.what, failure.cure)


def _pointed_at(paths: Paths) -> set[str]:
    return {found for name in disk.aliases(paths) if (found := disk.read_link(paths, name)) is not None}


def _published(paths: Paths) -> list[Path]:
    return [path for path in _entries(paths.databases) if path.is_dir()]


def _entries(home: Path) -> list[Path]:
    return [home / name for name in sorted(os.listdir(home))] if home.is_dir() else []
