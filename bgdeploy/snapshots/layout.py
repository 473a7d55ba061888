"""Layout: which folder of a snapshot is which table; a listing, and four bytes of a file whose name says nothing."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.snapshots.files import Entry, is_in_table, is_packed, is_parquet, starts_as_parquet, walk
from bgdeploy.snapshots.partitions import NULL, Pair, parse_folder
from bgdeploy.snapshots.source import Kind

_KEPT = "Nothing of it was loaded."
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


def _refuse(what: str, cure: str) -> BadInput:
    return BadInput(what, kept=_KEPT, cure=cure)
