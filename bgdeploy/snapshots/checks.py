"""Checks: names and ids that no database could take, found before anything is loaded."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.columns import tell_ends
from bgdeploy.snapshots.source import Column, Kind, Snapshot, Table

# Names the embedded engine keeps for itself, whatever their case.
RESERVED = frozenset({"_id", "_src", "_dst", "_label", "_offset", "_nodes", "_rels", "*"})
_KEPT = "Nothing of the snapshot was loaded."


def check_names(kind: Kind, file: str, columns: Sequence[Column]) -> None:
    """Raise BadInput for the first column whose name cannot become a property's name."""
    seen: dict[str, str] = {}
    for column in columns:
        _check_name(file, column.name)
        if column.role not in ("property", "id"):
            continue
        folded = column.name.casefold()
        if kind == "node" and folded == "labels":
            what = f"{file}: column {column.name!r} meets the property 'labels' that every node is given."
            raise _refuse(what, "Rename the column, or name it in dataset.columns.labels.")
        if folded in seen:
            what = f"{file}: columns {seen[folded]!r} and {column.name!r} differ only in case."
            same = f"{file} has two columns {column.name!r}."
            raise _refuse(same if seen[folded] == column.name else what, "Rename one of them.")
        seen[folded] = column.name


def _check_name(file: str, name: str) -> None:
    if not name.strip() or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        what = f"{file}: the column name {name!a} is empty or holds characters that are no text."
        raise _refuse(what, "Rename the column.")
    if name.casefold() in RESERVED:
        what = f"{file}: the column name {name!r} is reserved by the database."
        raise _refuse(what, f"Rename the column, for instance to {name.lstrip('_*') or 'all'!r}.")


def check_snapshot(snapshot: Snapshot) -> None:
    """Raise BadInput for what is wrong between the tables of a snapshot."""
    if snapshot.rows == 0:
        raise _refuse(f"Empty snapshot: no file of {snapshot.path} has a row.", "Write it again.")
    _check_labels_and_types(snapshot)
    for table in snapshot.relationships:
        _check_ends(snapshot, table)


def _check_labels_and_types(snapshot: Snapshot) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for table in snapshot.tables:
        word = "label" if table.kind == "node" else "type"
        other_word, other = seen.setdefault(table.name.casefold(), (word, table.name))
        if other == table.name and word != other_word:
            what = f"A label and a type are both named {table.name!r}, which the database cannot tell apart."
            raise _refuse(what, f"Rename one of the folders, for instance to relationships/{table.name}_REL.")
        if other != table.name:
            what = f"The {other_word} {other!r} and the {word} {table.name!r} differ only in case."
            raise _refuse(what, "Rename one of the folders.")


def _check_ends(snapshot: Snapshot, table: Table) -> None:
    known = {label for node in snapshot.nodes for label in node.labels}
    for role, label in (("source", table.source_label), ("target", table.target_label)):
        if label is not None and label not in known:
            what = (
                f"relationships/{table.name} declares the {role} label {label!r}; nodes/ has no such folder."
            )
            raise _refuse(what, f"Use one of {', '.join(sorted(known))}.")
        nodes = [node for node in snapshot.nodes if label is None or label in node.labels]
        _check_family(table, "source" if role == "source" else "target", nodes)


def _check_family(table: Table, role: str, nodes: Iterable[Table]) -> None:
    column = next(column for column in table.columns if column.role == role)
    families = {_family(node.column("id")): node for node in nodes}
    if _family(column) in families:
        return
    have = " or ".join(sorted(families))
    what = (
        f"{table.files[0].path}: column {column.name!r} ({role} id) holds {column.type}, "
        f"but the nodes it could join have {have} ids ({next(iter(families.values())).files[0].path})."
    )
    said, cure = tell_ends(table) or ("", "")
    raise _refuse(
        f"{what} {said}".rstrip(), f"Write ids with one type in nodes and relationships. {cure}".rstrip()
    )


def _family(column: Column | None) -> str:
    # Both have passed as ids, so the text of the type can only speak of strings or integers.
    return "string" if column is None or "string" in column.type else "integer"


def _refuse(what: str, cure: str) -> BadInput:
    return BadInput(what, kept=_KEPT, cure=cure)
