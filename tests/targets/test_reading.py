"""What a file says decides how it is read: every way of storing values arrives whole, or is refused by name."""

from __future__ import annotations

import multiprocessing
import os
import struct
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgdeploy.errors import BadInput, TargetError
from bgdeploy.snapshots.parquet import Parquet, floor_to_microseconds
from bgdeploy.snapshots.rows import sample
from bgdeploy.snapshots.schema import label_counts, open_snapshot
from bgdeploy.snapshots.source import Column, Snapshot
from bgdeploy.targets.base import End
from bgdeploy.targets.ladybug.build import Build, build
from bgdeploy.targets.ladybug.inspection import Inspection
from bgdeploy.targets.ladybug.reading import is_native, refuses
from tests.snapshots.folders import write
from tests.targets.embedded import loaded, prove, work_on
from tests.targets.embedded import opened as opened_build

ROWS = 3_000
HERE = Path(__file__).parent


def put(path: Path, table: pa.Table, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **how)


def by_duck(path: Path, select: str, **how: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = ", ".join(f"{name} {value}" for name, value in {"FORMAT": "parquet", **how}.items())
    duckdb.sql(f"COPY ({select}) TO '{path}' ({options})")


def in_footer(path: Path, old: bytes, new: bytes) -> None:
    """Change what a footer says, and nothing of the pages."""
    content = path.read_bytes()
    start = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    assert old in content[start:]
    path.write_bytes(content[:start] + content[start:].replace(old, new))


def opened(folder: Path) -> Snapshot:
    return open_snapshot("acme", 1700000001, folder, {}, "print", refuses)


def values(folder: Path, name: str) -> list[Any]:
    """A property of all nodes, in the order of their ids, as the engine has it."""
    with loaded(folder / "data", folder / "build") as engine:
        return [row["v"] for row in engine.rows(f"MATCH (n) RETURN n.`{name}` AS v ORDER BY n.id")]


def refused(folder: Path) -> str:
    """The error that loading a snapshot ends in."""
    with pytest.raises(BadInput) as caught, loaded(folder / "data", folder / "build"):
        pass
    return str(caught.value)


MIXED = pa.table(
    {
        "id": pa.array(range(ROWS), pa.int64()),
        "big": pa.array([(-1) ** n * (2**62 + n * 10**12) if n % 3 else None for n in range(ROWS)], pa.int64()),
        "small": pa.array([n * 1_431_655 % 2**32 - 2**31 for n in range(ROWS)], pa.int32()),
        "text": pa.array([f"{'é' * (n % 20)}{n}" if n % 7 else None for n in range(ROWS)]),
        "raw": pa.array([bytes([n % 256]) * (n % 5) for n in range(ROWS)]),
        "share": pa.array([n / 7 for n in range(ROWS)]),
        "half": pa.array([n / 8 for n in range(ROWS)], pa.float32()),
        "truth": pa.array([n % 3 == 0 if n % 11 else None for n in range(ROWS)]),
        "at": pa.array([datetime(1950, 1, 1) + timedelta(days=n, microseconds=n) for n in range(ROWS)]),
        "spans": pa.array([[timedelta(n), None] if n % 4 else None for n in range(ROWS)], pa.list_(pa.duration("us"))),
    }
)  # fmt: skip
PLAIN = {"use_dictionary": False}
WAYS: dict[str, dict[str, Any]] = {
    **{f"Codec{name}": {"compression": name} for name in ("none", "snappy", "gzip", "brotli", "zstd", "lz4")},
    "Pages": {"data_page_version": "2.0", "data_page_size": 500, "write_batch_size": 100},
    "Groups": {"row_group_size": 700, "dictionary_pagesize_limit": 2000},
    "Silent": {"store_schema": False, "write_statistics": False, "version": "1.0"},
    "Delta": {**PLAIN, "column_encoding": {"big": "DELTA_BINARY_PACKED", "small": "DELTA_BINARY_PACKED", "at": "DELTA_BINARY_PACKED", "text": "DELTA_BYTE_ARRAY", "raw": "DELTA_LENGTH_BYTE_ARRAY"}},
    "Split": {**PLAIN, "column_encoding": dict.fromkeys(("big", "small", "share", "half"), "BYTE_STREAM_SPLIT")},
    "OldLz4": {"compression": "lz4", **PLAIN},
}  # fmt: skip


def test_every_value_arrives_whatever_encoding_and_codec_hold_it(tmp_path: Path) -> None:
    plain = MIXED.drop_columns(["spans"])  # without Arrow's own schema a duration is a bare number
    for name, how in WAYS.items():
        put(tmp_path / f"data/nodes/{name}/a.parquet", plain if name == "Silent" else MIXED, **how)
    in_footer(tmp_path / "data/nodes/OldLz4/a.parquet", b"\x15\x0e", b"\x15\x0a")
    for version in ("V1", "V2"):
        rows = "SELECT * EXCLUDE spans, [to_days(id::INTEGER)] AS spans FROM MIXED"
        by_duck(tmp_path / f"data/nodes/Duck{version}/a.parquet", rows.replace(", [to_days(id::INTEGER)] AS spans", ""), PARQUET_VERSION=version)  # fmt: skip
    wanted = MIXED.sort_by("id").to_pylist()
    with loaded(tmp_path / "data", tmp_path / "build") as engine:
        for name in (*WAYS, "DuckV1", "DuckV2"):
            names = MIXED.schema.names if name in WAYS and name != "Silent" else plain.schema.names
            asked = ", ".join(f"n.{column} AS {column}" for column in names)
            found = engine.rows(f"MATCH (n:{name}) RETURN {asked} ORDER BY id")
            assert [{column: row[column] for column in names} for row in wanted] == found, name


@pytest.mark.parametrize(
    ("column", "how", "native"),
    [
        ("big", {}, True),
        *[("big", {"compression": codec}, True) for codec in ("none", "gzip", "brotli", "zstd", "lz4")],
        ("big", WAYS["Delta"], False),
        ("text", WAYS["Delta"], False),
        ("raw", WAYS["Delta"], False),
        ("share", WAYS["Split"], False),
        ("share", WAYS["Delta"], True),
        ("at", {"use_deprecated_int96_timestamps": True}, False),
        ("at", {"store_schema": False}, True),
    ],
)
def test_only_what_was_tried_goes_through_the_engines_own_reader(
    tmp_path: Path, column: str, how: dict[str, Any], native: bool
) -> None:
    put(tmp_path / "nodes/T/a.parquet", MIXED.select(["id", column]), **how)
    (file,) = opened(tmp_path).tables[0].files
    assert is_native(file.columns[1], file.written_by) == native
    unknown = Column(column, file.columns[1].kind, "property")
    assert not is_native(unknown, file.written_by), "what nobody looked at is not trusted"


def test_integers_that_duckdb_packs_wider_than_others_read_are_read(tmp_path: Path) -> None:
    """A difference of 33 bits between two of 32: pyarrow takes the page for a damaged one."""
    select = """SELECT (i * 7 % 5000)::INTEGER AS id, ((hash(i) % 4294967296)::BIGINT - 2147483648)::INTEGER AS v,
        CASE WHEN i % 3 = 0 THEN NULL ELSE DATE '2020-01-01' + (hash(i) % 9000)::INTEGER END AS "V2" FROM range(5000) t(i)"""
    path = tmp_path / "data/nodes/T/a.parquet"
    by_duck(path, select, PARQUET_VERSION="v2", ROW_GROUP_SIZE="2048")
    by_duck(
        tmp_path / "data/relationships/R/a.parquet",
        "SELECT 1::INTEGER AS source, 2::INTEGER AS target",
        PARQUET_VERSION="v2",
    )
    wanted = duckdb.sql(f"SELECT * FROM '{path}' ORDER BY id").fetchall()
    with pytest.raises(OSError, match="InitBlock"):
        pq.read_table(path)
    with loaded(tmp_path / "data", tmp_path / "build") as engine:
        found = engine.rows("MATCH (n:T) RETURN n.id, n.v, n.V2 ORDER BY n.id")
        assert [tuple(row.values()) for row in found] == wanted
        assert engine.count("MATCH (:T)-[r:R]->(:T) RETURN count(*)") == 1
    with Parquet(path) as parquet:
        for groups, rows in (([1], range(2048, 4096)), ([0, 2], [*range(2048), *range(4096, 5000)])):
            batches = parquet.iter_batches(100, row_groups=groups, columns=["id"])
            kept = [n for batch in batches for n in batch["id"].to_pylist()]
            assert kept == [i * 7 % 5000 for i in rows]


def test_pages_that_a_footer_does_not_tell_of_are_written_anew_at_the_next_try(tmp_path: Path) -> None:
    path = tmp_path / "data/nodes/T/a.parquet"
    how = {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "compression": "none"}
    put(path, MIXED.select(["id", "text"]), **PLAIN, **how)
    in_footer(
        path, b"\x25\x06\x0e", b"\x25\x06\x00"
    )  # a column's encodings: RLE and DELTA_BYTE_ARRAY, now PLAIN
    with Parquet(path) as parquet:
        assert [field.stored and field.stored.encodings for field in parquet.fields] == ["PLAIN,RLE"] * 2
    first = multiprocessing.get_context("spawn").Process(target=build_here, args=(tmp_path,))
    first.start()  # a COPY that failed leaves an engine that is fit for nothing but the end of its process
    first.join()
    assert first.exitcode == 7
    assert values(tmp_path, "text") == MIXED["text"].to_pylist()


def build_here(folder: Path) -> None:
    try:
        build(work_on(folder / "data", folder / "build"))
    except TargetError:
        os._exit(7)


FAR = [
    datetime(1, 1, 1),
    datetime(1969, 12, 31, 23, 59, 59, 999999),
    None,
    datetime(9999, 12, 31, 23, 59, 59),
]


def test_int96_moments_arrive_from_the_year_1_to_9999(tmp_path: Path) -> None:
    """As Spark writes moments unless told otherwise."""
    table = pa.table({"id": range(4), "at": pa.array(FAR), "every": pa.array([FAR, None, [], FAR[:1]])})
    put(
        tmp_path / "data/nodes/T/a.parquet",
        table,
        use_deprecated_int96_timestamps=True,
        store_schema=False,
        row_group_size=3,
    )
    with loaded(tmp_path / "data", tmp_path / "build") as engine:
        rows = engine.rows("MATCH (n:T) RETURN n.at AS at, n.every AS every ORDER BY n.id")
    assert [row["at"] for row in rows] == FAR
    assert [row["every"] for row in rows] == table["every"].to_pylist()


@pytest.mark.parametrize(
    ("moments", "said"),
    [
        (pa.array([10**15], pa.timestamp("ms")), "a day or a moment outside of the years 1 to 9999"),
        (pa.array([253_402_300_800], pa.timestamp("s")), "a day or a moment outside of the years 1 to 9999"),
        (pa.array([-62_135_596_801], pa.timestamp("s")), "a day or a moment outside of the years 1 to 9999"),
        (pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")), "INT96 moments with digits beyond microseconds"),
        (pa.array([-1], pa.timestamp("ns")), "INT96 moments with digits beyond microseconds"),
    ],
)  # fmt: skip
def test_int96_moments_that_nothing_can_hold_are_refused(
    tmp_path: Path, moments: pa.Array, said: str
) -> None:
    put(
        tmp_path / "data/nodes/T/a.parquet",
        pa.table({"id": [1], "at": moments}),
        use_deprecated_int96_timestamps=True,
    )
    assert f"nodes/T/a.parquet: column 'at' holds {said}" in refused(tmp_path)


def test_an_int96_day_that_overflows_microseconds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data/nodes/T/a.parquet"
    put(
        path,
        pa.table({"id": [1], "at": [datetime(2024, 1, 1)]}),
        use_deprecated_int96_timestamps=True,
        **PLAIN,
        compression="none",
    )
    content, day = path.read_bytes(), struct.pack("<I", 2_460_311)
    assert content.count(day) == 1
    path.write_bytes(
        content.replace(day, struct.pack("<I", 2_440_588 + 213_503_982))
    )  # 2^64 microseconds later
    assert "outside of the years 1 to 9999" in refused(tmp_path)


def test_uuid_json_and_enum_are_text_also_as_ids_and_in_lists(tmp_path: Path) -> None:
    keys = [uuid.UUID(int=n * 10**30) for n in range(1, 4)]
    raw = [key.bytes for key in keys]
    table = pa.table({"id": pa.array(raw, pa.uuid()), "bytes": pa.array(raw, pa.binary(16))})
    put(tmp_path / "data/nodes/Arrow/a.parquet", table)
    listed = f"[[], NULL, ['{keys[0]}'::UUID, NULL], ['{keys[1]}'::UUID]]"
    rows = f"""SELECT '{keys[0]}'::UUID AS source, '{keys[1]}'::UUID AS target, ('{{"n":' || n || '}}')::JSON AS j,
        ({listed})[n]::UUID[] AS l FROM range(1, 5) t(n)"""
    by_duck(tmp_path / "data/relationships/R/from=Duck/to=Arrow/a.parquet", rows, PARQUET_VERSION="v2")
    by_duck(tmp_path / "data/nodes/Duck/a.parquet", f"SELECT '{keys[0]}'::UUID AS id")
    put(
        tmp_path / "data/nodes/Kinds/a.parquet",
        pa.table({"id": ["x"], "kind": ["grüße"]}),
        store_schema=False,
    )
    in_footer(
        tmp_path / "data/nodes/Kinds/a.parquet", b"\x25\x00\x4c\x1c\x00\x00", b"\x25\x08\x4c\x4c\x00\x00"
    )
    with Parquet(tmp_path / "data/nodes/Kinds/a.parquet") as parquet:
        assert [field.stored and field.stored.logical for field in parquet.fields] == ["ENUM", "ENUM"]
    texts = [str(key) for key in keys]
    with loaded(tmp_path / "data", tmp_path / "build") as engine:
        found = engine.rows("MATCH (n:Arrow) RETURN n.id AS id, n.bytes AS bytes ORDER BY id")
        assert found == [{"id": text, "bytes": key.bytes} for text, key in zip(texts, keys, strict=True)]
        assert engine.rows("MATCH (n:Kinds) RETURN n.id AS id, n.kind AS kind") == [
            {"id": "x", "kind": "grüße"}
        ]
        found = engine.rows(
            "MATCH (a:Duck)-[r:R]->(b:Arrow) RETURN a.id AS a, b.id AS b, r.j AS j, r.l AS l ORDER BY j"
        )
    assert {(row["a"], row["b"]) for row in found} == {(texts[0], texts[1])}
    assert [row["j"] for row in found] == [f'{{"n":{n}}}' for n in range(1, 5)]
    assert [row["l"] for row in found] == [[], None, [texts[0], None], [texts[1]]]


def extension(name: str) -> pa.Table:
    """A column of a type that a program added to Arrow's own, as one sees it who does not know the program."""
    field = pa.field(
        "x", pa.int64(), metadata={"ARROW:extension:name": name, "ARROW:extension:metadata": "{}"}
    )
    return pa.table([pa.array([1]), pa.array([648])], schema=pa.schema([pa.field("id", pa.int64()), field]))


def day(microseconds: int) -> pa.Table:
    return pa.table({"id": [1], "x": pa.array([microseconds], pa.int64()).view(pa.time64("us"))})


BAD = "nodes/T/a.parquet: column 'x' holds "


@pytest.mark.parametrize(
    ("table", "said", "cure"),
    [
        (extension("pandas.period"), f"{BAD}pandas.period (int64), which would not arrive unharmed.", "Use a timestamp"),
        (extension("acme.money"), f"{BAD}acme.money (int64), which would not arrive unharmed.", "Use a string."),
        (pa.table({"id": [1], "x": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8()))}), f"{BAD}arrow.bool8", "Use a boolean."),
        (day(86_400_000_000), f"{BAD}a time of day before 00:00 or after 23:59:59.999999.", "midnight as 00:00"),
        (day(400 * 86_400_000_000), f"{BAD}a time of day before", "Write a span as a duration"),
        (day(-1), f"{BAD}a time of day before", "Write a span as a duration"),
        (pa.table({"id": [1], "*": [1]}), "nodes/T/a.parquet: the column name '*' is reserved", "Rename the column, for instance to 'all'."),
    ],
)  # fmt: skip
def test_what_no_value_can_be_made_of_is_refused_with_its_column(
    tmp_path: Path, table: pa.Table, said: str, cure: str
) -> None:
    put(tmp_path / "data/nodes/T/a.parquet", table)
    error = refused(tmp_path)
    assert error.startswith(said), error
    assert cure in error, error


