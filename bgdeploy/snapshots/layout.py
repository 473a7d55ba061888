"""Layout: which folder of a snapshot is which table, which column of a file has which role, which columns folders are.

Known from a listing, from the names of columns, and from four bytes of a file whose name says nothing. Folders
``column=value`` are columns, as Spark, Hive, DuckDB and pyarrow write and read them.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa

from bgdeploy.actions import Hint, do
from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.snapshots.folders import Entry, is_in_table, is_packed, is_parquet, starts_as_parquet, walk
from bgdeploy.snapshots.parquet import family, is_text, is_text_list
from bgdeploy.snapshots.source import ENDS, KEYS, Column, Kind, Role, Table, refused

Pair = tuple[str, str | None]  # a folder's column, and its value as text; None is null

_KEPT = "Nothing of it was loaded."
_NULL = "__HIVE_DEFAULT_PARTITION__"
_SHAPES = (
    "nodes/<Label>/*.parquet, relationships/<TYPE>/*.parquet and "
    "relationships/<TYPE>/from=<Label>/to=<Label>/*.parquet"
)
_LEAVE_OUT = "or begin its name with '.' to leave it out"
_EXPORT = {
    "Delta Lake": "for instance with DuckDB: COPY (FROM delta_scan('<table>')) TO '<folder>/part-0.parquet'",
    "Iceberg": "for instance with DuckDB: COPY (FROM iceberg_scan('<table>')) TO '<folder>/part-0.parquet'",
    "Hudi": "for instance with Spark: spark.read.format('hudi').load('<table>').write.parquet('<folder>')",
    "Spark streaming": "for instance with Spark: spark.read.parquet('<table>').write.parquet('<folder>')",
}


@dataclass(frozen=True)
class TableFolder:
    """One folder of files: what its names say, and its files relative to the snapshot, sorted.

    ``labels`` is empty for relationships. Two folders may name one table (``Person``, ``Person:Employee``).
    ``pairs`` has for each file the columns that the names of folders inside this one hold.
    """

    kind: Kind
    name: str
    labels: tuple[str, ...]
    source_label: str | None = None
    target_label: str | None = None
    files: tuple[str, ...] = ()
    pairs: tuple[tuple[Pair, ...], ...] = ()


def read_layout(path: Path) -> tuple[TableFolder, ...]:
    """Return the folders that hold data: nodes first, each kind by path; empty folders are left out.

    Below nodes/ and relationships/ every file is loaded, known bookkeeping, or refused by name. Raises BadInput, with
    the folder and the cure, for what is not laid out as a snapshot, and NotReadable for what is not finished, cannot
    be listed, or is gone.
    """
    try:
        entries = walk(str(path))
    except FileNotFoundError as error:
        raise NotReadable(f"The folder {path} is gone.", kept=_KEPT) from error
    if (closed := next((one for one in entries if one.fault == "cannot be listed"), None)) is not None:
        what = f"The folder {path / closed.path} cannot be listed."
        raise NotReadable(what, kept=_KEPT, cure="Give bgdeploy the right to read it.")
    for entry in entries:
        _check_entry(entry)
    if not os.path.isdir(path / "nodes"):
        raise _misplaced(f"{path} has no folder nodes/.", f"Lay the files out as {_SHAPES}.")
    found: dict[TableFolder, dict[str, tuple[Pair, ...]]] = {}
    homes: dict[str, tuple[TableFolder, tuple[Pair, ...]]] = {}  # by folder
    for entry in entries:
        if is_in_table(entry.path) or is_parquet(entry.path) or _is_unnamed_parquet(path, entry):
            _check_data(path, entry)
            folder = os.path.dirname(entry.path)
            if folder not in homes:
                homes[folder] = _read_folder(folder, entry.path)
            home, pairs = homes[folder]
            found.setdefault(home, {})[entry.path] = pairs
    if not any(home.kind == "node" for home in found):
        raise _misplaced(
            f"{path}/nodes holds no Parquet files.", "Put each label's files into nodes/<Label>/."
        )
    for files in found.values():
        (first, one), *others = files.items()
        for file, two in others:
            if {key for key, _ in one} != {key for key, _ in two}:  # one of them is a leftover
                have, has = (", ".join(f"{key}=" for key, _ in pairs) or "none" for pairs in (one, two))
                what = f"{first} and {file} lie in folders of different columns ({have} and {has})."
                cure = "Lay all files of a table out in the same way, and remove what is left over."
                raise _misplaced(what, cure)
    tables = [replace(home, files=tuple(files), pairs=tuple(files.values())) for home, files in found.items()]
    return tuple(sorted(tables, key=lambda table: table.kind))


def _check_entry(entry: Entry) -> None:
    """Raises BadInput, or NotReadable, for what cannot be part of any snapshot."""
    if has_control(entry.path):
        raise _misplaced(f"The name {entry.path!a} holds characters that are no text.", "Rename it.")
    if entry.sign == "unfinished":
        cure = "Remove it when nothing writes any more."
        what = f"The snapshot is not finished: {entry.path} {entry.fault}."
        raise NotReadable(what, kept=_KEPT, cure=cure)
    if entry.sign == "foreign":
        form = str(entry.fault)
        home = os.path.dirname(entry.path)
        if form == "Iceberg":
            home = os.path.dirname(home)
        place = home or "The snapshot's own folder"
        what = f"{place} is a {form} table ({entry.path}): its log decides which files and rows count, so its files alone are not the table."
        raise _misplaced(what, f"Export the table as a plain folder of Parquet files, {_EXPORT[form]}.")
    if entry.fault is not None and (is_in_table(f"{entry.path}/") or is_parquet(entry.path)):
        raise _misplaced(f"{entry.path} {entry.fault}.", "Copy the data itself into the snapshot.")
    if is_packed(entry.path):
        what = f"{entry.path} looks like a Parquet file that is packed or half copied."
        raise _misplaced(what, f"Finish copying or unpack it, {_LEAVE_OUT}.")


def _misplaced(what: str, cure: str) -> BadInput:
    return BadInput(what, kept=_KEPT, cure=cure)


def has_control(text: str) -> bool:
    """True for a text with control characters or lone surrogates, which no reader should be given as a name."""
    return any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)


def _is_unnamed_parquet(path: Path, entry: Entry) -> bool:
    """True for a file like 000000_0, as Hive names them, that begins as Parquet does."""
    if entry.fault is not None or "." in os.path.basename(entry.path):
        return False
    try:
        return starts_as_parquet(str(path / entry.path))
    except OSError as error:
        if not is_in_table(entry.path):
            return False
        what = f"{entry.path} cannot be read: {error.strerror or error}."
        raise NotReadable(what, kept=_KEPT, cure="Give bgdeploy the right to read it.") from error


def _check_data(path: Path, entry: Entry) -> None:
    """Raises BadInput for what is no Parquet file, or may be meant to be left out."""
    parts = entry.path.split("/")
    hidden = next((part for part in parts if part[0] == "_" and "=" not in part), None)
    if hidden is not None:
        what = f"{entry.path}: some readers leave out names that begin with '_' ({hidden}), others do not."
        raise _misplaced(what, "Rename it to load it, or begin its name with '.' to leave it out.")
    if is_parquet(entry.path) or _is_unnamed_parquet(path, entry):
        return
    if "." not in parts[-1] and not entry.size:
        cure = f"Wait until it is copied whole, remove it, {_LEAVE_OUT}."
        raise NotReadable(f"{entry.path} is empty.", kept=_KEPT, cure=cure)
    what = f"{entry.path} is no Parquet file, and nothing in a table's folder is left out silently."
    raise _misplaced(what, f"Write it as Parquet, move it out of {parts[0]}/, {_LEAVE_OUT}.")


def _read_folder(folder: str, file: str) -> tuple[TableFolder, tuple[Pair, ...]]:
    """What the names of a folder say: the table, its ends, and the columns that are no ends."""
    parts = folder.split("/")
    match parts:
        case ["nodes", joined, *inside]:
            labels = tuple(dict.fromkeys(joined.split(":")))
            if not all(label.strip() for label in labels):
                cure = "Name it nodes/<Label> or nodes/<Label>:<Label>."
                raise _misplaced(f"The folder {folder} has an empty label in its name.", cure)
            home = TableFolder("node", labels[0], labels)
        case ["relationships", name, *inside]:
            declared = [part for part in inside if part.startswith(("from=", "to="))]
            inside = [part for part in inside if part not in declared]
            if declared and [part.partition("=")[0] for part in declared] != ["from", "to"]:
                what = f"The folder {folder} does not declare both ends as from=<Label>/to=<Label>."
                raise _misplaced(what, f"Name it relationships/{name}/from=<Label>/to=<Label>.")
            ends = []
            for end in declared:
                # As jobs that write partitions do: what may not stand in a folder's name is written %XX.
                label = unquote(end.partition("=")[2])
                if not label.strip() or label == _NULL or has_control(label):
                    what = f"The folder {folder} declares no label in {end!r}."
                    raise _misplaced(what, "Write from=<Label>/to=<Label>.")
                ends.append(label)
            source, target = ends or (None, None)
            home = TableFolder("relationship", name, (), source, target)
        case ["nodes"]:
            raise _misplaced(f"{file} lies directly in nodes/.", "Move it into nodes/<Label>/.")
        case ["relationships"]:
            raise _misplaced(
                f"{file} lies directly in relationships/.", "Move it into relationships/<TYPE>/."
            )
        case _:
            place = f"The folder {folder}" if folder else "The snapshot's own folder"
            raise _misplaced(f"{place} holds Parquet files ({file}).", f"Lay the files out as {_SHAPES}.")
    pairs: list[Pair] = []
    for part in inside:
        if "=" not in part:
            what = f"The folder {folder} holds files, but a table has no folders inside but those of columns."
            cure = f"Name it <column>=<value> where it is a column, or move its files into {parts[0]}/{parts[1]}/ under names that are not taken there."
            raise _misplaced(what, cure)
        pair = _read_pair(folder, part)
        if any(pair[0] == key for key, _ in pairs):
            raise _misplaced(f"The folder {folder} has the column {pair[0]!r} twice.", "Rename one of them.")
        pairs.append(pair)
    return home, tuple(pairs)


def _read_pair(folder: str, part: str) -> Pair:
    """Column and value of a folder ``column=value``, ``%XX`` decoded."""
    left, _, right = part.partition("=")
    try:
        key, value = unquote(left, errors="strict"), unquote(right, errors="strict")
    except UnicodeDecodeError:
        key = value = ""
    if not key.strip() or not value or has_control(key + value):
        cure = f"Name it <column>=<value>, as {_NULL} where the value is null."
        raise refused(f"The folder {folder} has no column or no value in {part!r}.", cure)
    return key, None if value == _NULL else value


# Roles of columns

NAMES: Mapping[Role, Sequence[str]] = {
    "id": ("nodeId", "id", ":ID"),
    "labels": ("labels", ":LABEL"),
    "source": ("sourceNodeId", "source", "src", "from", ":START_ID"),
    "target": ("targetNodeId", "target", "dst", "to", ":END_ID"),
    "type": ("relationshipType", "type", ":TYPE"),
}
_EXTRA: Mapping[Kind, Role] = {"node": "labels", "relationship": "type"}  # stands behind the ids
_ALLOW = "Where the first column is the id in all such files: set dataset.columns.by_position to true."


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

    def by_name(role: Role) -> int | None:
        there = schema.names
        return next((there.index(name) for name in names_of(role, names) if name in there), None)

    keys, extra = KEYS[kind], _EXTRA[kind]
    roles = {number: role for role in keys if (number := by_name(role)) is not None}
    place, by_position = len(keys), tuple[Role, ...]()
    number = by_name(extra)
    # In any case: existing jobs write ``LABELS``.
    known = {one.casefold() for one in names_of(extra, names)}
    named = number is None and len(schema) > place and schema.names[place].casefold() in known
    if not roles and len(schema) >= place:
        if kind == "node" and not (named or number == place or names.get("by_position")):
            what = f"{file} has no column for the id by its name (it has {', '.join(schema.names)}), and its second column is no labels column, so that the first might be anything."
            raise refused(what, Hint(_declare(["id"], names), " ", _ALLOW))
        roles, by_position = dict(enumerate(keys)), keys
    _check_ids(file, schema, keys, Found(roles, by_position), names)
    if number is not None and number not in roles:
        _check_text(file, schema.field(number), extra)
        return Found({**roles, number: extra}, by_position)
    if number is not None or place in roles or place >= len(schema):
        return Found(roles, by_position)
    field = schema.field(place)
    if named and by_position and kind == "node":
        _check_text(file, field, extra)
    elif not (_is_text_for(extra, field.type) and speaks_of_folder(field.name)):
        return Found(roles, by_position)
    return Found({**roles, place: extra}, (*by_position, extra))


def names_of(role: Role, names: Mapping[str, Any]) -> Sequence[str]:
    """The names a role's column may have, the strongest first."""
    found: Sequence[str] = names.get(role) or NAMES[role]
    return found


