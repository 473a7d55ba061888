"""Types: what the engine can hold, what it reads from Parquet by itself, and what is written anew for it.

Allow-lists, since what the engine's own reader does not know degrades silently, by what the file's footer
says of each column: its physical and logical type, its encodings and its codec. What the engine can
hold but not read goes through a file of our own with a plainer type, and an expression that makes
the right value of it again. Tried on ladybug 0.22.0.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from bgdeploy.snapshots.parquet import rebuilt
from bgdeploy.snapshots.source import Column, Stored
from bgdeploy.snapshots.unify import is_list, simple

_UTC = (None, "UTC", "+00:00", "Etc/UTC")
# Only these writers are known to mark timestamps in both of Parquet's ways; with one of them
# missing, timestamps inside lists arrive as bare numbers.
MARKS_TIMESTAMPS = "parquet-cpp-arrow"
# DELTA_BINARY_PACKED is none of these: where a page begins beyond 2^62 all its integers came 2^63 off.
_ENCODINGS = frozenset({"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"})
_CODECS = frozenset({"UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4_RAW"})
_LOGICAL = {
    "BOOLEAN": frozenset({"NONE"}),
    "INT32": frozenset({"NONE", "INT", "DATE", "NULL", "UNKNOWN"}),
    "INT64": frozenset({"NONE", "INT", "TIMESTAMP"}),
    "FLOAT": frozenset({"NONE"}),
    "DOUBLE": frozenset({"NONE"}),
    "BYTE_ARRAY": frozenset({"NONE", "STRING"}),
}
_NAMES = {
    pa.bool_(): "BOOL",
    pa.float16(): "FLOAT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "STRING",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.null(): "STRING",
}


def engine_type(kind: pa.DataType) -> str | None:
    """Return the engine's type that holds every value of an Arrow type, or None where it has none.

    A time is held as the span since midnight, a zoned timestamp as its moment in UTC, and a time in
    nanoseconds as one in microseconds, which a value with more digits does not fit.
    """
    kind = simple(kind)
    if is_.is_list(kind):
        inner = engine_type(kind.value_type)
        # Casting a list to decimals was seen to take the process down; where one list of lists is null or
        # empty, spans in those behind it were seen to become null.
        lost = is_.is_decimal(kind.value_type) or inner == "INTERVAL[]"
        return None if inner is None or lost else f"{inner}[]"
    if is_.is_integer(kind):
        return str(kind).upper()
    if is_.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz is None else "TIMESTAMP_TZ"
    if is_.is_decimal(kind):
        fits = kind.precision <= 38 and 0 <= kind.scale <= kind.precision
        return f"DECIMAL({kind.precision}, {kind.scale})" if fits else None
    return "INTERVAL" if is_.is_time(kind) or is_.is_duration(kind) else _NAMES.get(kind)


def refuses(kind: pa.DataType, written_by: str) -> str | None:
    """Return what to write instead of a type that the engine cannot hold, or None."""
    if engine_type(kind) is not None:
        return None
    kind = simple(kind)
    if is_.is_list(kind):
        return f"a list of: {_cure(kind.value_type)}"
    return _cure(kind)


def _cure(kind: pa.DataType) -> str:
    if is_.is_decimal(kind):
        return "decimals of at most 38 digits outside of lists, float64, or a string"
    if is_.is_list(kind):
        return f"lists of: {_cure(kind.value_type)}"
    if is_.is_time(kind) or is_.is_duration(kind):
        return "integers, such as microseconds"
    if is_.is_struct(kind) or is_.is_map(kind):
        return "one column for each field"
    return "a string"


def is_native(own: Column, written_by: str) -> bool:
    """True when the engine's own reader of Parquet gives every value of a file's column as it is."""
    return own.stored is not None and _is_plain(own.stored) and _is_kept(own.kind, own.stored, written_by)


def _is_plain(stored: Stored) -> bool:
    return (
        {*stored.encodings.split(",")} <= _ENCODINGS
        and {*stored.codecs.split(",")} <= _CODECS
        and stored.logical in _LOGICAL.get(stored.physical, ())
    )


def _is_kept(kind: pa.DataType, stored: Stored, written_by: str) -> bool:
    if is_.is_dictionary(kind):
        return not is_list(kind.value_type) and _is_kept(kind.value_type, stored, written_by)
    if is_list(kind):
        return _is_native_inside(kind.value_type, written_by)
    if is_.is_binary(kind) or is_.is_large_binary(kind):
        return stored.logical == "NONE"
    return _is_single(kind) or bool(is_.is_null(kind))


def _is_native_inside(kind: pa.DataType, written_by: str) -> bool:
    if is_list(kind):
        return _is_native_inside(kind.value_type, written_by)
    if is_.is_timestamp(kind):
        return kind.tz is None and kind.unit in ("us", "ms") and written_by.startswith(MARKS_TIMESTAMPS)
    return _is_single(kind) and not is_.is_unsigned_integer(kind)


def _is_single(kind: pa.DataType) -> bool:
    if is_.is_timestamp(kind):
        return kind.unit != "ns" and kind.tz in _UTC
    text = is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind)
    numbers = is_.is_integer(kind) or is_.is_float32(kind) or is_.is_float64(kind)
    return bool(text or numbers or is_.is_boolean(kind) or is_.is_date(kind))


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the type with which a column is written anew, one that ``is_native``."""
    kind = simple(kind)
    if is_.is_list(kind):
        inner = kind.value_type
        if is_.is_unsigned_integer(inner):
            return pa.list_(pa.string() if is_.is_uint64(inner) else pa.int64())
        return pa.list_(pa.timestamp("us") if is_.is_timestamp(inner) else plain(inner))
    if is_.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if is_.is_time(kind) or is_.is_duration(kind):
        return pa.int64()
    if is_.is_decimal(kind) or is_.is_null(kind):
        return pa.string()
    return pa.float32() if is_.is_float16(kind) else kind


