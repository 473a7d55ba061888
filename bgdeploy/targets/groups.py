"""Groups: which files are committed together and in which order, the same on every target."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path

from bgdeploy.errors import BadInput
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.ends import Misfit, Part, find_parts
from bgdeploy.snapshots.keys import Keys, NoRoom, TooLarge, TooLong, opened_keys
from bgdeploy.snapshots.layout import tell_ends
from bgdeploy.snapshots.offenders import Finding, find_in_ends, find_in_labels, refuse
from bgdeploy.snapshots.rows import bundle
from bgdeploy.snapshots.schema import simple
from bgdeploy.snapshots.source import DataFile, Kind, Snapshot, Table
from bgdeploy.targets.base import Group, Ledger

_KEPT = "What is live stays live."

# Folders of one table, ``country=DE``, whose files are read in statements of their own; files of more are written anew, with a column.
# 1 M relationships in 2, 4 and 20 folders took 1.0 to 1.4, 1.4 and 3.3 times as long apart as together.
_FOLDERS_APART: dict[Kind, int] = {"node": 8, "relationship": 1}

_OURS = "parquet-cpp-arrow"  # what writes split files
Most = Callable[[Table, str, str], int]  # rows that one group of a table may have, between these labels


class Doubt(Exception):
    """What is there is not what the ledger and the plan allow."""


def plan_groups(snapshot: Snapshot, most: Most, folder: Path) -> list[Group]:
    """Return the groups of a load: nodes first, then relationships by the labels they join.

    One group holds whole files of one folder and one shape, as many rows as ``most`` allows, but at
    least one file. Files whose rows join several pairs of labels are split into new ones below
    ``<folder>/split``. Raises Misfit for ends that fit no label, or several.
    """
    groups: list[Group] = []
    for table in snapshot.nodes:
        parts = [Part(file.path, file.rows, "", "") for file in table.files if file.rows]
        _add_groups(groups, table, parts, most)
    for table, parts in zip(snapshot.relationships, find_parts(snapshot, folder), strict=True):
        _add_groups(groups, table, parts, most)
    return groups


def _add_groups(groups: list[Group], table: Table, parts: list[Part], most: Most) -> None:
    shapes = _number_shapes(table, parts)

    def alike(part: Part) -> tuple[str, str, bool, int]:
        # Split files lie elsewhere and are grouped apart.
        return part.source, part.target, is_split(part.path), shapes[part.path]

    for (source, target, *_), same in groupby(sorted(parts, key=alike), key=alike):
        for some in bundle(same, most(table, source, target)):
            groups.append(_group(len(groups), table.kind, table.name, some))


def _number_shapes(table: Table, parts: Iterable[Part]) -> dict[str, int]:
    """Files read in one statement must have the same columns in the same order: a number for each such shape."""
    numbers: dict[object, int] = {}
    files = {part.path: file_of(table, part.path) for part in parts}
    apart = len({constants_of(file) for file in files.values()}) <= _FOLDERS_APART[table.kind]
    return {path: numbers.setdefault(_shape(file, apart=apart), len(numbers)) for path, file in files.items()}


def _shape(file: DataFile, *, apart: bool) -> object:
    columns = tuple(
        (
            column.name,
            column.role,
            simple(column.kind),
            column.stored and (column.stored.physical, column.stored.logical),
        )
        for column in file.columns
        if column.constant is None or apart
    )
    return columns, file.written_by.partition(" version")[0], constants_of(file) if apart else None


def constants_of(file: DataFile) -> tuple[tuple[str, str | int | date], ...]:
    """The columns that the names of a file's folders hold, with their values; files read in one statement share them."""
    return tuple((one.name, one.constant) for one in file.columns if one.constant is not None)


def keep_plan(
    snapshot: Snapshot, ledger: Ledger, most: Most, folder: Path, *, anew: bool = False
) -> list[Group]:
    """Return the stored plan; made and stored at the first run. Split files that are gone are made again.

    ``anew``: nothing is committed by the plan that is stored, so another may take its place.

    Raises Doubt when the snapshot gives another plan than the one stored with the job, BadInput for
    relationships whose ends no plan can tell.
    """
    stored = None if anew else ledger.plan()
    splits = [] if stored is None else [file for group in stored for file in group.files if is_split(file)]
    half = folder / "splitting"  # there while split files are written
    if stored is not None and all((folder / file).exists() for file in splits) and not half.exists():
        return list(stored)
    shutil.rmtree(folder / "split", ignore_errors=True)
    half.touch()
    groups = _plan(snapshot, ledger, most, folder)
    if stored is None:
        ledger.store_plan(groups)
    elif list(stored) != groups:
        raise Doubt("the plan made anew is not the one stored with the job")
    half.unlink()
    return groups