def _check_ids(
    file: str, schema: pa.Schema, keys: Sequence[Role], found: Found, names: Mapping[str, Any]
) -> None:
    there = ", ".join(schema.names) or "none"
    for role in keys:
        number = next((number for number, one in found.roles.items() if one == role), None)
        if number is None:
            known = ", ".join(names_of(role, names))
            what = f"{file} has no column for the {_spoken(role)} (it has {there})."
            raise refused(what, f"Name one of {known}, or set dataset.columns.{role}.")
        field = schema.field(number)
        if family(field.type) is None:
            what = f"{file}: column {field.name!r} is the {_spoken(role)} but holds {field.type}."
            cure = Hint("Ids are strings or integers.")
            if found.by_position:
                what = f"{what} It was taken by its position, since no name matches (the file has {there})."
                cure = Hint(cure, " ", _declare(keys, names))
            raise refused(what, cure)


def _check_text(file: str, field: pa.Field, role: Role) -> None:
    if not _is_text_for(role, field.type):
        wanted = "a string or a list of strings" if role == "labels" else "a string"
        cure = f"Make it {wanted}, rename it if it is a property, or set dataset.columns.{role}."
        raise refused(f"{file}: column {field.name!r} is the {role} but holds {field.type}.", cure)


def _is_text_for(role: Role, kind: pa.DataType) -> bool:
    return is_text(kind) or (role == "labels" and is_text_list(kind))