def test_an_interval_is_refused_with_its_column(tmp_path: Path) -> None:
    by_duck(tmp_path / "data/nodes/T/a.parquet", "SELECT 1 AS id, INTERVAL 3 MONTH AS x")
    assert refused(tmp_path).startswith(
        f"{BAD}INTERVAL (FIXED_LEN_BYTE_ARRAY), which would not arrive unharmed."
    )


def test_integers_of_128_bits_are_refused_with_their_column(tmp_path: Path) -> None:
    """polars_int128.parquet: pl.DataFrame({"id": [1], "x": pl.Series([2**100], dtype=pl.Int128)}), polars 2.1.0."""
    path = tmp_path / "data/nodes/T/a.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes((HERE / "polars_int128.parquet").read_bytes())
    error = refused(tmp_path)
    assert error.startswith(f"{BAD}what bgdeploy cannot read: Integers with more than 64 bits"), error
    assert "Write integers of 128 bits as decimals" in error


@pytest.mark.parametrize("path", ["nodes/a.b/a.parquet", "relationships/a.b/a.parquet"])
def test_a_dot_in_the_name_of_a_table_is_refused_with_its_folder(tmp_path: Path, path: str) -> None:
    ends = {"id": [1], "source": [1], "target": [1]}
    write(tmp_path / "data", {"nodes/T/a.parquet": {"id": [1]}, path: ends})
    word = "label" if path.startswith("nodes") else "type"
    folder = path.removesuffix("/a.parquet")
    assert refused(tmp_path).startswith(f"{folder}: a {word} with a dot cannot be asked for")


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (pa.array([Decimal("-1.05")], pa.decimal32(9, 2)), Decimal("-1.05")),
        (pa.array([Decimal("123456789012.5")], pa.decimal64(18, 1)), Decimal("123456789012.5")),
        (pa.array([Decimal("-0.07")], pa.decimal256(20, 2)), Decimal("-0.07")),
        (pa.array([timedelta(400)], pa.duration("ns")), timedelta(400)),
        (pa.array([timedelta(-400, microseconds=1)], pa.duration("us")), timedelta(-400, microseconds=1)),
        (pa.array([datetime(2024, 7, 1, tzinfo=UTC)], pa.timestamp("us", "Mars/Base")), datetime(2024, 7, 1, tzinfo=UTC)),
        (pa.array([time(23, 59, 59, 999_999)]), timedelta(hours=23, minutes=59, seconds=59, microseconds=999_999)),
        (pa.array([date(1, 1, 1)]), date(1, 1, 1)),
    ],
    ids=lambda one: str(getattr(one, "type", "")),
)  # fmt: skip
def test_rare_types_arrive(tmp_path: Path, array: pa.Array, wanted: Any) -> None:
    put(tmp_path / "data/nodes/T/a.parquet", pa.table({"id": [1], "x": array}))
    assert values(tmp_path, "x") == [wanted]
    (table,) = opened(tmp_path / "data").tables
    assert len(sample(opened(tmp_path / "data"), table, 1)) == 1


