"""Layout: which folder of a snapshot is which table; a listing, and four bytes of a file whose name says nothing."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa

from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.snapshots.folders import Entry, is_in_table, is_packed, is_parquet, starts_as_parquet, walk
from bgdeploy.snapshots.parquet import family, is_text, is_text_list
from bgdeploy.snapshots.source import Column, Kind, Role, Table

# Partitions: the columns that the names of folders hold, ``country=DE/``, as Spark, Hive, DuckDB and pyarrow write them.

NULL = "__HIVE_DEFAULT_PARTITION__"
Pair = tuple[str, str | None]  # column, value as text; None is null
_KEPT = "Nothing of the snapshot was loaded."
_LARGEST = 2**63


def parse_folder(folder: str, part: str) -> Pair | None:
    """Return column and value of a folder's name, ``%XX`` decoded; None where it is not ``column=value``.

    Raises BadInput, with ``folder``, for a column or a value that is no text, or is empty.
    """
    if "=" not in part:
        return None
    left, _, right = part.partition("=")
    try:
        key, value = unquote(left, errors="strict"), unquote(right, errors="strict")
    except UnicodeDecodeError:
        key = value = ""
    if not key.strip() or not value or any(unicodedata.category(one) in ("Cc", "Cs") for one in key + value):
        cure = f"Name it <column>=<value>, as {NULL} where the value is null."
        raise BadInput(f"The folder {folder} has no column or no value in {part!r}.", kept=_KEPT, cure=cure)
    return key, None if value == NULL else value


def type_columns(files: Mapping[str, Sequence[Pair]]) -> tuple[list[Column], dict[str, tuple[Column, ...]]]:
    """Return the columns that the folders of one table make, and each file's own, which has none where the value is null.

    Integers or dates where all values of a column are, else text; an integer is what is written again as it stands
    (``01`` is text), a date is ``2024-01-31``.
    """
    import pyarrow as pa

    values: dict[str, set[str]] = {}
    for pairs in files.values():
        for key, value in pairs:
            values.setdefault(key, set()).update([] if value is None else [value])
    kinds: dict[str, tuple[pa.DataType, type[str] | type[int] | type[date]]] = {}
    for key, found in values.items():
        if found and all(map(_is_integer, found)):
            kinds[key] = pa.int64(), int
        elif found and all(map(_is_date, found)):
            kinds[key] = pa.date32(), date
        else:
            kinds[key] = pa.string(), str

    def own(key: str, value: str) -> Column:
        kind, python = kinds[key]
        said = date.fromisoformat(value) if python is date else python(value)  # type: ignore[call-arg,arg-type]
        return Column(key, kind, "property", constant=said)

    columns = [Column(key, kind, "property") for key, (kind, _) in kinds.items()]
    return columns, {
        file: tuple(own(key, value) for key, value in pairs if value is not None)
        for file, pairs in files.items()
    }


def _is_integer(value: str) -> bool:
    if len(value) > 20 or not value.isascii():
        return False
    try:
        number = int(value)
    except ValueError:
        return False
    return str(number) == value and -_LARGEST <= number < _LARGEST


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
            raise BadInput(
                what, kept=_KEPT, cure="Leave it out of the files, or give the folders another name."
            )
        if key.casefold() in meant:
            what = f"{file}: the folder's column {key!r} has the name of an id, an end, labels or a type, which only files can hold."
            cure = "Write it as a column of the files, or give the folders another name."
            raise BadInput(what, kept=_KEPT, cure=cure)


# Columns: which column of a file is the id, the labels, an end or the type.

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


# Layout: which folder of a snapshot is which table; a listing, and four bytes of a file whose name says nothing.

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
    source_label: str | None
    target_label: str | None
    files: tuple[str, ...]
    pairs: tuple[tuple[Pair, ...], ...]


def read_layout(path: Path) -> tuple[TableFolder, ...]:
    """Return the folders that hold data: nodes first, each kind by path; empty folders are left out.

    Below nodes/ and relationships/ every file is loaded, known bookkeeping, or refused by name. Raises BadInput, with
    the folder and the cure, for what is not laid out as a snapshot, and NotReadable for what is not finished, cannot
    be listed, or is gone.
    """
    entries = _walk(path)
    for entry in entries:
        _check_entry(entry)
    if not os.path.isdir(path / "nodes"):
        raise _refuse(f"{path} has no folder nodes/.", f"Lay the files out as {_SHAPES}.")
    found: dict[_Home, dict[str, tuple[Pair, ...]]] = {}
    homes: dict[str, tuple[_Home, tuple[Pair, ...]]] = {}  # by folder
    for entry in entries:
        if is_in_table(entry.path) or is_parquet(entry.path) or _is_unnamed_parquet(path, entry):
            _check_data(path, entry)
            folder = os.path.dirname(entry.path)
            if folder not in homes:
                homes[folder] = _read_folder(folder, entry.path)
            home, pairs = homes[folder]
            found.setdefault(home, {})[entry.path] = pairs
    if not any(home.kind == "node" for home in found):
        raise _refuse(f"{path}/nodes holds no Parquet files.", "Put each label's files into nodes/<Label>/.")
    tables = [_table(home, files) for home, files in found.items()]
    return tuple(sorted(tables, key=lambda table: table.kind))


@dataclass(frozen=True)
class _Home:
    """What the names of a table's folders say but for its partitions."""

    kind: Kind
    name: str
    labels: tuple[str, ...]
    source_label: str | None = None
    target_label: str | None = None