def _declare(roles: Sequence[Role], names: Mapping[str, Any]) -> Hint:
    """The line of the configuration that declares columns."""
    lines = []
    for role in roles:
        known = [f'"{one}"' if one.startswith(":") else one for one in names_of(role, names)]
        lines.append(f"{role}: [{', '.join([*known, '<its column>'])}]")
    what = " and the ".join(map(_spoken, roles))
    line = f"dataset: {{columns: {{{', '.join(lines)}}}}}"
    restart = Hint(f"Declare the {what} in config.yaml, {line}, restart ", do("serve"))
    return Hint(restart, ", and: ", do("retry_all_failed"), ".")


def _spoken(role: Role) -> str:
    return "id" if role == "id" else f"{role} id"


def tell_ends(table: Table) -> tuple[str, str] | None:
    """What to say, and what helps, where the ends of a relationship table were taken by their position and do not fit."""
    file = next((one for one in table.files if "source" in one.by_position), None)
    if file is None:
        return None
    taken = " and ".join(f"{one.name!r} as the {one.role} id" for one in file.columns if one.role in ENDS)
    there = ", ".join(one.name for one in file.columns if one.constant is None)
    what = f"{file.path} has no columns for the ends by their names (it has {there}), so their position counted: {taken}."
    return what, Hint("If these are no ends: ", _declare(ENDS, {}))


