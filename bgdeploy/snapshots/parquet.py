"""Parquet: a file as every reader of a snapshot sees it, by what its footer says and not by what a library makes of it.

``Parquet`` opens a file, says of each column how it is read and why it may not be, and reads its rows. Then what no reader could
be given (moments outside of the calendar, text that is no text), what the footers prove of a column without
reading it, and the families of types that ids and labels may have. For child processes: it parses what files say.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types as is_

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.source import LIVE, Snapshot, Stored, refused

_BATCH = 65_536  # rows decoded at a time
_DUCK_MB = 200  # columns of 32-bit integers of one row group, and what DuckDB itself takes
_TEXT = "a string"
# Logical types whose values are what pyarrow gives for them, or text that is made of it; all others are refused.
_AS_TEXT = ("UUID", "JSON", "ENUM")
# Time and memory to hash lists in lists double with each: 16 levels took seconds, 30 a whole machine.
_MOST_LEVELS = 8
_KNOWN = (
    *_AS_TEXT, "NONE", "STRING", "LIST", "INT", "DECIMAL", "DATE", "TIME", "TIMESTAMP", "FLOAT16", "BSON", "NULL", "UNKNOWN",
)  # fmt: skip
_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4", "LZ4_RAW")
# As pyarrow calls the two of Parquet; no name of its own is for the older one.
_CALLED = {"LZ4": "LZ4_RAW", "UNKNOWN": "LZ4"}
_ENCODINGS = (
    "PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED", "BYTE_STREAM_SPLIT",
    "DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY",
)  # fmt: skip
_EXTENSIONS = ("arrow.uuid", "arrow.json")
_CURES = {
    "INTERVAL": "two integers (months, days), a duration, or a string",
    "GEOMETRY": "WKB as plain bytes, or a string (WKT)",
    "GEOGRAPHY": "WKB as plain bytes, or a string (WKT)",
    "pandas.period": "a timestamp (.dt.to_timestamp()), or a string (.astype(str))",
    "arrow.bool8": "a boolean",
}
_DAY = 86_400
_FIRST, _LAST = -62_135_596_800, 253_402_300_800  # seconds: the year 1 begins, the year 10000 begins
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # of a second


class Refusal(NamedTuple):
    """Why a column cannot be read: what it holds, and what to write instead."""

    what: str
    instead: str


@dataclass(frozen=True)
class Field:
    """One column of a file: the Arrow type of its values as they are read here, and how they are stored.

    ``stored`` is None for structs and maps, which have several parts.
    """

    name: str
    kind: pa.DataType
    stored: Stored | None
    refusal: Refusal | None


class Parquet(pq.ParquetFile):  # type: ignore[misc]
    """An open file. UUIDs are text in their usual form, JSON and ENUM are text, INT96 are microseconds.

    It is read in pieces; otherwise a row group's whole column is read at once. ``name`` is what errors call it.
    Reading raises BadInput, with file and column, for a time of day beyond its day, and for an INT96 moment that
    lies outside of the years 1 to 9999 or has digits beyond microseconds.
    """

    def __init__(self, path: Path | str, name: str = "") -> None:
        super().__init__(path, **_options("us"))
        self._path, self._name = path, name or str(path)

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The columns, each with its one part in Parquet, or several."""
        groups = [self.metadata.row_group(number) for number in range(self.metadata.num_row_groups)]
        found, at = [], 0
        for field in super().schema_arrow:
            parts = _parts(field.type)
            stored = (
                _stored(self.schema.column(at), [group.column(at) for group in groups])
                if parts == 1
                else None
            )
            at += parts
            found.append(Field(field.name, _kind(field.type, stored), stored, _refusal(field, stored)))
        return tuple(found)

    @property
    def schema_arrow(self) -> pa.Schema:
        """The columns by the types they are read as here."""
        return pa.schema([(field.name, field.kind) for field in self.fields])

    def iter_batches(  # type: ignore[no-untyped-def]
        self, batch_size=_BATCH, row_groups=None, columns=None, use_threads=True
    ) -> Iterator[pa.RecordBatch]:
        """Yield batches of rows with these columns, all without a choice."""
        how: dict[str, Any] = {"batch_size": batch_size, "row_groups": row_groups, "use_threads": use_threads}
        wanted = [field for field in self.fields if columns is None or field.name in columns]
        odd = {
            field.name: field.stored
            for field in wanted
            if field.stored is not None and (field.stored.logical == "TIME" or is_converted(field.stored))
        }
        wide = [field for field in wanted if self._is_wide(field)]
        left = [field.name for field in wanted if field not in wide] if wide else columns
        batches = super().iter_batches(columns=left, **how)
        if not odd and not wide:
            yield from batches
            return
        from_duck = taker(self._ask_duck([field.name for field in wide], row_groups))
        # INT96 in other units too: a day in microseconds may not fit, and nanoseconds may be lost in them.
        old = [name for name, stored in odd.items() if stored.physical == "INT96"]
        again = {
            unit: taker(pq.ParquetFile(self._path, **_options(unit)).iter_batches(columns=old, **how))
            for unit in (("s", "ns") if old else ())
        }
        for batch in filter(len, batches):
            found = [*zip(batch.schema.names, batch.columns, strict=True)]
            if wide:
                taken = from_duck(batch.num_rows).columns
                found += [
                    (field.name, values.cast(field.kind)) for field, values in zip(wide, taken, strict=True)
                ]
            values = [self._column(name, odd[name], one) if name in odd else one for name, one in found]
            made = pa.RecordBatch.from_arrays(values, names=[name for name, _ in found])
            for unit, take in again.items():
                self._compare(old, made, take(made.num_rows), unit)
            yield made

    def _is_wide(self, field: Field) -> bool:
        """True where DuckDB wrote 32-bit integers as differences of up to 33 bits, which pyarrow takes for damage."""
        return (
            field.stored is not None
            and field.stored.physical == "INT32"
            and "DELTA_BINARY_PACKED" in field.stored.encodings
            and (self.metadata.created_by or "").startswith("DuckDB")
        )

    def _ask_duck(self, names: Sequence[str], row_groups: Sequence[int] | None) -> Iterator[pa.RecordBatch]:
        """Read such columns by DuckDB, as ``c0``, ``c1``, ..."""
        import duckdb  # late: for these files only

        every = [field.name for field in self.fields]
        # By number: it takes names that differ in case for one.
        asked = ", ".join(f"#{every.index(name) + 1} AS c{number}" for number, name in enumerate(names))
        settings: dict[str, Any] = {
            "threads": 1, "memory_limit": f"{_DUCK_MB}MiB",
            "autoinstall_known_extensions": False, "autoload_known_extensions": False,
        }  # fmt: skip
        path = glob.escape(str(self._path))  # which is a pattern to it
        try:
            with duckdb.connect(":memory:", config=settings) as connection:
                for first, rows in self._runs(row_groups):
                    source = "read_parquet(?, hive_partitioning = false)"
                    query = f"SELECT {asked} FROM {source} LIMIT {rows} OFFSET {first}"
                    found: Any = connection.sql(query, params=[path]).to_arrow_reader(_BATCH)
                    yield from found
        except duckdb.Error as error:
            raise pa.ArrowInvalid(str(error)) from error

    def _runs(self, row_groups: Sequence[int] | None) -> Iterator[tuple[int, int]]:
        """The first row and the number of rows of each run of row groups that are read."""
        first, rows = 0, 0
        for number in range(self.metadata.num_row_groups):
            here = self.metadata.row_group(number).num_rows
            if row_groups is None or number in row_groups:
                rows += here
                continue
            if rows:
                yield first, rows
            first, rows = first + rows + here, 0
        if rows:
            yield first, rows

    def _column(self, name: str, stored: Stored, values: pa.Array) -> pa.Array:
        if stored.logical in _AS_TEXT:
            return _map(values, _uuid_text if stored.logical == "UUID" else _as_text)
        leaf = _leaf(values)
        is_time, unit = is_.is_time(leaf.type), _UNITS[leaf.type.unit]
        low, high = (0, _DAY) if is_time else (_FIRST, _LAST)
        found = pc.min_max(leaf.view(pa.int32() if leaf.type.bit_width == 32 else pa.int64())).as_py()
        if found["min"] is None or low * unit <= found["min"] <= found["max"] < high * unit:
            return values
        if not is_time:
            raise outside_of_calendar(self._name, name)
        what = f"{self._name}: column {name!r} holds a time of day before 00:00 or after 23:59:59.999999."
        raise BadInput(what, kept=LIVE, cure="Write a span as a duration or an integer, midnight as 00:00.")

    def _compare(self, names: Sequence[str], batch: pa.RecordBatch, again: pa.RecordBatch, unit: str) -> None:
        for name in names:
            mine, other = (
                _leaf(some.column(some.schema.names.index(name))).view(pa.int64()) for some in (batch, again)
            )
            # Nanoseconds run over in the year 2262; so does this product, by the same amount.
            same = pc.multiply(mine, 1000) if unit == "ns" else _floor_divide(mine, 10**6)
            if pc.all(pc.equal(same, other)).as_py() is False:
                if unit == "s":
                    raise outside_of_calendar(self._name, name)
                what = f"{self._name}: column {name!r} holds INT96 moments with digits beyond microseconds."
                cure = "Write them as INT64 timestamps, or cut them to microseconds."
                raise BadInput(what, kept=LIVE, cure=cure)


