"""Types: which Arrow types reach the database unharmed, and what to use for the others.

An allow-list, since a type that the database's own reader does not know degrades silently.
"""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types as is_

_UTC = (None, "UTC", "+00:00", "Etc/UTC")
# Only these writers are known to mark timestamps in both of Parquet's ways; with one of them
# missing, timestamps inside lists arrive as bare numbers.
_MARKS_TIMESTAMPS = "parquet-cpp-arrow"


def find_fault(kind: pa.DataType, written_by: str) -> str | None:
    """Return what to use instead of a type, or None for one that is kept right.

    ``written_by`` is the program that the file's footer names.
    """
    if is_.is_dictionary(kind):
        kind = kind.value_type
        return None if _is_plain(kind) else _cure(kind)
    if _is_list(kind):
        return _find_fault_in_list(kind, written_by)
    if _is_plain(kind) or is_.is_null(kind):
        return None
    return _cure(kind)


def family(kind: pa.DataType) -> str | None:
    """Return ``string`` or ``integer`` for a type that ids may have, else None."""
    if is_.is_dictionary(kind):
        kind = kind.value_type
    if _is_string(kind):
        return "string"
    return "integer" if is_.is_integer(kind) else None


def is_text(kind: pa.DataType) -> bool:
    """True for strings however they are stored, and for a column that is null throughout."""
    return family(kind) == "string" or bool(is_.is_null(kind))


def is_text_list(kind: pa.DataType) -> bool:
    """True for a list of strings."""
    return _is_list(kind) and is_text(kind.value_type)


def stored(kind: pa.DataType, written_by: str) -> str:
    """Return the type as it lies in the file: what reads alike gives the same text."""
    if is_.is_dictionary(kind):
        return stored(kind.value_type, written_by)
    if _is_list(kind):
        return f"list of {stored(kind.value_type, written_by)}"
    if _is_string(kind):
        return "string"
    if is_.is_timestamp(kind) and not written_by.startswith(_MARKS_TIMESTAMPS):
        return f"{kind} as written by {written_by.split(' version')[0] or 'an unknown program'}"
    return str(kind)


def _find_fault_in_list(kind: pa.DataType, written_by: str) -> str | None:
    while _is_list(kind):
        kind = kind.value_type
    if is_.is_unsigned_integer(kind):
        return "a list of signed integers"
    if is_.is_null(kind):
        return "a list with a type, such as strings"
    if is_.is_timestamp(kind):
        if kind.tz is not None or kind.unit not in ("us", "ms"):
            return "a list of timestamps in microseconds without a time zone"
        kept = written_by.startswith(_MARKS_TIMESTAMPS)
        return None if kept else "a list of strings, or write the file with pyarrow"
    return None if _is_plain(kind) else f"a list of: {_cure(kind)}"


def _is_list(kind: pa.DataType) -> bool:
    return bool(is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind))


def _is_plain(kind: pa.DataType) -> bool:
    if is_.is_timestamp(kind):
        return kind.unit != "ns" and kind.tz in _UTC
    return bool(
        is_.is_integer(kind)
        or is_.is_float32(kind)
        or is_.is_float64(kind)
        or is_.is_boolean(kind)
        or is_.is_date(kind)
        or _is_string(kind)
    )


def _cure(kind: pa.DataType) -> str:
    if is_.is_timestamp(kind):
        return "a timestamp in microseconds, without a time zone or in UTC"
    if is_.is_float16(kind):
        return "float32"
    if is_.is_decimal(kind):
        return "float64, or a string where every digit counts"
    if is_.is_time(kind) or is_.is_duration(kind):
        return "a whole number in the unit you need, or a string"
    if is_.is_struct(kind) or is_.is_map(kind):
        return "one column for each field"
    return "a string"