def to_plain(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return values of an Arrow type as ``plain`` wants them; raises ArrowInvalid where digits would be lost."""
    kind, wanted = simple(kind), plain(kind)
    if is_.is_list(kind):
        values = values.cast(kind)
        # Offsets and nulls stay; only what the lists hold is made plain.
        return rebuilt(values, to_plain(values.values, kind.value_type).cast(wanted.value_type))
    if is_.is_decimal(kind):
        return _fixed_point(values.cast(kind), kind)
    if is_.is_time(kind):
        return values.cast(pa.time64("us")).cast(pa.int64())
    if is_.is_duration(kind):
        return values.cast(pa.duration("us")).cast(pa.int64())
    return values.cast(wanted)


def _fixed_point(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Decimals as text without an exponent, which the engine would refuse."""
    whole = pa.Array.from_buffers(
        pa.decimal128(kind.precision, 0), len(values), values.buffers(), offset=values.offset
    )
    digits = whole.cast(pa.string())
    if kind.scale == 0:
        return digits
    sign = pc.if_else(pc.starts_with(digits, "-"), "-", "")
    padded = pc.utf8_lpad(pc.utf8_ltrim(digits, "-"), kind.scale + 1, "0")
    front = pc.utf8_slice_codeunits(padded, 0, -kind.scale)
    rest = pc.utf8_slice_codeunits(padded, -kind.scale)
    return pc.binary_join_element_wise(sign, front, ".", rest, "").slice(0)


def from_plain(name: str, kind: pa.DataType, depth: int = 0) -> str:
    """Return the expression that makes of a column in its ``plain`` type what ``engine_type`` holds."""
    kind = simple(kind)
    if is_.is_list(kind) and engine_type(kind) != engine_type(plain(kind)):
        if engine_type(kind).rstrip("[]") == "INTERVAL":  # type: ignore[union-attr]
            inner = from_plain(f"x{depth}", kind.value_type, depth + 1)
            return f"list_transform({name}, x{depth} -> {inner})"
        return f"CAST({name} AS {engine_type(kind)})"
    if is_.is_time(kind) or is_.is_duration(kind):
        return f"to_microseconds({name})"
    return f"CAST({name} AS {engine_type(kind)})"