def taker(batches: Iterable[pa.RecordBatch]) -> Callable[[int], pa.RecordBatch]:
    """Return a function that gives the next so many rows, one at least: two readers of one file do not cut it alike."""
    waiting = iter(batches)
    held: list[pa.RecordBatch] = []

    def take(rows: int) -> pa.RecordBatch:
        while sum(batch.num_rows for batch in held) < rows:
            held.append(next(waiting))
        table = pa.Table.from_batches(held)
        held[:] = table.slice(rows).to_batches()
        return table.slice(0, rows).combine_chunks().to_batches()[0]

    return take


def rebuilt(values: pa.Array, inner: pa.Array) -> pa.Array:
    """Lists with other elements in them: ``inner`` takes the place of ``values.values``, one for one."""
    kind = pa.list_(inner.type)
    return pa.Array.from_buffers(
        kind, len(values), values.buffers()[:2], offset=values.offset, children=[inner]
    )


def floor_to_microseconds(values: pa.Array) -> pa.Array:
    """Moments, spans or times of day in nanoseconds as microseconds, never later than they are: before 1970 too."""
    kind = values.type
    coarse = pa.timestamp("us", kind.tz) if is_.is_timestamp(kind) else pa.duration("us")
    coarse = pa.time64("us") if is_.is_time(kind) else coarse
    return _floor_divide(values.view(pa.int64()), 1000).view(coarse)