NAMES = ("from", "to", "FROM_", "labels", "source", "target", "key", "x", "x0", "c0", "c1", "n", "r", "id", "type_", "label")  # fmt: skip


def test_a_relationships_properties_may_have_any_name(tmp_path: Path) -> None:
    """`from` and `to` were written with the ids of the ends."""
    ends = {"sourceNodeId": ["a", "b", "a"], "targetNodeId": ["b", "a", "f"]}
    said = {name: [f"{name}{n}" for n in range(3)] for name in NAMES}
    files = {"nodes/P/a.parquet": {"nodeId": ["a", "b"]}, "nodes/F/a.parquet": {"nodeId": ["f"]}}
    write(tmp_path / "data", {**files, "relationships/R/a.parquet": {**ends, **said}})
    work = work_on(tmp_path / "data", tmp_path / "build")
    for again in (False, True):  # the second time as after a kill: all is copied, and has its name
        if again:
            work = Build(work.folder, work.snapshot, work.ledger, work.settings)
        build(work)
        with opened_build(work) as engine:
            asked = ", ".join(f"r.`{name}` AS `{name}`" for name in NAMES)
            rows = engine.rows(f"MATCH (a)-[r:R]->(b) RETURN {asked} ORDER BY r.c0")
            assert rows == [{name: said[name][n] for name in NAMES} for n in range(3)]
        prove(work)


