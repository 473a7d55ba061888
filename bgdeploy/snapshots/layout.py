"""Layout: which folder of a snapshot is which table; a listing only, no file is opened."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.snapshots.files import Entry, is_parquet, walk
from bgdeploy.snapshots.source import Kind

_KEPT = "Nothing of it was loaded."
_SHAPES = (
    "nodes/<Label>/*.parquet, relationships/<TYPE>/*.parquet and "
    "relationships/<TYPE>/from=<Label>/to=<Label>/*.parquet"
)


@dataclass(frozen=True)
class TableFolder:
    """One folder of files: what its names say, and its files relative to the snapshot, sorted.

    ``labels`` is empty for relationships. Two folders may name one table (``Person``, ``Person:Employee``).
    """

    kind: Kind
    name: str
    labels: tuple[str, ...]
    source_label: str | None
    target_label: str | None
    files: tuple[str, ...]


def read_layout(path: Path) -> tuple[TableFolder, ...]:
    """Return the folders that hold data: nodes first, each kind by path; empty folders are left out.

    Raises BadInput, with the folder and the cure, for what is not laid out as a snapshot, and
    NotReadable for a folder that cannot be listed or is gone.
    """
    entries = _walk(path)
    if not os.path.isdir(path / "nodes"):
        raise _refuse(f"{path} has no folder nodes/.", f"Lay the files out as {_SHAPES}.")
    folders: dict[str, list[str]] = {}
    for entry in entries:
        _check_entry(entry)
        folders.setdefault(os.path.dirname(entry.path), []).append(entry.path)
    tables = [_read_folder(folder, files) for folder, files in folders.items() if _holds_data(folder, files)]
    if not any(table.kind == "node" for table in tables):
        raise _refuse(f"{path}/nodes holds no Parquet files.", "Put each label's files into nodes/<Label>/.")
    return tuple(sorted(tables, key=lambda table: table.kind))


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
    if entry.fault is not None and (_is_in_table(entry.path) or is_parquet(entry.path)):
        raise _refuse(f"{entry.path} {entry.fault}.", "Copy the data itself into the snapshot.")
    name = os.path.basename(entry.path).lower()
    if ".parquet." in name:
        cure = "Finish copying or unpack it, or begin its name with '.' to leave it out."
        raise _refuse(f"{entry.path} looks like a Parquet file that is packed or half copied.", cure)


def _holds_data(folder: str, files: Sequence[str]) -> bool:
    if any(map(is_parquet, files)):
        return True
    if _is_in_table(folder):
        cure = "Write it as Parquet, or remove the folder."
        raise _refuse(f"The folder {folder} holds files but none ends in .parquet ({files[0]}).", cure)
    return False


def _is_in_table(path: str) -> bool:
    return path.startswith(("nodes/", "relationships/"))


def _read_folder(folder: str, found: Iterable[str]) -> TableFolder:
    files = tuple(file for file in found if is_parquet(file))
    match folder.split("/"):
        case ["nodes", labels]:
            return _read_node_folder(folder, labels, files)
        case ["relationships", name]:
            return TableFolder("relationship", name, (), None, None, files)
        case ["relationships", name, one, two] if one.startswith("from=") and two.startswith("to="):
            ends = _read_end(folder, one), _read_end(folder, two)
            return TableFolder("relationship", name, (), *ends, files)
        case parts:
            raise _refuse_folder(parts, files[0])


def _read_node_folder(folder: str, joined: str, files: tuple[str, ...]) -> TableFolder:
    labels = tuple(dict.fromkeys(joined.split(":")))
    if not all(label.strip() for label in labels):
        cure = "Name it nodes/<Label> or nodes/<Label>:<Label>."
        raise _refuse(f"The folder {folder} has an empty label in its name.", cure)
    return TableFolder("node", labels[0], labels, None, None, files)


def _read_end(folder: str, end: str) -> str:
    # As jobs that write partitions do: what may not stand in a folder's name is written %XX.
    label = unquote(end.partition("=")[2])
    if not label.strip() or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in label):
        raise _refuse(f"The folder {folder} declares no label in {end!r}.", "Write from=<Label>/to=<Label>.")
    return label


def _refuse_folder(parts: list[str], file: str) -> BadInput:
    folder = "/".join(parts)
    match parts:
        case ["nodes"]:
            return _refuse(f"{file} lies directly in nodes/.", "Move it into nodes/<Label>/.")
        case ["relationships"]:
            return _refuse(f"{file} lies directly in relationships/.", "Move it into relationships/<TYPE>/.")
        case ["relationships", name, *rest] if any(part.startswith(("from=", "to=")) for part in rest):
            what = f"The folder {folder} does not declare both ends as from=<Label>/to=<Label>."
            return _refuse(what, f"Name it relationships/{name}/from=<Label>/to=<Label>.")
        case ["nodes" | "relationships", name, *_]:
            what = f"The folder {folder} holds Parquet files, but tables have no folders of their own inside."
            return _refuse(what, f"Move its files up into {parts[0]}/{name}/.")
        case _:
            place = f"The folder {folder}" if folder else "The snapshot's own folder"
            return _refuse(f"{place} holds Parquet files ({file}).", f"Lay the files out as {_SHAPES}.")


def _refuse(what: str, cure: str) -> BadInput:
    return BadInput(what, kept=_KEPT, cure=cure)