def _floor_divide(numbers: pa.Array, by: int) -> pa.Array:
    cut = pc.divide(numbers, by)  # towards zero
    return pc.if_else(pc.greater(pc.multiply(cut, by), numbers), pc.subtract(cut, 1), cut)


def _options(unit: str) -> dict[str, Any]:
    return {
        "pre_buffer": False, "buffer_size": 1 << 20,
        "coerce_int96_timestamp_unit": unit, "arrow_extensions_enabled": False,
    }  # fmt: skip


def _parts(kind: pa.DataType) -> int:
    """How many columns of Parquet one of Arrow has."""
    if isinstance(kind, pa.BaseExtensionType):
        return _parts(kind.storage_type)
    if is_.is_struct(kind):
        return sum(_parts(kind.field(number).type) for number in range(kind.num_fields))
    if is_.is_map(kind):
        return _parts(kind.key_type) + _parts(kind.item_type)
    return _parts(kind.value_type) if _is_listed(kind) else 1


def _is_listed(kind: pa.DataType) -> bool:
    return bool(
        is_.is_list(kind)
        or is_.is_large_list(kind)
        or is_.is_fixed_size_list(kind)
        or is_.is_list_view(kind)
        or is_.is_large_list_view(kind)
    )


def _stored(leaf: Any, chunks: Sequence[Any]) -> Stored:
    logical = leaf.logical_type.type
    if leaf.converted_type == "INTERVAL":
        logical = "INTERVAL"  # it was never given a logical type
    encodings = {encoding for some in {chunk.encodings for chunk in chunks} for encoding in some}
    codecs = {_CALLED.get(chunk.compression, chunk.compression) for chunk in chunks}
    return Stored(leaf.physical_type, logical, ",".join(sorted(encodings)), ",".join(sorted(codecs)))


