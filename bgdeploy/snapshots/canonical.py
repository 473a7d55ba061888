"""Canonical: the one type in which a value of a file and of a database are compared, as expressions of DuckDB's SQL.

Borrowed facts, measured on DuckDB 2.0.1: ``hash`` ignores types (true is 1, 1.50 is 150, text is bytes), so both sides are
brought to one type by ``canonical``. NULL and ``[]``, and 0.0 and -0.0, are alike to it, so ``hashed`` puts beside a value what
tells them apart.
"""

from __future__ import annotations

from datetime import date

import pyarrow as pa
from pyarrow import types as is_

from bgdeploy.snapshots.keys import text
from bgdeploy.snapshots.schema import is_list, simple
from bgdeploy.snapshots.source import refused

_TO_US = {"s": "* 1000000", "ms": "* 1000", "us": ""}
_TO_NS = {"s": "* 1000000000", "ms": "* 1000000", "us": "* 1000", "ns": ""}
# What a cast alone brings to the type in which it is compared.
_CAST = (
    is_.is_boolean, is_.is_binary, is_.is_date, is_.is_floating, is_.is_integer, is_.is_decimal, is_.is_timestamp,
)  # fmt: skip


def canonical(kind: pa.DataType, ref: str, duck: str, unit: str = "us") -> str:
    """Return the expression that brings ``ref`` to the one type in which values of ``kind`` are compared.

    ``duck`` is the type that DuckDB gives the column on this side. ``unit`` is that of the file's own spans, which DuckDB
    reads as bare numbers. Raises BadInput for a pair of types that nobody has decided on.
    """
    kind = simple(kind)
    if duck == '"NULL"':
        return f"CAST(NULL AS {plain_type(kind)})"
    if is_.is_null(kind) or is_.is_string(kind):
        return f"decode({ref})" if duck == "BLOB" else f"CAST({ref} AS VARCHAR)"
    if is_.is_timestamp(kind) and "ZONE" in duck:
        return f"CAST(CAST({ref} AS TIMESTAMP) AS {plain_type(kind)})"
    # Infinity is what some numbers mean to DuckDB in place of a moment: a cast keeps it, epoch_us would make it null.
    if any(is_this(kind) for is_this in _CAST):
        return f"CAST({ref} AS {plain_type(kind)})"
    if is_.is_time(kind):
        # A target that has no times of day holds the span since midnight.
        return f"CAST({ref} AS BIGINT) {_TO_NS[unit]}" if duck == "BIGINT" else f"epoch_ns({ref})"
    if is_.is_duration(kind):
        fine = kind.unit == "ns"
        if duck in ("BIGINT", "INTEGER"):
            return f"CAST({ref} AS BIGINT) {(_TO_NS if fine else _TO_US)[unit]}"
        return f"epoch_ns({ref})" if fine else f"epoch_us({ref})"
    if is_list(kind):
        inner = canonical(kind.value_type, "x", duck.removesuffix("[]"), unit)
        return f"list_transform({ref}, lambda x: {inner})"
    raise refused(f"There is no way to compare values of type {kind}.")


def plain_type(kind: pa.DataType) -> str:
    """Return the DuckDB type of what ``canonical`` gives."""
    kind = simple(kind)
    if is_.is_boolean(kind):
        return "BOOLEAN"
    if is_.is_uint64(kind):
        return "UBIGINT"
    if is_.is_integer(kind) or is_.is_time(kind) or is_.is_duration(kind):
        return "BIGINT"
    if is_.is_floating(kind):
        return "DOUBLE"  # which holds every smaller one exactly; that it is held as such is compared apart
    if is_.is_binary(kind):
        return "BLOB"
    if is_.is_date(kind):
        return "DATE"
    if is_.is_timestamp(kind):
        return "TIMESTAMP_NS" if kind.unit == "ns" else "TIMESTAMP"
    if is_.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    return f"{plain_type(kind.value_type)}[]" if is_list(kind) else "VARCHAR"


def hashed(kind: pa.DataType, value: str) -> str:
    """Return the arguments of ``hash`` for a canonical value: what it would not see goes in beside it."""
    kind = simple(kind)
    if is_.is_floating(kind):
        return f"{value}, CASE WHEN {value} = 0 THEN signbit({value}) END"
    if not is_list(kind):
        return value
    nested = is_list(kind.value_type) or is_.is_floating(kind.value_type)
    return f"{value} IS NULL, len({value}), {f'CAST(to_json({value}) AS VARCHAR)' if nested else value}"


def literal(value: str | int | date) -> str:
    """A value that stands in the name of a folder."""
    if isinstance(value, date):
        return f"DATE {text(value.isoformat())}"
    return text(value) if isinstance(value, str) else str(value)


def is_ordered(kind: pa.DataType) -> bool:
    """True for types whose least and greatest value every target and DuckDB agree on; not so for texts and bytes."""
    return not (is_list(kind) or is_.is_string(kind) or is_.is_binary(kind) or is_.is_null(kind))


def innermost(kind: pa.DataType) -> pa.DataType:
    """Return what a list holds, or what lists in it hold; any other type itself."""
    kind = simple(kind)
    return innermost(kind.value_type) if is_list(kind) else kind
