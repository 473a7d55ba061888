"""Sources: the snapshot's files as the tool takes them, under headers of our own, most of them where they lie.

The tool reads ``<header>.csv,<file>,<file>``: the header's first line says what its second line's
columns become, and columns it leaves out are not read. It takes paths for patterns and labels for
lists, so the files are reached through numbered links in a folder of our own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bgdeploy.errors import BadInput, TargetFull
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.families import family
from bgdeploy.snapshots.source import Column, Snapshot, Table
from bgdeploy.targets.base import Group
from bgdeploy.targets.groups import file_of, find_table, is_split
from bgdeploy.targets.neo4j.offline.copies import Source, copy, in_place
from bgdeploy.targets.neo4j.offline.forms import form_of
from bgdeploy.targets.neo4j.offline.looks import Look, look_at, unfit
from bgdeploy.targets.neo4j.room import MIB

FOLDER = "input"
COPIES = "copies"  # below it
LABELS_APART = ","  # between labels in one text, as snapshots have it
_MARKS = set(':(){}[]"\r\n')  # what has a meaning of its own in a header, or none at all
_LABEL_MARKS = set(":=,\r\n")
_GROWN = 2  # a copy may be larger than its file, at the most so many times as far as was seen
_KEPT = "What is live stays live."


@dataclass(frozen=True)
class Spaces:
    """The tool's name for the ids of each label, since ids may repeat across labels."""

    names: tuple[str, ...]

    def of(self, label: str) -> str:
        """``g0``, ``g1`` ...; a label itself may hold what the tool reads as marks."""
        return f"g{self.names.index(label)}"

    def label(self, space: str) -> str:
        """The way back, for what the tool says."""
        return self.names[int(space[1:])]


@dataclass(frozen=True)
class Input:
    """What the tool is told of the data; ``empties`` are (kind, label or type, property) with empty texts among them."""

    words: tuple[str, ...]
    empties: tuple[tuple[str, str, str], ...]


def spaces_of(snapshot: Snapshot) -> Spaces:
    """One space for each node table's name."""
    return Spaces(tuple(dict.fromkeys(table.name for table in snapshot.nodes)))


def id_type(snapshot: Snapshot) -> str:
    """``integer`` where every id is one, which needs far less memory, else ``string``."""
    found = {family(table.key("id").kind) for table in snapshot.nodes}
    return "integer" if found == {"integer"} else "string"


def lay_out(snapshot: Snapshot, groups: Sequence[Group], folder: Path) -> Input:
    """Write headers, links and copies below ``folder`` and return what leads the tool to them.

    Raises BadInput for what the tool cannot take and Misfit for keys that are null.
    """
    home = folder / FOLDER
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    files = [_look_at(snapshot, group, path, folder) for group in groups for path in group.files]
    _check_room([file for file in files if file.copied], home)
    spaces, alike = spaces_of(snapshot), dict[tuple[str, str], list[Path]]()
    for number, file in enumerate(files):
        for source in _sources(file, home / COPIES, str(number)):
            alike.setdefault((_option(file.table), _header(source, file.group, spaces)), []).append(
                source.path
            )
    words = [_word(home, number, *key, paths) for number, (key, paths) in enumerate(alike.items())]
    return Input(tuple(words), tuple(dict.fromkeys(empty for file in files for empty in file.empties)))


def _sources(file: _File, folder: Path, stem: str) -> list[Source]:
    if not file.copied:
        return [in_place(file.path, file.looks)]
    folder.mkdir(exist_ok=True)
    return copy(file.path, file.looks, folder, stem)


def _word(home: Path, number: int, option: str, header: str, paths: Sequence[Path]) -> str:
    """One option for all files with one header; paths count from the folder the tool runs in, so that many fit."""
    first = home / f"{number}.csv"
    first.write_text(header, encoding="utf-8")
    links = [home / f"{number}-{place}.parquet" for place in range(len(paths))]
    for link, path in zip(links, paths, strict=True):
        link.symlink_to(path)
    return f"{option}={','.join(f'{FOLDER}/{one.name}' for one in (first, *links))}"


@dataclass(frozen=True)
class _File:
    """One file of the plan with what was seen of its columns."""

    path: Path
    table: Table
    group: Group
    looks: Sequence[Look]

    @property
    def copied(self) -> bool:
        return any(look.copied for look in self.looks)

    @property
    def empties(self) -> list[tuple[str, str, str]]:
        names = [look.column.name for look in self.looks if look.empties]
        return [(self.table.kind, self.table.name, name) for name in names]


def _look_at(snapshot: Snapshot, group: Group, path: str, folder: Path) -> _File:
    table = find_table(snapshot, group)
    real = ((folder if is_split(path) else snapshot.path) / path).absolute()
    try:
        return _File(real, table, group, look_at(real, table, file_of(table, path)))
    except Misfit as misfit:
        raise Misfit(table.kind, table.name, misfit.said) from misfit


def _check_room(copied: Sequence[_File], home: Path) -> None:
    """Raise TargetFull where the copies would not fit; they take about what their files take."""
    needed = _GROWN * sum(file.path.stat().st_size for file in copied)
    room = os.statvfs(home)
    if needed > (free := room.f_bavail * room.f_frsize):
        what = f"{len(copied)} files are written anew for the import tool, which takes about {needed / MIB:,.0f} MiB, and {home} has {free / MIB:,.0f} MiB."
        raise TargetFull(what, kept=_KEPT, cure="Make room there.")


def _header(source: Source, group: Group, spaces: Spaces) -> str:
    """Two lines: what the columns become, and what they are called in the file."""
    pairs = [(_target(look.column, group, spaces) + suffix, name) for look, name, suffix in source.columns]
    lines = [",".join(f'"{word}"' for word in line) for line in zip(*pairs, strict=True)]
    return "\n".join(lines) + "\n"


def check_fit(snapshot: Snapshot) -> None:
    """Raise BadInput for a name that the tool would read as something else, and for a type it cannot be given."""
    for table in snapshot.tables:
        _option(table)
        for column in table.columns:
            if column.role in ("id", "property"):
                _safe(column)
            if column.role == "property" and form_of(column.kind) is None:
                raise unfit(table.name, column, f"holds {column.kind}")


def _option(table: Table) -> str:
    names = table.labels if table.kind == "node" else (table.name,)
    for name in names:
        if _LABEL_MARKS & set(name) or name != name.strip():
            raise _refuse(f"the {'label' if table.kind == 'node' else 'type'} {name!r}", "Rename the folder")
    return f"--{'nodes' if table.kind == 'node' else 'relationships'}={':'.join(names)}"


def _target(column: Column, group: Group, spaces: Spaces) -> str:
    """What the tool makes of a column, in its own words."""
    match column.role:
        case "id":
            return f"{_safe(column)}:ID({spaces.of(group.name)})"
        case "labels":
            return ":LABEL"
        case "source":
            return f":START_ID({spaces.of(str(group.source_label))})"
        case "target":
            return f":END_ID({spaces.of(str(group.target_label))})"
        case _:
            return _safe(column)


def _safe(column: Column) -> str:
    if _MARKS & set(column.name) or column.name != column.name.strip():
        raise _refuse(f"the column {column.name!r}", "Rename the column")
    return column.name


def _refuse(what: str, cure: str) -> BadInput:
    said = f"The import tool cannot take {what}: it reads some of its characters as its own marks."
    return BadInput(said, kept=_KEPT, cure=f"{cure}, or set neo4j.loader to bolt.")
