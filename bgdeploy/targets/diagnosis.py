"""Diagnosis: when keys were refused, look in the files for every row that does not fit, in all tables at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bgdeploy.errors import BadInput
from bgdeploy.failpoints import reach
from bgdeploy.snapshots.columns import tell_ends
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.keys import Keys, NoRoom, TooLarge, TooLong, opened_keys
from bgdeploy.snapshots.offenders import Finding, find_in_ends, find_in_labels, refuse
from bgdeploy.snapshots.source import Kind, Snapshot
from bgdeploy.targets.base import Ledger

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
