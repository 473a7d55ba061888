"""Looks: what of a file the tool may read where it lies, decided by types and footers, and by reading where those are silent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types as is_

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.snapshots.families import is_text_list
from bgdeploy.snapshots.footers import read_nulls, read_statistics
from bgdeploy.snapshots.rows import open_file
from bgdeploy.snapshots.source import Column, DataFile, Table
from bgdeploy.snapshots.unify import simple
from bgdeploy.targets.neo4j.offline.forms import PLAIN, Form, alike, early, form_of

_BATCH = 65_536  # rows decoded at a time
_BLANK = r"[\s\p{Z}]"
LOOSE = rf"^{_BLANK}|{_BLANK}$|{_BLANK},|,{_BLANK}|,,|^,|,$"  # labels in one text that are not plainly "A,B"
_KEYS = ("id", "source", "target")
_KEPT = "What is live stays live."


@dataclass(frozen=True)
class Look:
    """One column of one file: what it is called there, and its form; ``empties``: some texts are empty."""

    column: Column
    own: Column
    form: Form
    copied: bool = False
    empties: bool = False


def look_at(path: Path, table: Table, file: DataFile) -> list[Look]:
    """Every column that the tool shall read; raises Misfit for a key that is null, BadInput for what cannot go this way."""
    with open_file(path) as parquet:
        return [
            _look(parquet, file, column, own)
            for column in table.columns
            if (own := file.find(column)) is not None and column.role != "type" and not is_.is_null(own.kind)
        ]


def _look(parquet: pq.ParquetFile, file: DataFile, column: Column, own: Column) -> Look:
    if column.role in _KEYS:
        _check_key(parquet, file, column, own)
    if column.role == "labels":
        return Look(column, own, PLAIN, copied=is_text_list(own.kind) or _has_loose_labels(parquet, own))
    kind = simple(column.kind)
    form = form_of(kind)
    if form is None:
        raise unfit(file.path, own, f"holds {own.kind}")
    if is_.is_timestamp(kind) and form is PLAIN and _is_early(parquet, own):
        form = early(kind)
    empties = is_.is_string(kind) and column.role == "property" and _has_empties(parquet, own)
    mine = form_of(own.kind)
    moved = form.change is not None or mine is None or mine.change is not None or not alike(own.kind, kind)
    odd = _is_utc_time(parquet, own) or _is_int96(parquet, own)
    return Look(column, own, form, moved or empties or odd, empties)


def _check_key(parquet: pq.ParquetFile, file: DataFile, column: Column, own: Column) -> None:
    nulls = read_nulls(parquet, own.name)
    if nulls is None:
        nulls = sum(values.null_count for values in _read(parquet, own.name))
    role = "id" if column.role == "id" else f"{column.role} id"
    if nulls:
        said = f"{file.path} has a row whose {role} ({own.name!r}) is null."
        raise Misfit("node" if column.role == "id" else "relationship", "", said)
    if is_.is_string(simple(own.kind)) and _has_empties(parquet, own):
        raise unfit(file.path, own, f"is the {role} and holds an empty text")


def _is_early(parquet: pq.ParquetFile, own: Column) -> bool:
    found = read_statistics(parquet, own.name)
    if found is not None:
        return bool(found.min is not None and _number(found.min, own) < 0)
    return any(
        (least := pc.min(values.cast(pa.int64())).as_py()) is not None and least < 0
        for values in _read(parquet, own.name)
    )


def _number(moment: Any, own: Column) -> int:
    return (
        int(pa.scalar(moment, own.kind).cast(pa.int64()).as_py()) if not isinstance(moment, int) else moment
    )


def _has_empties(parquet: pq.ParquetFile, own: Column) -> bool:
    found = read_statistics(parquet, own.name)
    if found is not None:
        return bool(found.min == "")
    texts = (values.cast(pa.large_string()) for values in _read(parquet, own.name))
    return any(pc.any(pc.equal(one, "")).as_py() for one in texts)


def _has_loose_labels(parquet: pq.ParquetFile, own: Column) -> bool:
    """Blanks around labels, or none between two commas, which the tool takes for a part of a name or for a name."""
    found = read_statistics(parquet, own.name)
    if found is not None and isinstance(found.constant, str):
        return bool(pc.match_substring_regex(pa.scalar(found.constant), LOOSE).as_py())
    texts = (values.cast(pa.large_string()) for values in _read(parquet, own.name))
    return any(pc.any(pc.match_substring_regex(one, LOOSE)).as_py() for one in texts)


def _is_utc_time(parquet: pq.ParquetFile, own: Column) -> bool:
    """Some writers mark times of day as if they were adjusted to UTC; the tool then gives them a zone."""
    if not is_.is_time(own.kind):
        return False
    names = parquet.schema.names
    return '"isAdjustedToUTC": true' in parquet.schema.column(names.index(own.name)).logical_type.to_json()


def _is_int96(parquet: pq.ParquetFile, own: Column) -> bool:
    """How Spark writes moments: nothing but its readers tell what they are."""
    places = range(len(parquet.schema))
    leaves = (parquet.schema.column(place) for place in places)
    return any(leaf.physical_type == "INT96" and leaf.path.split(".")[0] == own.name for leaf in leaves)


def _read(parquet: pq.ParquetFile, name: str) -> Any:
    for batch in parquet.iter_batches(_BATCH, columns=[name]):
        yield batch.column(batch.schema.names.index(name))


def unfit(where: str, own: Column, why: str) -> BadInput:
    """The error for a column that has to go another way."""
    return BadInput(
        f"{where}: column {own.name!r} {why}, which the import tool cannot take.",
        kept=_KEPT,
        cure="Set neo4j.loader to bolt or auto, or leave the column out.",
    )
