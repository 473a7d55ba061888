"""Values: Arrow columns as the driver takes them; what a property cannot hold is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from neo4j.time import DateTime, Duration, Time
from pyarrow import types as is_

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.parquet import outside_of_calendar
from bgdeploy.snapshots.schema import is_list, simple, split_labels

_LARGEST = 2**63 - 1
_KEPT = "What is live stays live."


def find_fault(kind: pa.DataType) -> str | None:
    """Return what to write instead of a type that no property can hold, or None."""
    kind = simple(kind)  # as rows are read, however they are stored
    if is_list(kind):
        inner = kind.value_type
        if is_list(inner):
            return "a list of single values, or a string"
        return None if _is_single(inner) and not is_.is_binary(inner) else _cure(inner)
    return None if _is_single(kind) or is_.is_null(kind) else _cure(kind)


def _is_single(kind: pa.DataType) -> bool:
    text = is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind)
    numbers = is_.is_integer(kind) or is_.is_floating(kind) or is_.is_boolean(kind)
    times = is_.is_date(kind) or is_.is_timestamp(kind) or is_.is_time(kind) or is_.is_duration(kind)
    return bool(text or numbers or times or is_.is_binary(kind) or is_.is_large_binary(kind))


def _cure(kind: pa.DataType) -> str:
    if is_.is_decimal(kind):
        return "float64, or a string where every digit counts"
    if is_.is_struct(kind) or is_.is_map(kind):
        return "one column for each field"
    return "a string"


def to_python(table: pa.Table, name: str, where: str) -> list[Any]:
    """Return a column as a list for the driver; raises BadInput naming ``where`` and the column."""
    column = table.column(name)
    _check(column, name, where)
    kind = column.type.value_type if is_list(column.type) else column.type
    if is_.is_float16(kind):
        column = column.cast(_with(column.type, pa.float32()))
    elif getattr(kind, "unit", "") == "ns" or is_.is_duration(kind):
        return _to_nanoseconds(column)
    zone = _zone(kind)
    if zone is not None:
        column = column.cast(_with(column.type, pa.timestamp(kind.unit, "UTC")))
    try:
        values = list(column.to_pylist())
    except (OverflowError, ValueError) as error:
        if is_.is_date(kind) or is_.is_timestamp(kind):
            raise outside_of_calendar(where, name) from error
        raise
    if zone is None:
        return values
    return [[_named(x, zone) for x in one] if isinstance(one, list) else _named(one, zone) for one in values]


class Zone(tzinfo):
    """A zone's name for a moment that is given as its clock shows it at UTC.

    The driver sends moments as UTC with the zone's name beside, and asks a zone for nothing but its offset. A real
    one has offsets of odd seconds, before there was railway time, which the driver refuses; and it would ask it
    about its own kind of time, which CPython's zoneinfo reads as if it were a datetime: it was seen to take the
    process down.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def utcoffset(self, moment: object) -> timedelta:
        """None at any moment: the clock shows UTC."""
        return timedelta(0)

    def dst(self, moment: object) -> None:
        """Not told."""
        return

    def tzname(self, moment: object) -> str:
        """The zone's name."""
        return self.key


def _zone(kind: pa.DataType) -> Zone | None:
    """The zone of moments that have one with a name."""
    tz = getattr(kind, "tz", None)
    return None if tz is None or tz[0] in "+-" else Zone(tz)


def _named(moment: datetime | None, zone: Zone) -> datetime | None:
    return moment if moment is None else moment.replace(tzinfo=zone)


def _with(kind: pa.DataType, inner: pa.DataType) -> pa.DataType:
    return pa.list_(inner) if is_list(kind) else inner


def _to_nanoseconds(column: pa.ChunkedArray) -> list[Any]:
    """Times finer than Python's own, and durations, as the driver's types."""
    if is_list(column.type):
        return [_to_nanoseconds(pa.chunked_array([one.values])) if one.is_valid else None for one in column]
    kind = column.type
    if is_.is_duration(kind):
        factor = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
        numbers = column.cast(pa.int64()).to_pylist()
        return [None if one is None else _duration(one * factor) for one in numbers]
    numbers = column.cast(pa.int64()).to_pylist()
    if is_.is_time(kind):
        return [None if one is None else Time.from_ticks(one) for one in numbers]
    # In integers: Arrow's casts cut towards zero, so that a moment before 1970 would become a later one.
    coarse = pa.array([None if one is None else one // 1000 for one in numbers], pa.int64())
    zone = _zone(kind)
    whole = coarse.cast(pa.timestamp("us", "UTC" if zone else kind.tz)).to_pylist()
    return [
        None if one is None else _moment(one.replace(tzinfo=zone or one.tzinfo), number)
        for one, number in zip(whole, numbers, strict=True)
    ]


def _duration(nanoseconds: int) -> Duration:
    seconds, rest = divmod(nanoseconds, 10**9)
    return Duration(seconds=seconds, nanoseconds=rest)


def _moment(whole: datetime, nanoseconds: int) -> DateTime:
    fraction: int = nanoseconds % 10**9
    return DateTime.from_native(whole).replace(nanosecond=fraction)


def _check(column: pa.ChunkedArray, name: str, where: str) -> None:
    kind = column.type.value_type if is_list(column.type) else column.type
    flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks]) if is_list(column.type) else column
    if is_list(column.type) and flat.null_count:
        raise _refuse(where, name, "a list with a null in it", "lists without nulls")
    if is_.is_uint64(kind) and (most := pc.max(flat).as_py()) is not None and most > _LARGEST:
        raise _refuse(where, name, f"the number {most}, larger than Neo4j's integers", "a string")


def _refuse(where: str, name: str, holds: str, instead: str) -> BadInput:
    what = f"{where}: column {name!r} holds {holds}, which Neo4j cannot store."
    return BadInput(what, kept=_KEPT, cure=f"Write {instead}.")


def split_by_labels(
    table: pa.Table, column: str | None, folder: Sequence[str]
) -> list[tuple[tuple[str, ...], pa.Table]]:
    """Return the rows with the labels they carry: the folder's first, then those of the labels column."""
    if column is None:
        return [(tuple(folder), table)]
    places: dict[tuple[str, ...], list[int]] = {}
    for row, value in enumerate(table.column(column).to_pylist()):
        places.setdefault(tuple(dict.fromkeys((*folder, *split_labels(value)))), []).append(row)
    if len(places) == 1:
        return [(next(iter(places)), table)]
    return [(labels, table.take(rows)) for labels, rows in places.items()]