# Columns that folders are


def type_columns(files: Mapping[str, Sequence[Pair]]) -> tuple[list[Column], dict[str, tuple[Column, ...]]]:
    """Return the columns that the folders of one table make, and each file's own, which has none where the value is null.

    Integers or dates where all values of a column are, else text; an integer is what is written again as it stands
    (``01`` is text), a date is ``2024-01-31``.
    """
    values: dict[str, set[str]] = {}
    for pairs in files.values():
        for key, value in pairs:
            values.setdefault(key, set()).update([] if value is None else [value])
    kinds: dict[str, tuple[pa.DataType, Callable[[str], str | int | date]]] = {}
    for key, found in values.items():
        if found and all(map(_is_integer, found)):
            kinds[key] = pa.int64(), int
        elif found and all(map(_is_date, found)):
            kinds[key] = pa.date32(), date.fromisoformat
        else:
            kinds[key] = pa.string(), str
    own: dict[str, tuple[Column, ...]] = {}
    for file, pairs in files.items():
        known = [(key, value, *kinds[key]) for key, value in pairs if value is not None]
        own[file] = tuple(
            Column(key, kind, "property", constant=read(value)) for key, value, kind, read in known
        )
    return [Column(key, kind, "property") for key, (kind, _) in kinds.items()], own


def _is_integer(value: str) -> bool:
    if len(value) > 20 or not value.isascii():
        return False
    try:
        return str(int(value)) == value and -(2**63) <= int(value) < 2**63
    except ValueError:
        return False


def _is_date(value: str) -> bool:
    try:
        return date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def check_keys(file: str, pairs: Iterable[Pair], columns: Iterable[str], taken: Iterable[str]) -> None:
    """Raise BadInput for a folder's column that the file has too, or that is ``taken``, the name of an id, end, labels or type."""
    there, meant = set(columns), {one.casefold() for one in taken}
    for key, _ in pairs:
        if key in there:
            what = f"{file}: column {key!r} is in the file and in the name of its folder too."
            raise refused(what, "Leave it out of the files, or give the folders another name.")
        if key.casefold() in meant:
            what = f"{file}: the folder's column {key!r} has the name of an id, an end, labels or a type, which only files can hold."
            raise refused(what, "Write it as a column of the files, or give the folders another name.")
