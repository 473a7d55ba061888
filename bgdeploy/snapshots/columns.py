"""Columns: which column of a file is the id, the labels, an end or the type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.families import family, is_text, is_text_list
from bgdeploy.snapshots.source import Kind, Role, Table

NAMES: Mapping[Role, Sequence[str]] = {
    "id": ("nodeId", "id", ":ID"),
    "labels": ("labels", ":LABEL"),
    "source": ("sourceNodeId", "source", "src", "from", ":START_ID"),
    "target": ("targetNodeId", "target", "dst", "to", ":END_ID"),
    "type": ("relationshipType", "type", ":TYPE"),
}
_ENDS: tuple[Role, Role] = ("source", "target")
_PLACES: Mapping[Kind, tuple[tuple[Role, ...], Role]] = {
    "node": (("id",), "labels"),
    "relationship": (_ENDS, "type"),
}


class Found(NamedTuple):
    """The role of each column by its number, the others are properties; ``by_position`` were found by their place alone."""

    roles: dict[int, Role]
    by_position: tuple[Role, ...] = ()


def find_roles(
    kind: Kind,
    file: str,
    schema: pa.Schema,
    names: Mapping[str, Any],
    speaks_of_folder: Callable[[str], bool],
) -> Found:
    """Return which column is the id, the labels, an end or the type: by name first.

    Where no name of the ids matches, the position counts: of nodes where the second column is named as labels are, or
    ``names["by_position"]`` allows it; of relationships always, since the proof of ends shows whether they are ids of
    nodes. A column that merely stands where existing jobs write labels or type is one only if ``speaks_of_folder``
    says that its values name the folder. Raises BadInput when an id is missing or is no string or integer.
    """
    keys, extra = _PLACES[kind]
    roles = {number: role for role in keys if (number := _by_name(schema, role, names)) is not None}
    place, by_position = len(keys), tuple[Role, ...]()
    number = _by_name(schema, extra, names)
    named = number is None and len(schema) > place and _is_name_of(schema.names[place], extra, names)
    if not roles and len(schema) >= place:
        if kind == "node" and not (named or number == place or names.get("by_position")):
            raise _unnamed(file, schema.names, names)
        roles, by_position = dict(enumerate(keys)), keys
    _check_keys(file, schema, keys, roles, names, bool(by_position))
    if number is not None and number not in roles:
        _check_text(file, schema, number, extra)
        return Found({**roles, number: extra}, by_position)
    if number is not None or place in roles or place >= len(schema):
        return Found(roles, by_position)
    field = schema.field(place)
    if named and by_position and kind == "node":
        _check_text(file, schema, place, extra)
    elif not (_is_text_for(extra, field.type) and speaks_of_folder(field.name)):
        return Found(roles, by_position)
    return Found({**roles, place: extra}, (*by_position, extra))


def _is_name_of(column: str, role: Role, names: Mapping[str, Any]) -> bool:
    """True for one of a role's names in any case: existing jobs write ``LABELS``."""
    return column.casefold() in {one.casefold() for one in names_of(role, names)}


def _unnamed(file: str, there: Sequence[str], names: Mapping[str, Any]) -> BadInput:
    what = f"{file} has no column for the id by its name (it has {', '.join(there)}), and its second column is no labels column, so that the first might be anything."
    return _refuse(what, f"{declare(['id'], names)} {ALLOW}")


ALLOW = "Where the first column is the id in all such files: set dataset.columns.by_position to true."


def declare(roles: Sequence[Role], names: Mapping[str, Any]) -> str:
    """The line of the configuration that declares columns."""
    lines = []
    for role in roles:
        known = [f'"{one}"' if one.startswith(":") else one for one in names_of(role, names)]
        lines.append(f"{role}: [{', '.join([*known, '<its column>'])}]")
    what = " and the ".join(map(_spoken, roles))
    line = f"dataset: {{columns: {{{', '.join(lines)}}}}}"
    return f"Declare the {what} in config.yaml, {line}, restart bgdeploy serve, and: bgdeploy retry --all-failed."


def tell_ends(table: Table) -> tuple[str, str] | None:
    """What to say, and what helps, where the ends of a relationship table were taken by their position and do not fit."""
    file = next((one for one in table.files if "source" in one.by_position), None)
    if file is None:
        return None
    taken = " and ".join(f"{one.name!r} as the {one.role} id" for one in file.columns if one.role in _ENDS)
    there = ", ".join(one.name for one in file.columns if one.constant is None)
    what = f"{file.path} has no columns for the ends by their names (it has {there}), so their position counted: {taken}."
    return what, f"If these are no ends: {declare(_ENDS, {})}"


def names_of(role: Role, names: Mapping[str, Any]) -> Sequence[str]:
    """The names a role's column may have, the strongest first."""
    found: Sequence[str] = names.get(role) or NAMES[role]
    return found


def _by_name(schema: pa.Schema, role: Role, names: Mapping[str, Any]) -> int | None:
    found = schema.names
    return next((found.index(name) for name in names_of(role, names) if name in found), None)


def _check_keys(
    file: str,
    schema: pa.Schema,
    keys: Sequence[Role],
    roles: Mapping[int, Role],
    names: Mapping[str, Any],
    by_position: bool,
) -> None:
    there = ", ".join(schema.names) or "none"
    for role in keys:
        number = next((number for number, found in roles.items() if found == role), None)
        if number is None:
            known = ", ".join(names_of(role, names))
            what = f"{file} has no column for the {_spoken(role)} (it has {there})."
            raise _refuse(what, f"Name one of {known}, or set dataset.columns.{role}.")
        field = schema.field(number)
        if family(field.type) is None:
            what = f"{file}: column {field.name!r} is the {_spoken(role)} but holds {field.type}."
            if by_position:
                what = f"{what} It was taken by its position, since no name matches (the file has {there})."
            cure = "Ids are strings or integers."
            raise _refuse(what, f"{cure} {declare(keys, names)}" if by_position else cure)


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