def _plan(snapshot: Snapshot, ledger: Ledger, most: Most, folder: Path) -> list[Group]:
    try:
        return plan_groups(snapshot, most, folder)
    except Misfit as misfit:
        bad = diagnose(Desk(snapshot, ledger, folder, across=False), misfit, _KEPT)
        raise bad or BadInput(misfit.said, kept=_KEPT) from misfit


def is_split(file: str) -> bool:
    """True for a file that was made for the load and lies beside the build, not in the snapshot."""
    return file.startswith("split/")


def find_table(snapshot: Snapshot, group: Group) -> Table:
    """The folder a group's files come from; two folders may fill one table, with other labels."""
    same = [table for table in snapshot.tables if (table.kind, table.name) == (group.kind, group.name)]
    first = group.files[0]
    return next((t for t in same if any(file.path == first for file in t.files)), same[0])


def file_of(table: Table, path: str) -> DataFile:
    """The file a path names; one that was made by splitting another has its table's own shape."""
    found = table.file(path)
    return found if found is not None else DataFile(path, 0, 0, 0, table.columns, _OURS)


def _group(number: int, kind: Kind, name: str, parts: list[Part]) -> Group:
    source, target = (parts[0].source or None), (parts[0].target or None)
    files = tuple(part.path for part in parts)
    return Group(number, kind, name, source, target, files, sum(part.rows for part in parts))


# Diagnosis: when keys were refused, look in the files for every row that does not fit, in all tables at once.

FOLDER = "offenders"  # below a build's folder
_REST = 60.0  # seconds for the tables that were not refused; the others are searched to their end
_HOMES: dict[Kind, str] = {"node": "nodes", "relationship": "relationships"}


@dataclass(frozen=True)
class Desk:
    """What a diagnosis works with: ``folder`` is the build's own, ``across`` as in ``find_in_labels``."""

    snapshot: Snapshot
    ledger: Ledger
    folder: Path
    across: bool


def diagnose(desk: Desk, misfit: Misfit, kept: str) -> BadInput | None:
    """Return the error that names the offenders, or None where the files prove that nothing is wrong.

    Where there is no room for the search, the error has only what was seen first.
    """
    error = _diagnose(desk, misfit, kept)
    guessed = (tell_ends(one) for one in desk.snapshot.relationships if one.name == misfit.name)
    said = next(filter(None, guessed), None) if misfit.kind == "relationship" else None
    if error is None or said is None:
        return error
    return type(error)(f"{error.what} {said[0]} {said[1]}", kept=error.kept, cure=error.cure)


def _diagnose(desk: Desk, misfit: Misfit, kept: str) -> BadInput | None:
    desk.ledger.note(f"looking for all offenders in {_HOMES[misfit.kind]}/{misfit.name}")
    reach("load.offenders")
    other: Kind = "relationship" if misfit.kind == "node" else "node"
    unseen = ""
    try:
        with opened_keys(desk.snapshot, desk.folder / FOLDER) as keys:
            found = {misfit.kind: list(_find(desk, keys, misfit.kind))}
            found[other] = []
            try:
                with keys.within(_REST):
                    for finding in _find(desk, keys, other):
                        found[other].append(finding)
            except (TooLong, NoRoom, TooLarge):
                unseen = f"Not all of {_HOMES[other]} was searched."
    except (NoRoom, TooLarge) as full:
        return BadInput(f"{misfit.said} {full.what}", kept=kept, cure="Correct it, or make room to see all.")
    findings = [*found["node"], *found["relationship"]]
    return refuse(findings, kept, unseen) if findings else None


def _find(desk: Desk, keys: Keys, kind: Kind) -> Iterator[Finding]:
    if kind == "node":
        return find_in_labels(keys, across=desk.across)
    return find_in_ends(keys, desk.snapshot.relationships)
