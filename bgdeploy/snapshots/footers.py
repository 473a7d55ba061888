"""Statistics: what the footers of Parquet files prove about a column without reading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

# Writers may cut long texts; every known one keeps at least this many bytes whole.
_WHOLE = 31
_OTHERWISE = ("UUID", "JSON", "ENUM")  # bounds are bytes here, and the values text


@dataclass(frozen=True)
class ColumnStats:
    """Bounds of a column over a file; ``min`` and ``max`` are None where no value is known to exist.

    ``nulls`` is None when a row group does not count them. ``exact``: both bounds occur as values
    and nothing lies outside of them; where it is False they are bounds only, and for floating
    point not even that, since NaN lies outside of every bound.
    """

    min: Any
    max: Any
    nulls: int | None
    exact: bool

    @property
    def constant(self) -> Any:
        """The one value that every row holds which is not null, or None where that is not proven."""
        return self.min if self.exact and self.min == self.max else None


def column_statistics(path: Path, column_name: str) -> ColumnStats | None:
    """Return a plain column's statistics over all row groups of one file, from its footer.

    None when any row group with rows lacks them, and for lists, whose statistics speak of their
    elements.
    """
    with pq.ParquetFile(path) as parquet:
        return read_statistics(parquet, column_name)


def read_statistics(parquet: pq.ParquetFile, column_name: str) -> ColumnStats | None:
    """Return what ``column_statistics`` does, of a file that is open."""
    number = _find_leaf(parquet, column_name)
    if number is None:
        return None
    bounds: list[Any] = []
    nulls: int | None = 0
    for index in range(parquet.metadata.num_row_groups):
        group = parquet.metadata.row_group(index)
        statistics = group.column(number).statistics
        if group.num_rows == 0:
            continue
        if statistics is None or not (statistics.has_min_max or _is_all_null(statistics, group.num_rows)):
            return None
        try:
            bounds += [statistics.min, statistics.max] if statistics.has_min_max else []
        except UnicodeDecodeError:
            return None  # bytes that are no UTF-8 in a column of text: nothing is known of it
        counted = nulls is not None and statistics.has_null_count
        nulls = nulls + statistics.null_count if counted and nulls is not None else None
    if not bounds:
        return ColumnStats(None, None, nulls, exact=True)
    return ColumnStats(min(bounds), max(bounds), nulls, all(map(_is_whole, bounds)))


def id_range(snapshot: Path, files: Sequence[tuple[str, str]]) -> tuple[Any, Any] | None:
    """Return bounds between which all values lie over some (file, its column), or None where unknown.

    The bounds need not occur as values. None too when there is no value at all.
    """
    found = [column_statistics(snapshot / file, column) for file, column in files]
    if any(one is None or isinstance(one.min, float) for one in found):
        return None
    known = [one for one in found if one is not None and one.min is not None]
    return (min(one.min for one in known), max(one.max for one in known)) if known else None


def read_nulls(parquet: pq.ParquetFile, column_name: str) -> int | None:
    """Return how many values of a plain column are null in one open file, or None where unknown."""
    number = _find_leaf(parquet, column_name)
    if number is None:
        return None
    nulls = 0
    for index in range(parquet.metadata.num_row_groups):
        statistics = parquet.metadata.row_group(index).column(number).statistics
        if statistics is None or not statistics.has_null_count:
            return None
        nulls += statistics.null_count
    return nulls


def _find_leaf(parquet: pq.ParquetFile, name: str) -> int | None:
    """The number of a plain column; a leaf inside a list or a struct may bear the same path."""
    schema = parquet.schema
    for number in range(len(schema)):
        leaf = schema.column(number)
        if leaf.logical_type.type in _OTHERWISE:
            continue
        if leaf.path == name and leaf.max_repetition_level == 0 and leaf.max_definition_level <= 1:
            return number
    return None


def _is_all_null(statistics: Any, rows: int) -> bool:
    return bool(statistics.has_null_count and statistics.null_count == rows)


def _is_whole(bound: Any) -> bool:
    if isinstance(bound, str | bytes):
        return len(bound.encode() if isinstance(bound, str) else bound) <= _WHOLE
    return not isinstance(bound, float)
