"""Snapshots that are wrong in one way each, with the error that each of them ends in."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.snapshots.folders import write

PEOPLE = {"nodes/Person/a.parquet": {"id": ["p1", "p2"], "name": ["Ada", "Bo"]}}
KNOWS = {"relationships/KNOWS/a.parquet": {"source": ["p1"], "target": ["p2"]}}
GOOD = {**PEOPLE, **KNOWS}
Make = Callable[[Path], object]


def files(more: dict[str, Any], base: dict[str, Any] = GOOD) -> Make:
    """Write a good snapshot (or another ``base``) and these files beside or over it."""
    return lambda folder: write(folder, {**base, **more})


def node(**columns: Any) -> Make:
    """Nodes alone, of these columns."""
    return files({"nodes/Person/a.parquet": pa.table(columns)}, {})


def relationship(**columns: Any) -> Make:
    """Good nodes, and relationships of these columns."""
    return files({"relationships/KNOWS/a.parquet": pa.table(columns)})


def parquet(**columns: Any) -> bytes:
    """The bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="none", use_dictionary=False)
    return bytes(sink.getvalue().to_pybytes())


def half(content: bytes) -> bytes:
    """What a copy that was cut off leaves."""
    return content[: len(content) // 2]


def torn(content: bytes) -> bytes:
    """A file whose footer is whole and whose pages are not."""
    return content[:4] + bytes(60) + content[64:]


def linked(path: str, to: str) -> Make:
    """A good snapshot in which one path is a link; ``to`` may name what lies beside the base folder."""

    def make(folder: Path) -> None:
        write(folder, GOOD)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(to, folder / path)

    return make


def piped(folder: Path) -> None:
    """A good snapshot with a pipe that bears a file's name: reading it would never end."""
    write(folder, GOOD)
    os.mkfifo(folder / "nodes/Person/b.parquet")


def same_names(folder: Path) -> None:
    """A file with two columns of one name, which some writers make."""
    table = pa.Table.from_arrays([pa.array(["p1"]), pa.array([1]), pa.array([2])], names=["id", "age", "age"])
    write(folder, {"nodes/Person/a.parquet": table})


def no_columns(folder: Path) -> None:
    """A file with rows and without a column."""
    write(folder, {"nodes/Person/a.parquet": pa.table({})})


def empty_folder(folder: Path) -> None:
    """Relationships, and a folder nodes/ with nothing in it."""
    write(folder, KNOWS)
    (folder / "nodes").mkdir()


PERSON = {"id": ["p1"]}
WIDE = Decimal("1" * 50)
# name -> how to make it; all of these claim to be complete (_SUCCESS).
BAD: dict[str, tuple[Make, str]] = {
    # files
    "no nodes folder": (
        files({}, KNOWS),
        "{here}/data/acme/{n} has no folder nodes/. "
        "Nothing of it was loaded. Lay the files out as nodes/<Label>/*.parquet, relationships/<TYPE>/*.parquet and relationships/<TYPE>/from=<Label>/to=<Label>/*.parquet.",
    ),
    "an empty nodes folder": (
        empty_folder,
        "{here}/data/acme/{n}/nodes holds no Parquet files. "
        "Nothing of it was loaded. Put each label's files into nodes/<Label>/.",
    ),
    "no Parquet at all": (
        files({"nodes/Person/b.parquet": b"id,name\np3,Cy\n"}),
        "nodes/Person/b.parquet does not open as a Parquet file: Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file. "
        "Nothing of the snapshot was loaded. Write it anew; the snapshot is looked at again by itself when it has changed.",
    ),
    "half a Parquet file": (
        files({"nodes/Person/b.parquet": half(parquet(id=["p3"], name=["Cy"]))}),
        "nodes/Person/b.parquet does not open as a Parquet file: Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file. "
        "Nothing of the snapshot was loaded. Write it anew; the snapshot is looked at again by itself when it has changed.",
    ),
    "an empty file": (
        files({"nodes/Person/b.parquet": b""}),
        "nodes/Person/b.parquet does not open as a Parquet file: Parquet file size is 0 bytes. "
        "Nothing of the snapshot was loaded. Write it anew; the snapshot is looked at again by itself when it has changed.",
    ),
    "damaged pages": (
        files({"nodes/Person/b.parquet": torn(parquet(id=["p3"] * 50))}),
        "nodes/Person/b.parquet is damaged: TProtocolException: Invalid data. "
        "What is live stays live; the build was deleted. Write it again.",
    ),
    "still packed": (
        files({"nodes/Person/b.parquet.gz": b"..."}),
        "nodes/Person/b.parquet.gz looks like a Parquet file that is packed or half copied. "
        "Nothing of it was loaded. Finish copying or unpack it, or begin its name with '.' to leave it out.",
    ),
    "CSV": (
        files({"nodes/City/cities.csv": b"id\n1\n"}),
        "nodes/City/cities.csv is no Parquet file, and nothing in a table's folder is left out silently. "
        "Nothing of it was loaded. Write it as Parquet, move it out of nodes/, or begin its name with '.' to leave it out.",
    ),
    "CSV beside Parquet": (
        files({"nodes/Person/b.csv": b"id\np3\n"}),
        "nodes/Person/b.csv is no Parquet file, and nothing in a table's folder is left out silently. "
        "Nothing of it was loaded. Write it as Parquet, move it out of nodes/, or begin its name with '.' to leave it out.",
    ),
    "a Delta table": (
        files({"relationships/KNOWS/_delta_log/00000000000000000000.json": b"{}"}),
        "relationships/KNOWS is a Delta Lake table (relationships/KNOWS/_delta_log): its log decides which files and rows count, so its files alone are not the table. "
        "Nothing of it was loaded. Export the table as a plain folder of Parquet files, for instance with DuckDB: COPY (FROM delta_scan('<table>')) TO '<folder>/part-0.parquet'.",
    ),
    "a manifest that contradicts the marker": (
        files({"manifest.json": b'{"files": [{"path": "nodes/Person/a.parquet", "size": 1}]}'}),
        "The snapshot is not what its manifest says, though _SUCCESS is there: manifest.json says 1 bytes for nodes/Person/a.parquet, which has {n}. "
        "Nothing of the snapshot was loaded. Write the file or the manifest again, or remove manifest.json; it is looked at again by itself when either has changed.",
    ),
    "no rows": (
        files({}, {"nodes/Person/a.parquet": pa.table({"id": pa.array([], pa.string())})}),
        "Empty snapshot: no file of {here}/data/acme/{n} has a row. "
        "Nothing of the snapshot was loaded. Write it again.",
    ),
    "a pipe": (
        piped,
        "nodes/Person/b.parquet is not a file. "
        "Nothing of it was loaded. Copy the data itself into the snapshot.",
    ),
    "a name with a line break": (
        files({"nodes/Person/b\n.parquet": PERSON}),
        "The name 'nodes/Person/b\\n.parquet' holds characters that are no text. "
        "Nothing of it was loaded. Rename it.",
    ),
    # links
    "a link out of the snapshot": (
        linked("nodes/Person/b.parquet", "/etc/hostname"),
        "nodes/Person/b.parquet is a link that leads out of the snapshot. "
        "Nothing of it was loaded. Copy the data itself into the snapshot.",
    ),
    "a link to nowhere": (
        linked("nodes/Person/b.parquet", "gone.parquet"),
        "nodes/Person/b.parquet is a link that leads nowhere. "
        "Nothing of it was loaded. Copy the data itself into the snapshot.",
    ),
    "a folder of links": (
        linked("nodes/City", "Person"),
        "nodes/City is a link to a folder. Nothing of it was loaded. Copy the data itself into the snapshot.",
    ),
    # folders
    "a file beside the labels": (
        files({"nodes/b.parquet": PERSON}),
        "nodes/b.parquet lies directly in nodes/. Nothing of it was loaded. Move it into nodes/<Label>/.",
    ),
    "a file beside the types": (
        files({"relationships/b.parquet": {"source": ["p1"], "target": ["p2"]}}),
        "relationships/b.parquet lies directly in relationships/. "
        "Nothing of it was loaded. Move it into relationships/<TYPE>/.",
    ),
    "a file beside nodes/": (
        files({"b.parquet": PERSON}),
        "The snapshot's own folder holds Parquet files (b.parquet). "
        "Nothing of it was loaded. Lay the files out as nodes/<Label>/*.parquet, relationships/<TYPE>/*.parquet and relationships/<TYPE>/from=<Label>/to=<Label>/*.parquet.",
    ),
    "a folder in a label": (
        files({"nodes/Person/more/b.parquet": PERSON}),
        "The folder nodes/Person/more holds files, but a table has no folders inside but those of columns. "
        "Nothing of it was loaded. Name it <column>=<value> where it is a column, or move its files into nodes/Person/ under names that are not taken there.",
    ),
    "a column in the file and in its folder": (
        files({}, {"nodes/Person/id=p1/a.parquet": PERSON}),
        "nodes/Person/id=p1/a.parquet: column 'id' is in the file and in the name of its folder too. "
        "Nothing of the snapshot was loaded. Leave it out of the files, or give the folders another name.",
    ),
    "an id that is not named": (
        node(full_name=["Ada"], dept=["a"], person_id=[1]),
        "nodes/Person/a.parquet has no column for the id by its name (it has full_name, dept, person_id), and its second column is no labels column, so that the first might be anything. "
        'Nothing of the snapshot was loaded. Declare the id in config.yaml, dataset: {columns: {id: [nodeId, id, ":ID", <its column>]}}, restart bgdeploy serve, and: bgdeploy retry --all-failed. '
        "Where the first column is the id in all such files: set dataset.columns.by_position to true.",
    ),
    "ends that are not named and are none": (
        relationship(who=["Ada"], whom=["p2"], since=[1999]),
        "Write the missing nodes or leave their relationships out: 1 row of relationships/KNOWS has a source id that no node has, of Person ('Ada' in relationships/KNOWS/a.parquet row 1). "
        "relationships/KNOWS/a.parquet has no columns for the ends by their names (it has who, whom, since), so their position counted: 'who' as the source id and 'whom' as the target id. "
        "If these are no ends: Declare the source id and the target id in config.yaml, "
        'dataset: {columns: {source: [sourceNodeId, source, src, from, ":START_ID", <its column>], target: [targetNodeId, target, dst, to, ":END_ID", <its column>]}}, restart bgdeploy serve, and: bgdeploy retry --all-failed. '
        "What is live stays live; the build was deleted. All of them: bgdeploy jobs offenders {n} --output offenders.csv",
    ),
    "one end declared": (
        files({"relationships/OWNS/from=Person/a.parquet": KNOWS["relationships/KNOWS/a.parquet"]}),
        "The folder relationships/OWNS/from=Person does not declare both ends as from=<Label>/to=<Label>. "
        "Nothing of it was loaded. Name it relationships/OWNS/from=<Label>/to=<Label>.",
    ),
    "an end with no label": (
        files({"relationships/OWNS/from=/to=Person/a.parquet": KNOWS["relationships/KNOWS/a.parquet"]}),
        "The folder relationships/OWNS/from=/to=Person declares no label in 'from='. "
        "Nothing of it was loaded. Write from=<Label>/to=<Label>.",
    ),
    "an end that is not there": (
        files({"relationships/OWNS/from=Person/to=Firm/a.parquet": KNOWS["relationships/KNOWS/a.parquet"]}),
        "relationships/OWNS declares the target label 'Firm'; nodes/ has no such folder. "
        "Nothing of the snapshot was loaded. Use one of Person.",
    ),
    "an empty label": (
        files({"nodes/Person:/b.parquet": PERSON}),
        "The folder nodes/Person: has an empty label in its name. "
        "Nothing of it was loaded. Name it nodes/<Label> or nodes/<Label>:<Label>.",
    ),
    "a label and a type of one name": (
        files({"relationships/Person/a.parquet": KNOWS["relationships/KNOWS/a.parquet"]}),
        "A label and a type are both named 'Person', which the database cannot tell apart. "
        "Nothing of the snapshot was loaded. Rename one of the folders, for instance to relationships/Person_REL.",
    ),
    "labels that differ in case": (
        files({"nodes/PERSON/a.parquet": PERSON}),
        "The label 'PERSON' and the label 'Person' differ only in case. "
        "Nothing of the snapshot was loaded. Rename one of the folders.",
    ),
    # columns
    "no column": (
        no_columns,
        "nodes/Person/a.parquet has no column for the id (it has none). "
        "Nothing of the snapshot was loaded. Name one of nodeId, id, :ID, or set dataset.columns.id.",
    ),
    "no target": (
        relationship(source=["p1"]),
        "relationships/KNOWS/a.parquet has no column for the target id (it has source). "
        "Nothing of the snapshot was loaded. Name one of targetNodeId, target, dst, to, :END_ID, or set dataset.columns.target.",
    ),
    "an unknown source": (
        relationship(start=["p1"], target=["p2"]),
        "relationships/KNOWS/a.parquet has no column for the source id (it has start, target). "
        "Nothing of the snapshot was loaded. Name one of sourceNodeId, source, src, from, :START_ID, or set dataset.columns.source.",
    ),
    "a number with a fraction as id": (
        node(id=[1.5]),
        "nodes/Person/a.parquet: column 'id' is the id but holds double. "
        "Nothing of the snapshot was loaded. Ids are strings or integers.",
    ),
    "a list as id": (
        node(id=[["p1"]]),
        "nodes/Person/a.parquet: column 'id' is the id but holds list<element: string>. "
        "Nothing of the snapshot was loaded. Ids are strings or integers.",
    ),
    "a moment as end": (
        relationship(source=pa.array([0], pa.timestamp("us")), target=["p2"]),
        "relationships/KNOWS/a.parquet: column 'source' is the source id but holds timestamp[us]. "
        "Nothing of the snapshot was loaded. Ids are strings or integers.",
    ),
    "labels that are numbers": (
        node(id=["p1"], labels=[7]),
        "nodes/Person/a.parquet: column 'labels' is the labels but holds int64. "
        "Nothing of the snapshot was loaded. Make it a string or a list of strings, rename it if it is a property, or set dataset.columns.labels.",
    ),
    "ids of two kinds": (
        relationship(source=[1], target=[2]),
        "relationships/KNOWS/a.parquet: column 'source' (source id) holds int64, but the nodes it could join have string ids (nodes/Person/a.parquet). "
        "Nothing of the snapshot was loaded. Write ids with one type in nodes and relationships.",
    ),
    "another type": (
        relationship(source=["p1"], target=["p2"], type=["LIKES"]),
        "relationships/KNOWS/a.parquet, row 1: 'type' is 'LIKES', but the folder says 'KNOWS'. "
        "What is live stays live. Move such rows to a folder of their own, or rename the column if it is a property.",
    ),
    "a struct": (
        node(id=["p1"], home=[{"city": "Bonn"}]),
        "nodes/Person/a.parquet: column 'home' holds struct<city: string>, which would not arrive unharmed. "
        "Nothing of the snapshot was loaded. Use one column for each field.",
    ),
    "a map": (
        node(id=["p1"], more=pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))),
        "nodes/Person/a.parquet: column 'more' holds map<string, int64 ('more')>, which would not arrive unharmed. "
        "Nothing of the snapshot was loaded. Use one column for each field.",
    ),
    "fifty digits": (
        node(id=["p1"], price=pa.array([WIDE], pa.decimal256(60, 0))),
        "nodes/Person/a.parquet: column 'price' holds decimal256(60, 0), which would not arrive unharmed. "
        "Nothing of the snapshot was loaded. Use decimals of at most 38 digits outside of lists, float64, or a string.",
    ),
    "nanoseconds": (
        node(id=["p1"], at=pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))),
        "nodes/Person/a.parquet: column 'at' holds a value that the database cannot hold whole: Casting from timestamp[ns] to timestamp[us] would lose data: 1700000000123456789. "
        "What is live stays live; the build was deleted. Write times in microseconds, or as a string.",
    ),
    "two types in two files": (
        files({"nodes/Person/b.parquet": {"id": ["p3"], "name": [3]}}),
        "The files of label Person differ: nodes/Person/a.parquet and nodes/Person/b.parquet: column 'name' holds string in the first and int64 in the second. "
        "Nothing of the snapshot was loaded. Write the column with one type in all files of the table, or rename it in one of them.",
    ),
    "two columns of one name": (
        same_names,
        "nodes/Person/a.parquet has two columns 'age'. "
        "Nothing of the snapshot was loaded. Rename one of them.",
    ),
    "columns that differ in case": (
        node(id=["p1"], age=[1], Age=[2]),
        "nodes/Person/a.parquet: columns 'age' and 'Age' differ only in case. "
        "Nothing of the snapshot was loaded. Rename one of them.",
    ),
    "a property called labels": (
        node(id=["p1"], Labels=["x"]),
        "nodes/Person/a.parquet: column 'Labels' meets the property 'labels' that every node is given. "
        "Nothing of the snapshot was loaded. Rename the column, or name it in dataset.columns.labels.",
    ),
    "a reserved name": (
        node(id=["p1"], _id=[1]),
        "nodes/Person/a.parquet: the column name '_id' is reserved by the database. "
        "Nothing of the snapshot was loaded. Rename the column, for instance to 'id'.",
    ),
    "a column without a name": (
        node(**{"id": ["p1"], " ": [1]}),
        "nodes/Person/a.parquet: the column name ' ' is empty or holds characters that are no text. "
        "Nothing of the snapshot was loaded. Rename the column.",
    ),
    "labels without end": (
        files(
            {
                "nodes/Person/b.parquet": {
                    "id": [f"q{n}" for n in range(10_001)],
                    "labels": [f"L{n}" for n in range(10_001)],
                }
            }
        ),
        "nodes/Person/b.parquet: column 'labels' holds over 10,000 different labels. "
        "What is live stays live. If it is a property, rename it or set dataset.columns.labels.",
    ),
    # ids
    "an id that is null": (
        node(id=["p1", None]),
        "Leave out rows without an id: 1 row of nodes/Person has no id (nodes/Person/a.parquet row 2). "
        "What is live stays live; the build was deleted. All of them: bgdeploy jobs offenders {n} --output offenders.csv",
    ),
    "an id twice": (
        node(id=["p1", "p2", "p1"]),
        "Write every node once: 1 row of nodes/Person repeats an id ('p1' in nodes/Person/a.parquet rows 1 and 3). "
        "What is live stays live; the build was deleted. All of them: bgdeploy jobs offenders {n} --output offenders.csv",
    ),
    "a dangling end": (
        relationship(source=["p1", "p1"], target=["p2", "p9"]),
        "Write the missing nodes or leave their relationships out: 1 row of relationships/KNOWS has a target id that no node has, of Person "
        "('p9' in relationships/KNOWS/a.parquet row 2). "
        "What is live stays live; the build was deleted. All of them: bgdeploy jobs offenders {n} --output offenders.csv",
    ),
    "an end that is null": (
        relationship(source=["p1", None], target=["p2", "p2"]),
        "Leave out rows without an id: 1 row of relationships/KNOWS has no source id (relationships/KNOWS/a.parquet row 2). "
        "What is live stays live; the build was deleted. All of them: bgdeploy jobs offenders {n} --output offenders.csv",
    ),
    "an id of two labels": (
        files({"nodes/Firm/a.parquet": {"id": ["p1", "f1"]}}),
        "Declare the ends (relationships/KNOWS/from=<Label>/to=<Label>/*.parquet): 1 row of relationships/KNOWS has a source id "
        "that several labels share, of Firm, Person ('p1' in relationships/KNOWS/a.parquet row 1). "
        "What is live stays live. All of them: bgdeploy jobs offenders {n} --output offenders.csv",
    ),
    # values
    "text that is no text": (
        node(
            id=["p1"],
            name=pa.Array.from_buffers(
                pa.string(), 1, [None, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")]
            ),
        ),
        "nodes/Person/a.parquet, row 1: column 'name' holds bytes that are no text (UTF-8). "
        "What is live stays live. Write it as UTF-8, or the column as binary.",
    ),
    "an id that is no text": (
        node(
            id=pa.Array.from_buffers(
                pa.string(), 1, [None, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")]
            )
        ),
        "nodes/Person/a.parquet, row 1: column 'id' holds bytes that are no text (UTF-8). "
        "What is live stays live. Write it as UTF-8, or the column as binary.",
    ),
    "a moment beyond the year 9999": (
        node(id=["p1"], at=pa.array([2**62], pa.timestamp("us"))),
        "nodes/Person/a.parquet: column 'at' holds a day or a moment outside of the years 1 to 9999. "
        "Nothing of the snapshot was loaded. Write null for what has no date, or check the unit (seconds, milliseconds, microseconds).",
    ),
    "a moment of the last kind": (
        node(id=["p1"], at=pa.array([2**63 - 1], pa.timestamp("ms"))),
        "nodes/Person/a.parquet: column 'at' holds a day or a moment outside of the years 1 to 9999. "
        "Nothing of the snapshot was loaded. Write null for what has no date, or check the unit (seconds, milliseconds, microseconds).",
    ),
    "a span beyond all": (
        node(id=["p1"], at=pa.array([2**62], pa.duration("s"))),
        "nodes/Person/a.parquet: column 'at' holds a value that the database cannot hold whole: Casting from duration[s] to duration[us] would result in out of bounds timestamp: 4611686018427387904. "
        "What is live stays live; the build was deleted. Write times in microseconds, or as a string.",
    ),
    "a day beyond": (
        node(id=["p1"], at=pa.array([2**31 - 1], pa.date32())),
        "nodes/Person/a.parquet: column 'at' holds a day or a moment outside of the years 1 to 9999. "
        "Nothing of the snapshot was loaded. Write null for what has no date, or check the unit (seconds, milliseconds, microseconds).",
    ),
    "a type that only its program knows": (
        node(
            id=["p1"],
            at=pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())),
        ),
        "nodes/Person/a.parquet: column 'at' holds arrow.bool8 (int8), which would not arrive unharmed. "
        "Nothing of the snapshot was loaded. Use a boolean.",
    ),
}