def _table(home: _Home, files: dict[str, tuple[Pair, ...]]) -> TableFolder:
    """Raises BadInput where one file lies in folders of other columns than another: one of them is a leftover."""
    (first, one), *others = files.items()
    for file, two in others:
        if {key for key, _ in one} != {key for key, _ in two}:
            have, has = (", ".join(f"{key}=" for key, _ in pairs) or "none" for pairs in (one, two))
            what = f"{first} and {file} lie in folders of different columns ({have} and {has})."
            raise _refuse(what, "Lay all files of a table out in the same way, and remove what is left over.")
    ends = home.source_label, home.target_label
    return TableFolder(home.kind, home.name, home.labels, *ends, tuple(files), tuple(files.values()))


def _walk(path: Path) -> list[Entry]:
    try:
        entries = walk(str(path))
    except FileNotFoundError as error:
        raise NotReadable(f"The folder {path} is gone.", kept=_KEPT) from error
    closed = next((entry for entry in entries if entry.fault == "cannot be listed"), None)
    if closed is None:
        return entries
    cure = "Give bgdeploy the right to read it."
    raise NotReadable(f"The folder {path / closed.path} cannot be listed.", kept=_KEPT, cure=cure)


def _check_entry(entry: Entry) -> None:
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in entry.path):
        raise _refuse(f"The name {entry.path!a} holds characters that are no text.", "Rename it.")
    if entry.sign == "unfinished":
        cure = "Remove it when nothing writes any more."
        raise NotReadable(f"The snapshot is not finished: {entry.path} {entry.fault}.", kept=_KEPT, cure=cure)
    if entry.sign == "foreign":
        raise _refuse(*foreign(entry.path, str(entry.fault)))
    in_place = is_in_table(f"{entry.path}/") or is_parquet(entry.path)
    if entry.fault is not None and in_place:
        raise _refuse(f"{entry.path} {entry.fault}.", "Copy the data itself into the snapshot.")
    if is_packed(entry.path):
        cure = f"Finish copying or unpack it, {_LEAVE_OUT}."
        raise _refuse(f"{entry.path} looks like a Parquet file that is packed or half copied.", cure)