def _kind(kind: pa.DataType, stored: Stored | None) -> pa.DataType:
    if stored is None:
        return kind
    if _is_listed(kind):
        inner = _kind(kind.value_type, stored)
        return kind if inner == kind.value_type else pa.list_(inner)
    if stored.logical in _AS_TEXT:
        return pa.string()
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _refusal(field: pa.Field, stored: Stored | None) -> Refusal | None:
    """Why a column cannot be read rightly, whatever the target."""
    levels, inner = 0, field
    name: str | None
    while _is_listed(inner.type):
        levels, inner = levels + 1, inner.type.value_field
    # The name of the type that a program added to Arrow's own, known here or not.
    if isinstance(inner.type, pa.BaseExtensionType):
        name, held = str(inner.type.extension_name), inner.type.storage_type
    else:
        named = (inner.metadata or {}).get(b"ARROW:extension:name")
        name, held = None if named is None else named.decode("utf-8", "replace"), inner.type
    if name is not None and name not in _EXTENSIONS:
        return Refusal(f"{name} ({held})", _CURES.get(name, _TEXT))
    if levels > _MOST_LEVELS:
        return Refusal(f"lists in {levels} levels", f"lists in at most {_MOST_LEVELS} levels")
    if stored is None:
        return None
    encodings, codecs = (
        [one for one in some.split(",") if one] for some in (stored.encodings, stored.codecs)
    )
    if stored.physical == "FIXED_LEN_BYTE_ARRAY" and "BYTE_STREAM_SPLIT" in encodings:
        what = "bytes of a fixed length encoded as BYTE_STREAM_SPLIT"
        return Refusal(what, "that encoding for numbers of 32 and 64 bits only")
    if stored.logical not in _KNOWN:
        return Refusal(f"{stored.logical} ({stored.physical})", _CURES.get(stored.logical, _TEXT))
    for codec in codecs:
        if codec not in _CODECS:
            return Refusal(f"data compressed with {codec}", "zstd or snappy")
    for encoding in encodings:
        if encoding not in _ENCODINGS:
            return Refusal(f"data encoded as {encoding}", "the encodings PLAIN and RLE_DICTIONARY")
    return None


def is_converted(stored: Stored) -> bool:
    """True where the file holds something else than what is read of it here: no other reader may have it."""
    return stored.logical in _AS_TEXT or stored.physical == "INT96"


def _leaf(values: pa.Array) -> pa.Array:
    """What is in a column, or in its lists."""
    while _is_listed(values.type):
        values = values.flatten()
    return values


