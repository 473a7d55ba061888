"""Forms: what the tool must be given so that a column becomes what it is, seen on 5.26.26 and 2026.03.1.

Most columns are read where they lie. The rest is written anew, since the tool would lose it or make
something else of it without a word: see docs/neo4j.md, "What the import tool is given".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from bgdeploy.snapshots.unify import is_list, simple

Change = Callable[[pa.Array], pa.Array]
EMPTY = "\x01bgdeploy: an empty text\x01"  # in place of empty texts, which the tool takes for none


@dataclass(frozen=True)
class Form:
    """What stands behind the name in the header, and what is made of the values; None: as they lie in the file.

    ``empty`` is what stands behind it for rows whose list is empty, where those need another one.
    """

    suffix: str = ""
    change: Change | None = None
    empty: str | None = None


PLAIN = Form()
MOMENT = Form(":localdatetime", lambda values: _as_text(values, ""))
ZONED = Form(":datetime", lambda values: _as_text(values, "Z"))


def form_of(kind: pa.DataType) -> Form | None:
    """The form of a type; None for one that the tool cannot be given at all."""
    kind = simple(kind)
    if is_list(kind):
        return _form_of_list(kind.value_type)
    if is_.is_uint32(kind) or is_.is_uint64(kind):
        return Form(change=lambda values: values.cast(pa.int64()))
    if is_.is_float16(kind):
        return Form(change=lambda values: values.cast(pa.float32()))
    if is_.is_duration(kind):
        return Form(":duration", _spans)
    if is_.is_timestamp(kind) and kind.tz not in (None, "UTC"):
        return Form(":datetime", _in_zone)
    return None if is_.is_binary(kind) else PLAIN


def _form_of_list(inner: pa.DataType) -> Form | None:
    if is_.is_integer(inner):
        return Form(change=_marked_integers)
    if is_.is_floating(inner):
        return Form(":double[]", _joined_numbers, ":double[]")
    return Form("", lambda values: values, ":string[]") if is_.is_string(inner) else None


def alike(own: pa.DataType, kind: pa.DataType) -> bool:
    """Whether a file's own type means the same to the tool as that of its whole table."""
    own, kind = simple(own), simple(kind)
    if is_.is_timestamp(own) and is_.is_timestamp(kind):
        return bool(own.tz == kind.tz)
    both = (is_.is_integer, is_.is_floating, is_.is_time)
    return own == kind or any(one(own) and one(kind) for one in both)


def early(kind: pa.DataType) -> Form:
    """The form of moments before 1970, whose fractions of a second the tool does not understand."""
    return MOMENT if kind.tz is None else ZONED


def _marked_integers(values: pa.Array) -> pa.Array:
    """Lists of integers are only kept where Parquet says of the element that it is an integer, as for unsigned ones."""
    return _rebuilt(values, values.flatten().cast(pa.int64()).view(pa.uint64()))


def _rebuilt(values: pa.Array, flat: pa.Array) -> pa.Array:
    sizes = pc.fill_null(pc.list_value_length(values), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(sizes).cast(pa.int32())])
    return pa.ListArray.from_arrays(offsets, flat, mask=values.is_null())


def _joined_numbers(values: pa.Array) -> pa.Array:
    """As Java reads them, in the width that they have when they come over Bolt."""
    texts = values.flatten().cast(pa.float64()).cast(pa.string())
    for arrow, java in (("inf", "Infinity"), ("-inf", "-Infinity"), ("nan", "NaN")):
        texts = pc.if_else(pc.equal(texts, arrow), java, texts)
    return pc.binary_join(_rebuilt(values, texts), ",")


def _as_text(values: pa.Array, zone: str) -> pa.Array:
    plain = values.cast(pa.timestamp(values.type.unit))
    return pc.binary_join_element_wise(pc.strftime(plain, "%Y-%m-%dT%H:%M:%S"), zone, "")


def _in_zone(values: pa.Array) -> pa.Array:
    """The local time with the offset it has then, and the zone's name where it has one."""
    zone = values.type.tz
    local = pc.strftime(values, "%Y-%m-%dT%H:%M:%S%z")
    return local if zone[0] in "+-" else pc.binary_join_element_wise(local, f"[{zone}]", "")


def _spans(values: pa.Array) -> pa.Array:
    """Seconds with their fraction; whole days and months are kept apart by Neo4j and are none of a duration's here."""
    factor = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[values.type.unit]
    numbers = values.cast(pa.int64()).to_pylist()
    return pa.array([None if one is None else _span(one * factor) for one in numbers], pa.string())


def _span(nanoseconds: int) -> str:
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return f"PT{'-' if nanoseconds < 0 else ''}{seconds}.{rest:09}S"
