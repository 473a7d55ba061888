"""Pages: what a database holds, read back by key as Arrow columns, exactly; what a proof of every value hashes.

Values come as the server computes them: days and local moments as ISO text, the rest of time as integers, never as
Python's types, which know no nanoseconds. The type of each value is looked at too: 1 is not 1.0, and a date is no text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import NoneType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from bgdeploy.errors import TargetError, VerifyFailed
from bgdeploy.snapshots.schema import is_list, simple
from bgdeploy.snapshots.source import Column
from bgdeploy.targets.base import Aggregate, End, Rows
from bgdeploy.targets.neo4j.access import is_memory
from bgdeploy.targets.neo4j.names import CYPHER, quote

PAGE = 10_000  # rows; fewer where the server has no memory for so many
_SMALLEST = 50
_SOURCES = 50_000  # nodes whose relationships are counted at once
_LOCAL = tuple(
    map(pa.timestamp, ("s", "ms", "us"))
)  # Arrow reads their text, but not all nanoseconds there are
_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
Ask = Callable[..., Rows]  # (Cypher, **parameters) -> rows; read-only


@dataclass(frozen=True)
class Form:
    """How values of one type are asked for and put together.

    ``parts`` are Cypher expressions over ``{x}``, one value. Where they change it, ``kind`` is the type that the
    server must find; elsewhere ``python`` is the type that must arrive. ``zones`` are the names that a moment's zone
    may have.
    """

    parts: tuple[str, ...]
    join: Callable[[list[list[Any]]], pa.Array]
    kind: str = ""
    python: type = NoneType
    zones: tuple[str, ...] = ()


def form_of(kind: pa.DataType) -> Form:
    """The form of a single value of an Arrow type, as its whole table has it; KeyError where no property holds one."""
    for known, arrow, python in (
        (is_.is_null, pa.null(), NoneType),
        (is_.is_boolean, pa.bool_(), bool),
        (is_.is_integer, pa.int64(), int),
        (is_.is_floating, pa.float64(), float),
        (is_.is_string, pa.string(), str),
        (is_.is_binary, pa.binary(), bytes),
    ):
        if known(kind):
            return Form(("{x}",), lambda parts, arrow=arrow: pa.array(parts[0], arrow), python=python)  # type: ignore[misc]
    for known, arrow, name in (
        (is_.is_date, pa.date32(), "DATE"),
        (lambda kind: kind in _LOCAL, kind, "LOCAL DATETIME"),
    ):
        if known(kind):
            return Form(("toString({x})",), lambda parts, arrow=arrow: _parse(parts[0], arrow), name)  # type: ignore[misc]
    if is_.is_time(kind):
        since = "({x}.hour * 60 + {x}.minute) * 60 + {x}.second"
        return Form((since, "{x}.nanosecond"), lambda parts: _count(parts, pa.time64("ns")), "LOCAL TIME")
    if is_.is_timestamp(kind):
        # Not epochSeconds, which cuts towards zero.
        moment = "{x}" if kind.tz is not None else "datetime({{datetime: {x}, timezone: 'Z'}})"
        seconds = f"({moment}.epochMillis - {{x}}.nanosecond / 1000000) / 1000"
        name = "LOCAL DATETIME" if kind.tz is None else "ZONED DATETIME"
        zones = () if kind.tz is None else _spellings(kind.tz)
        return Form((seconds, "{x}.nanosecond"), lambda parts: _count(parts, kind), name, zones=zones)
    if is_.is_duration(kind):
        span = "CASE WHEN {x}.months = 0 AND {x}.days = 0 THEN {x}.seconds END"
        return Form((span, "{x}.nanosecondsOfSecond"), lambda parts: _count(parts, kind), "DURATION")
    raise KeyError(str(kind))


def _spellings(zone: str) -> tuple[str, ...]:
    """What the server may call a zone: by the name it was given, but for UTC, which each loader names in its way."""
    return ("UTC", "Z") if zone in ("UTC", "Z", "+00:00", "-00:00") else (zone,)


def _parse(texts: list[str | None], kind: pa.DataType) -> pa.Array:
    return pa.array(texts, pa.string()).cast(kind)


def _count(parts: list[list[int | None]], kind: pa.DataType) -> pa.Array:
    """Seconds and nanoseconds as one number of the type's unit; raises ArrowInvalid for what it cannot hold."""
    unit = _UNITS[kind.unit]
    seconds, fraction = (pa.array(part, pa.int64()) for part in parts)
    if seconds.null_count != fraction.null_count:
        raise pa.ArrowInvalid("a duration of days or months")
    whole = pc.divide(fraction, unit)
    if pc.any(pc.not_equal(pc.multiply(whole, unit), fraction)).as_py():
        raise pa.ArrowInvalid(f"a value finer than {kind.unit}")
    # Before 1970 the seconds alone may be less than the type holds.
    late = pc.and_(pc.less(seconds, 0), pc.greater(whole, 0)).cast(pa.int64())
    whole = pc.subtract(whole, pc.multiply(late, 10**9 // unit))
    return pc.add_checked(pc.multiply_checked(pc.add(seconds, late), 10**9 // unit), whole).cast(kind)


@dataclass(frozen=True)
class Field:
    """One column of a page: ``place`` is the list of nodes or relationships that it is taken from."""

    mark: str
    place: str
    name: str
    form: Form
    many: bool

    def ask(self) -> Iterator[str]:
        """The parts of RETURN that bring it."""
        value = f"e.{quote(self.name)}"
        if not self.form.kind:
            yield f"[e IN {self.place} | {value}] AS {self.mark}_0"
            return
        kind = f"LIST<{self.form.kind}>" if self.many else self.form.kind
        for number, part in enumerate(self.form.parts):
            shown = f"[v IN {value} | {part.format(x='v')}]" if self.many else part.format(x=value)
            # NULL is of every type, and no moment can be made of it.
            yield f"[e IN {self.place} | CASE WHEN {value} IS :: {kind} NOT NULL THEN {shown} END] AS {self.mark}_{number}"
        yield f"size([e IN {self.place} WHERE NOT {value} IS :: {kind}]) AS {self.mark}_bad"
        if self.form.zones:
            yield f"size([e IN {self.place} WHERE {self.elsewhere()}]) AS {self.mark}_elsewhere"

    def elsewhere(self) -> str:
        """The condition that a moment of ``e``, or any of its list, is in another zone than the column's."""
        value, kind = f"e.{quote(self.name)}", self.form.kind
        zones = ", ".join(map(_text, self.form.zones))
        here = f"v.timezone IN [{zones}]"
        each, kind = (value, f"LIST<{kind}>") if self.many else (f"[{value}]", kind)
        return (
            f"CASE WHEN {value} IS :: {kind} NOT NULL THEN any(v IN {each} WHERE NOT {here}) ELSE false END"
        )

    def read(self, row: dict[str, Any]) -> pa.Array:
        """The column; raises VerifyFailed for a value of another type, or one that the type cannot hold."""
        parts = [row[f"{self.mark}_{number}"] for number in range(len(self.form.parts))]
        if bad := row.get(f"{self.mark}_bad"):
            raise self._refuse(f"{bad:,} values that are no {self.form.kind}")
        self.check_zone(row)
        if not self.many:
            return self._join(parts)
        self._check(parts[0], list)
        sizes = [None if one is None else len(one) for one in parts[0]]
        flat = [list(chain.from_iterable(one for one in part if one is not None)) for part in parts]
        values = self._join(flat)
        offsets = pa.array([0, *_sums(sizes)], pa.int32())
        mask = pa.array([size is None for size in sizes])
        return pa.ListArray.from_arrays(offsets, values, mask=mask)

    def check_zone(self, row: dict[str, Any]) -> None:
        """Raise VerifyFailed where moments are in another zone: their number alone is what the files hold."""
        if other := row.get(f"{self.mark}_elsewhere"):
            raise self._refuse(f"{other:,} values of another zone than {self.form.zones[0]}")

    def _join(self, parts: list[list[Any]]) -> pa.Array:
        if not self.form.kind:
            self._check(parts[0], self.form.python)
        try:
            return self.form.join(parts)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise self._refuse(f"a value that the files cannot have: {error}") from error

    def _check(self, values: list[Any], python: type) -> None:
        if found := set(map(type, values)) - {python, NoneType}:
            raise self._refuse(f"values of another type ({', '.join(sorted(one.__name__ for one in found))})")

    def _refuse(self, holds: str) -> VerifyFailed:
        return VerifyFailed(
            f"Column {self.name!r} holds {holds} in the database.", kept="It was not published."
        )


def _text(value: str) -> str:
    plain = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{plain}'"


def _sums(sizes: Sequence[int | None]) -> Iterator[int]:
    total = 0
    for size in sizes:
        total += size or 0
        yield total


def _field(mark: str, place: str, column: Column, name: str | None = None) -> Field:
    kind = simple(column.kind)
    many = is_list(kind)
    return Field(mark, place, name or column.name, form_of(simple(kind.value_type) if many else kind), many)


def node_pages(ask: Ask, end: End, columns: Sequence[Column], *, rows: int = PAGE) -> Iterator[pa.Table]:
    """Every node with this label and a key, as ``k0`` (its id), ``l0`` (its labels, sorted) and ``c0``, ``c1``, ...

    A node that carries the labels of two tables comes with each of them. Order is the server's. Columns are of the
    table's types, but integers are int64, floats float64, text string, days date32 and times of day time64[ns].
    Raises VerifyFailed for a value of another type than its column's.
    """
    fields = [_field("k0", "g", end.key), *(_field(f"c{n}", "g", one) for n, one in enumerate(columns))]
    key = quote(end.key.name)
    shown = ", ".join(chain.from_iterable(field.ask() for field in fields))
    tail = (
        f"WITH e ORDER BY e.{key} LIMIT $rows WITH collect(e) AS all WITH all, all[-1].{key} AS last UNWIND all AS e "
        f"WITH last, labels(e) AS l0, collect(e) AS g RETURN last, l0, size(g) AS rows, {shown}"
    )
    after: Any = None
    while True:
        bound = f"e.{key} IS NOT NULL" if after is None else f"e.{key} > $after"
        found, rows = _patiently(
            ask, f"{CYPHER}MATCH (e:{quote(end.label)}) WHERE {bound} {tail}", rows, after=after
        )
        if not found:
            return
        yield from (_table(row, fields, ("l0",)) for row in found)
        after = found[0]["last"]


def relationship_pages(
    ask: Ask, kind: str, source: End, target: End, columns: Sequence[Column], *, rows: int = PAGE
) -> Iterator[pa.Table]:
    """Every relationship of this type between these labels, as ``k0`` and ``k1`` (the ids of its ends), ``l0`` and
    ``l1`` (the labels of its ends, sorted) and ``c0``, ``c1``, ...

    A node with more of them than a page has rows comes in several. Else as ``node_pages``.
    """
    fields = [
        _field("k0", "sources", source.key),
        _field("k1", "targets", target.key),
        *(_field(f"c{n}", "g", one) for n, one in enumerate(columns)),
    ]
    key, shown = quote(source.key.name), ", ".join(chain.from_iterable(field.ask() for field in fields))
    for bounds, skips in _spans(ask, kind, source, rows):
        where = " AND ".join(
            f"a.{key} {sign} ${name}" for name, sign in (("after", ">"), ("to", "<=")) if name in bounds
        )
        text = (
            f"{CYPHER}MATCH (a:{quote(source.label)}) WHERE {where} MATCH (a)-[e:{quote(kind)}]->(b:{quote(target.label)}) "
            f"WHERE b.{quote(target.key.name)} IS NOT NULL "
            "WITH a, e, b SKIP $skip LIMIT $rows "
            "WITH labels(a) AS l0, labels(b) AS l1, collect(e) AS g, collect(a) AS sources, collect(b) AS targets "
            f"RETURN l0, l1, size(g) AS rows, {shown}"
        )
        for skip in skips:
            for row in _in_parts(ask, text, skip, rows, bounds):
                yield _table(row, fields, ("l0", "l1"))


def _spans(ask: Ask, kind: str, source: End, rows: int) -> Iterator[tuple[dict[str, Any], range]]:
    """Ranges of source keys that have up to ``rows`` relationships together, or one node of its own with more; each
    with the rows to skip for its pages."""
    key, nodes = quote(source.key.name), _SOURCES
    after: Any = None
    while True:
        bound = f"a.{key} IS NOT NULL" if after is None else f"a.{key} > $after"
        text = (
            f"{CYPHER}MATCH (a:{quote(source.label)}) WHERE {bound} WITH a ORDER BY a.{key} LIMIT $rows "
            f"RETURN collect(a.{key}) AS keys, collect(COUNT {{ (a)-[:{quote(kind)}]->() }}) AS degrees"
        )
        (found, *_), nodes = _patiently(ask, text, nodes, after=after)
        if not found["keys"]:
            return
        last, start, count = len(found["keys"]) - 1, after, 0
        for number, (to, degree) in enumerate(zip(found["keys"], found["degrees"], strict=True)):
            count += degree
            following = 0 if number == last else found["degrees"][number + 1]
            if number < last and count + following <= rows:
                continue
            if count:
                bounds = {"to": to} if start is None else {"after": start, "to": to}
                yield bounds, range(0, count, rows)
            start, count = to, 0
        after = found["keys"][-1]


def _in_parts(ask: Ask, text: str, skip: int, rows: int, bounds: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Ask for so many rows, or for each half of them where the server has no memory for all."""
    try:
        found = ask(text, skip=skip, rows=rows, **bounds)
    except TargetError as error:
        if error.__cause__ is None or not is_memory(error.__cause__) or rows <= _SMALLEST:
            raise
        half = rows // 2
        yield from _in_parts(ask, text, skip, half, bounds)
        yield from _in_parts(ask, text, skip + half, rows - half, bounds)
        return
    yield from found


def _patiently(ask: Ask, text: str, rows: int, **params: Any) -> tuple[Rows, int]:
    """Ask for so many rows, or for half of them as long as the server has no memory for them; return how many."""
    while True:
        try:
            return ask(text, rows=rows, **params), rows
        except TargetError as error:
            if error.__cause__ is None or not is_memory(error.__cause__) or rows <= _SMALLEST:
                raise
        rows //= 2


def _table(row: dict[str, Any], fields: Sequence[Field], labels: Sequence[str]) -> pa.Table:
    texts = pa.list_(pa.string())
    same = pa.array([0] * row["rows"], pa.int32())
    shown = {name: pa.array([sorted(row[name])], texts).take(same) for name in labels}
    columns = {field.mark: field.read(row) for field in fields}
    return pa.table({**columns, **shown})


def aggregate(ask: Ask, match: str, columns: Sequence[Column]) -> tuple[int, list[Aggregate]]:
    """Rows of ``match``, which calls each of them ``e``, and what the server reckons of each column, in one pass.

    Least and greatest are of the types that ``node_pages`` yields. A NaN is the greatest of all numbers. Raises
    VerifyFailed for a value of another type.
    """
    fields = [_field(f"c{number}", "g", column) for number, column in enumerate(columns)]
    reckoned, shown = ["count(*) AS rows"], ["rows"]
    for field in fields:
        value, mark = f"e.{quote(field.name)}", field.mark
        reckoned.append(f"count({value}) AS {mark}")
        shown.append(mark)
        if field.form.zones:
            reckoned.append(f"sum(CASE WHEN {field.elsewhere()} THEN 1 ELSE 0 END) AS {mark}_elsewhere")
            shown.append(f"{mark}_elsewhere")
        if _is_ordered(field):
            reckoned += [f"min({value}) AS {mark}_least", f"max({value}) AS {mark}_most"]
            for end in ("least", "most"):
                one = f"{mark}_{end}"
                for number, part in enumerate(field.form.parts):
                    text = part.format(x=one)
                    kind = field.form.kind
                    text = f"CASE WHEN {one} IS :: {kind} NOT NULL THEN {text} END" if kind else text
                    shown.append(f"{text} AS {one}_{number}")
                if field.form.kind:
                    shown.append(f"CASE WHEN {one} IS :: {field.form.kind} THEN 0 ELSE 1 END AS {one}_bad")
        elif field.form.python is str and not field.many:
            reckoned.append(f"sum(size({value})) AS {mark}_length")
            shown.append(f"{mark}_length")
    text = f"{CYPHER}{match} WITH {', '.join(reckoned)} RETURN {', '.join(shown)}"
    (row,) = ask(text)
    return row["rows"], [_aggregate(row, field) for field in fields]


def _is_ordered(field: Field) -> bool:
    return not field.many and (bool(field.form.kind) or field.form.python in (int, float, bool))


def _aggregate(row: dict[str, Any], field: Field) -> Aggregate:
    present: int = row[field.mark]
    field.check_zone(row)
    if not present or not _is_ordered(field):
        return Aggregate(present, length=row.get(f"{field.mark}_length"))
    ends = []
    for end in ("least", "most"):
        mark = f"{field.mark}_{end}"
        one = replace(field, mark=mark)
        parts = {f"{mark}_{number}": [row[f"{mark}_{number}"]] for number in range(len(field.form.parts))}
        ends.append(one.read({**parts, f"{mark}_bad": row.get(f"{mark}_bad")})[0])
    return Aggregate(present, *ends)