def _map(values: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Change what is in a column, or in its lists."""
    if not _is_listed(values.type):
        return change(values)
    values = values.cast(pa.list_(values.type.value_type))
    return rebuilt(values, _map(values.values, change))


def _storage(values: pa.Array) -> pa.Array:
    if is_.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.storage if isinstance(values, pa.ExtensionArray) else values


def _as_text(values: pa.Array) -> pa.Array:
    values = _storage(values)
    # Bytes that are no text are found where text is looked at, with their row.
    return values.view(pa.string()) if is_.is_binary(values.type) else values.cast(pa.string())


def _uuid_text(values: pa.Array) -> pa.Array:
    texts = (None if one is None else one.hex() for one in _storage(values).to_pylist())
    shaped = (
        None if one is None else f"{one[:8]}-{one[8:12]}-{one[12:16]}-{one[16:20]}-{one[20:]}"
        for one in texts
    )
    return pa.array(shaped, pa.string(), size=len(values))


# Values that no reader could be given


def check_moments(file: str, parquet: Parquet) -> None:
    """Raise BadInput for a column of days or moments whose bounds in the footer lie outside of the years 1 to 9999."""
    for number in range(len(parquet.schema)):
        leaf = parquet.schema.column(number)
        if leaf.logical_type.type not in ("DATE", "TIMESTAMP"):
            continue
        for index in range(parquet.metadata.num_row_groups):
            statistics = parquet.metadata.row_group(index).column(number).statistics
            try:
                _ = statistics is not None and statistics.has_min_max and (statistics.min, statistics.max)
            except OverflowError as error:
                raise outside_of_calendar(file, leaf.path.partition(".")[0]) from error
            except ValueError:
                continue  # nanoseconds, which Python does not know; they end in the year 2262


def outside_of_calendar(file: str, column: str) -> BadInput:
    """The error for a day or moment that most readers do not know."""
    return refused(
        f"{file}: column {column!r} holds a day or a moment outside of the years 1 to 9999.",
        "Write null for what has no date, or check the unit (seconds, milliseconds, microseconds).",
    )


def find_bad_text(snapshot: Snapshot) -> BadInput | None:
    """Return the error for the first text that is not UTF-8, by file, column and row; None where all is.

    Reads the columns of text of every file until one is found.
    """
    for file in snapshot.files:
        names = [one.name for one in file.columns if "string" in one.type and one.constant is None]
        start = 0
        with Parquet(snapshot.path / file.path, file.path) as parquet:
            for batch in parquet.iter_batches(_BATCH, columns=names):
                for name, values in zip(batch.schema.names, batch.columns, strict=True):
                    if name in names and not _is_text(values):
                        row = start + _first_bad(values) + 1
                        what = (
                            f"{file.path}, row {row:,}: column {name!r} holds bytes that are no text (UTF-8)."
                        )
                        return BadInput(what, kept=LIVE, cure="Write it as UTF-8, or the column as binary.")
                start += batch.num_rows
    return None


def _is_text(values: pa.Array) -> bool:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _first_bad(values: pa.Array) -> int:
    """The place of the first value that is no text, by halves."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if not _is_text(values.slice(low, middle - low)) else (middle, high)
    return low


# What the footers prove of a column without reading it

# Writers may cut long texts; every known one keeps at least this many bytes whole.
_WHOLE = 31
_OTHERWISE = ("UUID", "JSON", "ENUM")  # bounds are bytes here, and the values text


@dataclass(frozen=True)
class ColumnStats:
    """Bounds of a column over a file; ``min`` and ``max`` are None where no value is known to exist.

    ``exact``: both bounds occur as values and nothing lies outside of them; where it is False they are
    bounds only, and for floating point not even that, since NaN lies outside of every bound.
    """

    min: Any
    max: Any
    exact: bool

    @property
    def constant(self) -> Any:
        """The one value that every row holds which is not null, or None where that is not proven."""
        return self.min if self.exact and self.min == self.max else None


def read_statistics(parquet: pq.ParquetFile, column_name: str) -> ColumnStats | None:
    """Return a plain column's statistics over all row groups of one open file, from its footer.

    None when any row group with rows lacks them, and for lists, whose statistics speak of their
    elements.
    """
    number = _find_leaf(parquet, column_name)
    if number is None:
        return None
    bounds: list[Any] = []
    for index in range(parquet.metadata.num_row_groups):
        group = parquet.metadata.row_group(index)
        statistics = group.column(number).statistics
        if group.num_rows == 0:
            continue
        if statistics is None:
            return None
        if statistics.has_min_max:
            try:
                bounds += [statistics.min, statistics.max]
            except UnicodeDecodeError:
                return None  # bytes that are no UTF-8 in a column of text: nothing is known of it
        elif not (statistics.has_null_count and statistics.null_count == group.num_rows):
            return None
    if not bounds:
        return ColumnStats(None, None, exact=True)
    return ColumnStats(min(bounds), max(bounds), all(map(_is_whole, bounds)))


def id_range(snapshot: Path, files: Sequence[tuple[str, str]]) -> tuple[Any, Any] | None:
    """Return bounds between which all values lie over some (file, its column), or None where unknown.

    The bounds need not occur as values. None too when there is no value at all.
    """
    known = []
    for file, column in files:
        with pq.ParquetFile(snapshot / file) as parquet:
            one = read_statistics(parquet, column)
        if one is None or isinstance(one.min, float):
            return None
        if one.min is not None:
            known.append(one)
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


def _is_whole(bound: Any) -> bool:
    if isinstance(bound, str | bytes):
        return len(bound.encode() if isinstance(bound, str) else bound) <= _WHOLE
    return not isinstance(bound, float)


# Families of types that ids, labels and types may have, however they are stored


def family(kind: pa.DataType) -> str | None:
    """Return ``string`` or ``integer`` for a type that ids may have, else None."""
    if is_.is_dictionary(kind):
        kind = kind.value_type
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return "string"
    return "integer" if is_.is_integer(kind) else None


def is_text(kind: pa.DataType) -> bool:
    """True for strings however they are stored, and for a column that is null throughout."""
    return family(kind) == "string" or bool(is_.is_null(kind))


def is_text_list(kind: pa.DataType) -> bool:
    """True for a list of strings."""
    listed = is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind)
    return bool(listed and is_text(kind.value_type))