def test_names_that_differ_in_case_from_an_ends_or_stand_beside_labels_are_kept_apart(tmp_path: Path) -> None:
    nodes = {"id": ["a", "b"], "labels": ["P, Boss", None], "x": ["x1", "x2"], "LABEL": [1, 2]}
    ends = {
        "source": ["a"],
        "Source": ["big"],
        "target": ["b"],
        "TARGET": ["big too"],
        "type": ["R"],
        "Type": ["t"],
    }
    write(tmp_path / "data", {"nodes/P/a.parquet": nodes, "relationships/R/a.parquet": ends})
    with loaded(tmp_path / "data", tmp_path / "build") as engine:
        found = engine.rows("MATCH (a)-[r:R]->(b) RETURN a.id, b.id, r.Source, r.TARGET, r.Type")
        assert [tuple(row.values()) for row in found] == [("a", "b", "big", "big too", "t")]
        found = engine.rows("MATCH (n:P) RETURN n.x AS x, n.labels AS labels ORDER BY x")
    assert found == [{"x": "x1", "labels": ["P", "Boss"]}, {"x": "x2", "labels": ["P"]}]


def test_ids_over_the_whole_range_of_unsigned_integers_join_and_are_found(tmp_path: Path) -> None:
    ids = [2**63 + 5, 7, 2**64 - 1]
    nodes, ends = (
        pa.array(ids, pa.uint64()),
        {"source": pa.array(ids[:2], pa.uint64()), "target": pa.array(ids[1:], pa.uint64())},
    )
    write(
        tmp_path / "data",
        {"nodes/U/a.parquet": {"id": nodes, "n": [1, 2, 3]}, "relationships/R/a.parquet": ends},
    )
    with loaded(tmp_path / "data", tmp_path / "build") as engine:
        found = engine.rows("MATCH (a)-[r:R]->(b) RETURN a.id AS one, b.id AS two ORDER BY two")
        assert [tuple(row.values()) for row in found] == [(ids[0], ids[1]), (ids[1], ids[2])]
        look = Inspection(lambda _: engine, (64, 64))
        end = End("U", Column("id", pa.uint64(), "id"))
        assert sorted(look.place_of(end, one) or 0 for one in ids) == [0, 1, 2]
        assert [look.incoming("R", end, end, one) for one in ids] == [0, 1, 1]