def foreign(log: str, form: str) -> tuple[str, str]:
    """What is wrong with a table of another format whose log lies at ``log``, and what helps."""
    home = os.path.dirname(log)
    if form == "Iceberg":
        home = os.path.dirname(home)
    place = home or "The snapshot's own folder"
    what = f"{place} is a {form} table ({log}): its log decides which files and rows count, so its files alone are not the table."
    return what, f"Export the table as a plain folder of Parquet files, {_EXPORT[form]}."


def _check_data(path: Path, entry: Entry) -> None:
    """Raises BadInput for what is no Parquet file, or may be meant to be left out."""
    parts = entry.path.split("/")
    hidden = next((part for part in parts if part[0] == "_" and "=" not in part), None)
    if hidden is not None:
        what = f"{entry.path}: some readers leave out names that begin with '_' ({hidden}), others do not."
        raise _refuse(what, "Rename it to load it, or begin its name with '.' to leave it out.")
    if is_parquet(entry.path):
        return
    if _is_unnamed_parquet(path, entry):
        return
    if "." not in parts[-1] and not entry.size:
        cure = f"Wait until it is copied whole, remove it, {_LEAVE_OUT}."
        raise NotReadable(f"{entry.path} is empty.", kept=_KEPT, cure=cure)
    what = f"{entry.path} is no Parquet file, and nothing in a table's folder is left out silently."
    raise _refuse(what, f"Write it as Parquet, move it out of {parts[0]}/, {_LEAVE_OUT}.")


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


def _read_folder(folder: str, file: str) -> tuple[_Home, tuple[Pair, ...]]:
    """What the names of a folder say: the table, its ends, and the columns that are no ends."""
    parts = folder.split("/")
    match parts:
        case ["nodes", joined, *inside]:
            labels = tuple(dict.fromkeys(joined.split(":")))
            if not all(label.strip() for label in labels):
                cure = "Name it nodes/<Label> or nodes/<Label>:<Label>."
                raise _refuse(f"The folder {folder} has an empty label in its name.", cure)
            home = _Home("node", labels[0], labels)
        case ["relationships", name, *inside]:
            declared = [part for part in inside if part.startswith(("from=", "to="))]
            inside = [part for part in inside if part not in declared]
            ends: list[str | None] = [None, None]
            if declared:
                if [part.partition("=")[0] for part in declared] != ["from", "to"]:
                    what = f"The folder {folder} does not declare both ends as from=<Label>/to=<Label>."
                    raise _refuse(what, f"Name it relationships/{name}/from=<Label>/to=<Label>.")
                ends = [_read_end(folder, part) for part in declared]
            home = _Home("relationship", name, (), *ends)
        case ["nodes"]:
            raise _refuse(f"{file} lies directly in nodes/.", "Move it into nodes/<Label>/.")
        case ["relationships"]:
            raise _refuse(f"{file} lies directly in relationships/.", "Move it into relationships/<TYPE>/.")
        case _:
            place = f"The folder {folder}" if folder else "The snapshot's own folder"
            raise _refuse(f"{place} holds Parquet files ({file}).", f"Lay the files out as {_SHAPES}.")
    pairs: list[Pair] = []
    for part in inside:
        pair = parse_folder(folder, part)
        if pair is None:
            what = f"The folder {folder} holds files, but a table has no folders inside but those of columns."
            cure = f"Name it <column>=<value> where it is a column, or move its files into {parts[0]}/{parts[1]}/ under names that are not taken there."
            raise _refuse(what, cure)
        if any(pair[0] == key for key, _ in pairs):
            raise _refuse(f"The folder {folder} has the column {pair[0]!r} twice.", "Rename one of them.")
        pairs.append(pair)
    return home, tuple(pairs)


def _read_end(folder: str, end: str) -> str:
    # As jobs that write partitions do: what may not stand in a folder's name is written %XX.
    label = unquote(end.partition("=")[2])
    bad = any(unicodedata.category(letter) in ("Cc", "Cs") for letter in label)
    if not label.strip() or label == NULL or bad:
        raise _refuse(f"The folder {folder} declares no label in {end!r}.", "Write from=<Label>/to=<Label>.")
    return label
