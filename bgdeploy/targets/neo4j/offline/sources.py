"""Sources: the snapshot's files as the tool takes them, each with a header of its own, most of them where they lie.

The tool reads ``<header>.csv,<file>`` pairs: the header's first line says what its second line's
columns become, and columns it leaves out are not read. It takes paths for patterns and labels for
lists, so the files are reached through numbered links in a folder of our own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.ids import column_of, family
from bgdeploy.snapshots.source import Column, DataFile, Snapshot, Table
from bgdeploy.targets.base import Group
from bgdeploy.targets.groups import file_of, find_table, is_split

FOLDER = "input"
LABELS_APART = ","  # between labels in one text, as snapshots have it
_MARKS = set(':(){}[]"\r\n')  # what has a meaning of its own in a header, or none at all
_LABEL_MARKS = set(":=,\r\n")
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


def spaces_of(snapshot: Snapshot) -> Spaces:
    """One space for each node table's name."""
    return Spaces(tuple(dict.fromkeys(table.name for table in snapshot.nodes)))


def id_type(snapshot: Snapshot) -> str:
    """``integer`` where every id is one, which needs far less memory, else ``string``."""
    found = {family(column_of(table, "id")) for table in snapshot.nodes}
    return "integer" if found == {"integer"} else "string"


def lay_out(snapshot: Snapshot, groups: Sequence[Group], folder: Path) -> list[str]:
    """Write headers and links below ``folder`` and return the tool's ``--nodes`` and ``--relationships``.

    Raises BadInput for names that the tool would read as something else.
    """
    home = folder / FOLDER
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    spaces, words = spaces_of(snapshot), []
    for number, (group, path) in enumerate(_files(groups)):
        table = find_table(snapshot, group)
        real = (folder if is_split(path) else snapshot.path) / path
        link, header = home / f"{number}.parquet", home / f"{number}.csv"
        link.symlink_to(real.absolute())
        header.write_text(_header(table, file_of(table, path), group, spaces), encoding="utf-8")
        words.append(f"{_option(table)}={header},{link}")
    return words


def check_names(snapshot: Snapshot) -> None:
    """Raise BadInput for a label, type or column whose name the tool would read as something else."""
    for table in snapshot.tables:
        _option(table)
        for column in table.columns:
            if column.role in ("id", "property"):
                _safe(column)


def _files(groups: Sequence[Group]) -> Iterator[tuple[Group, str]]:
    for group in groups:
        for path in group.files:
            yield group, path


def _option(table: Table) -> str:
    names = table.labels if table.kind == "node" else (table.name,)
    for name in names:
        if _LABEL_MARKS & set(name) or name != name.strip():
            raise _refuse(f"the {'label' if table.kind == 'node' else 'type'} {name!r}", "Rename the folder")
    return f"--{'nodes' if table.kind == 'node' else 'relationships'}={':'.join(names)}"


def _header(table: Table, file: DataFile, group: Group, spaces: Spaces) -> str:
    pairs = [
        (target, own.name)
        for column in table.columns
        if (own := file.find(column)) is not None and (target := _target(column, group, spaces)) is not None
    ]
    lines = [",".join(_quote(word) for word in line) for line in zip(*pairs, strict=True)]
    return "\n".join(lines) + "\n"


def _target(column: Column, group: Group, spaces: Spaces) -> str | None:
    """What the tool makes of a column, in its own words; None for one it shall not read."""
    match column.role:
        case "id":
            return f"{_safe(column)}:ID({spaces.of(group.name)})"
        case "labels":
            return ":LABEL"
        case "source":
            return f":START_ID({spaces.of(str(group.source_label))})"
        case "target":
            return f":END_ID({spaces.of(str(group.target_label))})"
        case "type":
            return None
        case _:
            return _safe(column)


def _safe(column: Column) -> str:
    if _MARKS & set(column.name) or column.name != column.name.strip():
        raise _refuse(f"the column {column.name!r}", "Rename the column")
    return column.name


def _quote(word: str) -> str:
    return '"' + word + '"'


def _refuse(what: str, cure: str) -> BadInput:
    said = f"The import tool cannot take {what}: it reads some of its characters as its own marks."
    return BadInput(said, kept=_KEPT, cure=f"{cure}, or set neo4j.loader to bolt.")
