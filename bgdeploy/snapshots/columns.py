"""Columns: which column of a file is the id, the labels, an end or the type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.families import family, is_text, is_text_list
from bgdeploy.snapshots.source import Kind, Role

NAMES: Mapping[Role, Sequence[str]] = {
    "id": ("nodeId", "id", ":ID"),
    "labels": ("labels", ":LABEL"),
    "source": ("sourceNodeId", "source", "src", "from", ":START_ID"),
    "target": ("targetNodeId", "target", "dst", "to", ":END_ID"),
    "type": ("relationshipType", "type", ":TYPE"),
}
_PLACES: Mapping[Kind, tuple[tuple[Role, ...], Role]] = {
    "node": (("id",), "labels"),
    "relationship": (("source", "target"), "type"),
}


def find_roles(
    kind: Kind,
    file: str,
    schema: pa.Schema,
    names: Mapping[str, Sequence[str]],
    speaks_of_folder: Callable[[str], bool],
) -> dict[int, Role]:
    """Return the role of each column by its number; columns left out are properties.

    By name first, and by position where no name of the ids matches. A column that merely stands
    where existing jobs write labels or type is one only if ``speaks_of_folder`` says that its
    values name the folder. Raises BadInput when an id is missing or is no string or integer.
    """
    keys, extra = _PLACES[kind]
    roles = {number: role for role in keys if (number := _by_name(schema, role, names)) is not None}
    if not roles:
        roles = dict(zip(range(len(schema)), keys, strict=False))
    _check_keys(file, schema, keys, roles, names)
    number = _by_name(schema, extra, names)
    if number is not None and number not in roles:
        _check_text(file, schema, number, extra)
        return {**roles, number: extra}
    place = len(keys)
    if number is not None or place in roles or place >= len(schema):
        return roles
    field = schema.field(place)
    stands_there = _is_text_for(extra, field.type) and speaks_of_folder(field.name)
    return {**roles, place: extra} if stands_there else roles


def names_of(role: Role, names: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The names a role's column may have, the strongest first."""
    return names.get(role) or NAMES[role]


def _by_name(schema: pa.Schema, role: Role, names: Mapping[str, Sequence[str]]) -> int | None:
    found = schema.names
    return next((found.index(name) for name in names_of(role, names) if name in found), None)


def _check_keys(
    file: str,
    schema: pa.Schema,
    keys: Iterable[Role],
    roles: Mapping[int, Role],
    names: Mapping[str, Sequence[str]],
) -> None:
    for role in keys:
        number = next((number for number, found in roles.items() if found == role), None)
        if number is None:
            known, there = ", ".join(names_of(role, names)), ", ".join(schema.names) or "none"
            what = f"{file} has no column for the {_spoken(role)} (it has {there})."
            raise _refuse(what, f"Name one of {known}, or set dataset.columns.{role}.")
        field = schema.field(number)
        if family(field.type) is None:
            what = f"{file}: column {field.name!r} is the {_spoken(role)} but holds {field.type}."
            raise _refuse(what, "Ids are strings or integers.")


def _check_text(file: str, schema: pa.Schema, number: int, role: Role) -> None:
    field = schema.field(number)
    if not _is_text_for(role, field.type):
        wanted = "a string or a list of strings" if role == "labels" else "a string"
        cure = f"Make it {wanted}, rename it if it is a property, or set dataset.columns.{role}."
        raise _refuse(f"{file}: column {field.name!r} is the {role} but holds {field.type}.", cure)


def _is_text_for(role: Role, kind: pa.DataType) -> bool:
    return is_text(kind) or (role == "labels" and is_text_list(kind))


def _spoken(role: Role) -> str:
    return "id" if role == "id" else f"{role} id"


def _refuse(what: str, cure: str) -> BadInput:
    return BadInput(what, kept="Nothing of the snapshot was loaded.", cure=cure)
