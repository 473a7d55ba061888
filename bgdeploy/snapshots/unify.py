"""Unify: one type that holds what two files have in a column, without losing anything."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types as is_

_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_EXACT_IN_DOUBLE = 32  # bits of an integer that every float64 still tells apart
_DIGITS = 38  # of a decimal in 128 bits
_UNITS = ("s", "ms", "us", "ns")


def widen(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    """Return the smallest type that holds every value of both, or None where there is none."""
    one, two = simple(one), simple(two)
    if one == two or is_.is_null(two):
        return one
    if is_.is_null(one):
        return two
    if is_list(one) and is_list(two):
        inner = widen(one.value_type, two.value_type)
        return None if inner is None else pa.list_(inner)
    return _numbers(one, two) or _moments(one, two)


def simple(kind: pa.DataType) -> pa.DataType:
    """The same values in the one way of storing them that all others can be read as."""
    if is_.is_dictionary(kind):
        return simple(kind.value_type)
    if is_.is_large_string(kind) or is_.is_string_view(kind):
        return pa.string()
    if is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind) or is_.is_binary_view(kind):
        return pa.binary()
    if is_.is_decimal(kind) and kind.precision <= _DIGITS:
        return pa.decimal128(kind.precision, kind.scale)
    if is_.is_date64(kind):
        return pa.date32()
    return pa.list_(simple(kind.value_type)) if is_list(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    """True for lists in each of the ways they can be stored but views."""
    return bool(is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind))


def _numbers(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    if is_.is_integer(one) and is_.is_integer(two):
        return _integers(one, two)
    if is_.is_floating(one) and is_.is_floating(two):
        return max(one, two, key=lambda kind: int(kind.bit_width))
    if is_.is_decimal(one) and is_.is_decimal(two):
        return _decimals(one, two)
    if is_.is_integer(one) and is_.is_floating(two):
        one, two = two, one
    exact = is_.is_floating(one) and is_.is_integer(two) and two.bit_width <= _EXACT_IN_DOUBLE
    return pa.float64() if exact else None


def _integers(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    if is_.is_signed_integer(one) == is_.is_signed_integer(two):
        return max(one, two, key=lambda kind: int(kind.bit_width))
    signed, other = (one, two) if is_.is_signed_integer(one) else (two, one)
    fitting = (kind for kind in _SIGNED if kind.bit_width >= signed.bit_width)
    return next((kind for kind in fitting if kind.bit_width > other.bit_width), None)


def _decimals(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    scale = max(one.scale, two.scale)
    precision = max(one.precision - one.scale, two.precision - two.scale) + scale
    return pa.decimal128(precision, scale) if precision <= _DIGITS else None


def _moments(one: pa.DataType, two: pa.DataType) -> pa.DataType | None:
    if is_.is_timestamp(one) and is_.is_timestamp(two) and (one.tz is None) == (two.tz is None):
        return pa.timestamp(_finer(one, two), one.tz if one.tz == two.tz else "UTC")
    if is_.is_duration(one) and is_.is_duration(two):
        return pa.duration(_finer(one, two))
    if is_.is_time(one) and is_.is_time(two):
        unit = _finer(one, two)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    return None


def _finer(one: pa.DataType, two: pa.DataType) -> str:
    return max(str(one.unit), str(two.unit), key=_UNITS.index)