def test_labels_are_what_the_rows_say_whatever_the_footer_says(tmp_path: Path) -> None:
    path = tmp_path / "data/nodes/P/a.parquet"
    put(path, pa.table({"id": [1, 2], "labels": ["P,A1", "P,A2"]}), **PLAIN, compression="none")
    in_footer(path, b"P,A2", b"P,A1")
    with Parquet(path) as parquet:
        statistics = parquet.metadata.row_group(0).column(1).statistics
    assert statistics.min == statistics.max == "P,A1"
    assert label_counts(opened(tmp_path / "data")) == {"P": 2, "A1": 1, "A2": 1}
    assert values(tmp_path, "labels") == [["P", "A1"], ["P", "A2"]]


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("ns", "UTC"), pa.duration("ns")])
def test_moments_and_spans_are_never_cut_to_a_later_one(kind: pa.DataType) -> None:
    """A cast cuts towards zero, which is later before 1970."""
    least = -(2**63) + 1
    fine = pa.array([-1, -1000, -1001, 1999, 0, None, least], pa.int64()).view(kind)
    cut = floor_to_microseconds(fine)
    assert cut.type == (pa.duration("us") if pa.types.is_duration(kind) else pa.timestamp("us", kind.tz))
    assert cut.view(pa.int64()).to_pylist() == [-1, -1, -2, 1, 0, None, least // 1000]
