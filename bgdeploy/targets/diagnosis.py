"""Diagnosis: when keys were refused, look in the files for every row that does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bgdeploy.errors import BadInput
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.columns import tell_ends
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.findings import refuse
from bgdeploy.snapshots.index import Index, opened_index
from bgdeploy.snapshots.offenders import Finding, find_in_ends, find_in_label
from bgdeploy.snapshots.source import Snapshot, Table
from bgdeploy.snapshots.spill import NoRoom
from bgdeploy.targets.base import Ledger

FOLDER = "offenders"  # below a build's folder


@dataclass(frozen=True)
class Desk:
    """What a diagnosis works with: ``folder`` is the build's own, ``across`` as in ``find_in_label``."""

    snapshot: Snapshot
    ledger: Ledger
    folder: Path
    across: bool


def diagnose(desk: Desk, misfit: Misfit, kept: str) -> BadInput | None:
    """Return the error that names the offenders, or None where the files prove that nothing is wrong.

    Where the disk has no room for the search, the error has only what was seen first.
    """
    error = _diagnose(desk, misfit, kept)
    guessed = (tell_ends(one) for one in desk.snapshot.relationships if one.name == misfit.name)
    said = next(filter(None, guessed), None) if misfit.kind == "relationship" else None
    if error is None or said is None:
        return error
    return type(error)(f"{error.what} {said[0]}", kept=error.kept, cure=f"{said[1]} {error.cure}")


def _diagnose(desk: Desk, misfit: Misfit, kept: str) -> BadInput | None:
    home = "nodes" if misfit.kind == "node" else "relationships"
    desk.ledger.note(f"looking for all offenders in {home}/{misfit.name}")
    reach("load.offenders")
    tables = _concerned(desk, misfit)
    try:
        with opened_index(desk.snapshot, tables, desk.folder / FOLDER) as index:
            findings = list(_find(index, misfit, across=desk.across))
    except NoRoom as full:
        return BadInput(f"{misfit.said} {full.what}", kept=kept, cure="Correct it, or make room to see all.")
    return refuse(findings, kept) if findings else None


def _concerned(desk: Desk, misfit: Misfit) -> list[Table]:
    """The tables whose ids are read."""
    nodes, relationships = desk.snapshot.nodes, desk.snapshot.relationships
    if misfit.kind == "node" and not desk.across:
        return [table for table in nodes if table.name == misfit.name]
    return [*nodes, *(table for table in relationships if table.name == misfit.name)]


def _find(index: Index, misfit: Misfit, *, across: bool) -> Iterator[Finding]:
    if misfit.kind == "node":
        yield from find_in_label(index, misfit.name, across=across)
    for table in index.snapshot.relationships:
        if (misfit.kind, misfit.name) == ("relationship", table.name):
            yield from find_in_ends(index, table)
