"""A database against files that differ from it in one place: does the proof see it, and would a sample have?

    python -m benchmarks.mutations [how many] [seed]

A snapshot of all types is loaded for real. Then one thing is changed in a copy of its files, and the database is verified
against them: a value, two values of one column exchanged between rows, one row dropped and another doubled, an end
moved, NULL for an empty list, an element moved between two lists, integers written as equal floats.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bgdeploy.errors import VerifyFailed
from bgdeploy.pipeline.verify import expecting, verify
from bgdeploy.snapshots.rows import sample
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.targets.base import Group, Ticket
from bgdeploy.targets.ladybug import open_target

ROWS = 400
BASE = datetime.fromisoformat("2026-01-07T12:30:15.123456")
NODES, ENDS = "nodes/Thing/a.parquet", "relationships/JOINS/a.parquet"
Columns = dict[str, list[Any]]


def values(at: int) -> dict[str, Any]:
    """One row of every type; few distinct booleans and small integers, so that exchanges are hard to see."""
    some = at % 7 != 0
    return {
        "text": f"text {at}" if some else None,
        "coded": "abc"[at % 3],
        "big": (at - 200) * 2**45,
        "tiny": at % 120 - 60,
        "unsigned": at * 2**54 if some else None,
        "real": at * 0.1 if some else -0.0,
        "single": float(at) + 0.5,
        "half": float(at % 16) / 2,
        "price": Decimal(at - 200) / 100,
        "wide": Decimal(at) * 10**20,
        "day": date(1960, 1, 1) + timedelta(at),
        "moment": BASE + timedelta(microseconds=at * 1_000_001),
        "fine": BASE - timedelta(days=40_000 + at),
        "zoned": (BASE + timedelta(at)).replace(tzinfo=UTC),
        "clock": time(at % 24, at % 60, 1, at),
        "span": timedelta(days=at - 200, microseconds=at),
        "raw": bytes([at % 256, 0, at // 256]) if some else b"",
        "names": [f"n{at}", "x"] if some else [],
        "more": ["x", f"m{at}"] if at % 5 else [],
        "counts": [at, at + 1],
        "deep": [[at], [1, at]],
        "days": [date(2000, 1, 1) + timedelta(at)],
        "flag": at % 2 == 0,
        "last": at % 3,
    }


KINDS = {
    "text": pa.string(), "coded": pa.dictionary(pa.int32(), pa.string()), "big": pa.int64(), "tiny": pa.int8(), "unsigned": pa.uint64(),
    "real": pa.float64(), "single": pa.float32(), "half": pa.float16(), "price": pa.decimal128(9, 2), "wide": pa.decimal128(38, 0),
    "day": pa.date32(), "moment": pa.timestamp("us"), "fine": pa.timestamp("ns"), "zoned": pa.timestamp("us", "Europe/Berlin"),
    "clock": pa.time64("us"), "span": pa.duration("us"), "raw": pa.binary(), "names": pa.list_(pa.string()),
    "more": pa.list_(pa.string()), "counts": pa.list_(pa.int64()), "deep": pa.list_(pa.list_(pa.int64())),
    "days": pa.list_(pa.date32()), "flag": pa.bool_(), "last": pa.int8(), "id": pa.string(), "labels": pa.string(),
    "source": pa.string(), "target": pa.string(),
}  # fmt: skip


def columns(file: str) -> Columns:
    """The rows of one of the two files."""
    rows = [values(at) for at in range(ROWS)]
    found: Columns = {name: [row[name] for row in rows] for name in rows[0]}
    if file == NODES:
        ids = [f"t{at}" for at in range(ROWS)]
        return {"id": ids, "labels": ["Thing,Odd" if at % 2 else "Thing" for at in range(ROWS)], **found}
    source = [f"t{at * 7 % ROWS}" for at in range(ROWS)]
    return {"source": source, "target": [f"t{at * 13 % 50}" for at in range(ROWS)], **found}


def save(folder: Path, file: str, data: Columns, kinds: dict[str, pa.DataType] = KINDS) -> None:
    """Write one file."""
    place = folder / file
    place.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: pa.array(column, kinds[name]) for name, column in data.items()}
    pq.write_table(pa.table(arrays), place, row_group_size=150)


class Memory:
    """A ledger that only keeps the plan."""

    def __init__(self) -> None:
        self.groups: tuple[Group, ...] = ()

    def plan(self) -> tuple[Group, ...] | None:
        return self.groups or None

    def done(self) -> frozenset[int]:
        return frozenset()

    def store_plan(self, groups: Any) -> None:
        self.groups = tuple(groups)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@dataclass(frozen=True)
class Loaded:
    """A database of the unchanged files, and a folder to change them in."""

    root: Path
    groups: tuple[Group, ...]

    def open(self) -> Snapshot:
        """The files as they are now."""
        return open_snapshot("acme", 1, self.root / "data", {}, "")

    def sees(self) -> str | None:
        """Verify the database against the files as they are; return what the proof says, None where it sees nothing."""
        try:
            with expecting(self.open(), self.root / "scratch") as expected:
                verify(target(self.root), "acme-1", expected, self.groups)
        except VerifyFailed as error:
            return error.what
        return None

    def reset(self) -> None:
        """Bring the unchanged files back."""
        for file in (NODES, ENDS):
            shutil.copy(self.root / "kept" / file, self.root / "data" / file)


def target(root: Path) -> Any:
    """The embedded target with what it needs to know."""
    return open_target({"state_dir": str(root / "state"), "buffer_pool_mb": 256, "threads": 1})


def load(root: Path) -> Loaded:
    """Load the snapshot and return what it is compared with."""
    for file in (NODES, ENDS):
        for home in ("data", "kept"):
            save(root / home, file, columns(file))
    snapshot = open_snapshot("acme", 1, root / "data", {}, "")
    ledger = Memory()
    settings = {"buffer_pool_mb": 256, "threads": 1, "group_rows": 8_000_000}
    target(root).load(Ticket(1, "acme-1", 1, settings), snapshot, ledger)
    return Loaded(root, ledger.groups)


def change_value(data: Columns, rng: random.Random) -> str:
    """Another value of its type in one place."""
    name = rng.choice([name for name in data if name not in ("id", "source", "target")])
    at = rng.randrange(ROWS)
    others = [one for one in data[name] if one != data[name][at]]
    data[name][at] = rng.choice(others)
    return name


def swap(data: Columns, rng: random.Random) -> str:
    """Two values of one column exchanged between two rows."""
    name = rng.choice([name for name in data if name not in ("id", "source", "target")])
    one = rng.randrange(ROWS)
    two = rng.choice([at for at in range(ROWS) if data[name][at] != data[name][one]])
    data[name][one], data[name][two] = data[name][two], data[name][one]
    return name


def swap_last(data: Columns, rng: random.Random) -> str:
    """The same for booleans and small integers in the last columns."""
    name = rng.choice(["flag", "last"])
    one = rng.randrange(ROWS)
    two = rng.choice([at for at in range(ROWS) if data[name][at] != data[name][one]])
    data[name][one], data[name][two] = data[name][two], data[name][one]
    return name


def double(data: Columns, rng: random.Random) -> str:
    """One row dropped and another there twice; of relationships only, since ids of nodes are unique."""
    one, two = rng.sample(range(ROWS), 2)
    for column in data.values():
        column[one] = column[two]
    return "row"


def move_end(data: Columns, rng: random.Random) -> str:
    """A relationship that ends elsewhere."""
    name, at = rng.choice(["source", "target"]), rng.randrange(ROWS)
    data[name][at] = f"t{(int(data[name][at][1:]) + rng.randrange(1, ROWS)) % ROWS}"
    return name


def empty_list(data: Columns, rng: random.Random) -> str:
    """NULL for an empty list, or an empty list for NULL."""
    name = rng.choice(["names", "more"])
    data[name][rng.choice([at for at in range(ROWS) if data[name][at] == []])] = None
    return name


def move_element(data: Columns, rng: random.Random) -> str:
    """The last element of one list becomes the first of the next."""
    at = rng.choice([at for at in range(ROWS) if data["names"][at]])
    *kept, moved = data["names"][at]
    data["names"][at], data["more"][at] = kept, [moved, *data["more"][at]]
    return "names, more"


WAYS = (change_value, swap, swap_last, double, move_end, empty_list, move_element)


def mutations(many: int, seed: int) -> Iterator[tuple[str, str, str, Columns]]:
    """Yield so many changes: what was done, to which column of which file, and its rows then."""
    rng = random.Random(seed)
    for number in range(many):
        way = WAYS[number % len(WAYS)]
        file = ENDS if way in (double, move_end) else rng.choice([NODES, ENDS])
        data = columns(file)
        yield way.__name__, way(data, rng), file, data


def as_floats(loaded: Loaded) -> str | None:
    """Integers written as equal floats."""
    save(loaded.root / "data", NODES, columns(NODES), {**KINDS, "tiny": pa.float32()})
    said = loaded.sees()
    loaded.reset()
    return said


def sampled(loaded: Loaded, file: str, data: Columns) -> bool:
    """Whether the 100 rows that an earlier version compared hold one that is not as it was."""
    table = loaded.open().nodes[0] if file == NODES else loaded.open().relationships[0]
    before = columns(file)
    keys = ("id",) if file == NODES else ("source", "target")
    kept = Counter(str([before[name][at] for name in before]) for at in range(ROWS))
    odd = {
        tuple(data[key][at] for key in keys)
        for at in range(ROWS)
        if str([data[name][at] for name in data]) not in kept
    }
    return any(one.key in odd for one in sample(loaded.open(), table, 100))


def main() -> None:
    """Print how many were seen, and how many a sample would have."""
    many, seed = (int(text) for text in (*sys.argv[1:], "1000", "1")[:2])
    with tempfile.TemporaryDirectory() as folder:
        loaded = load(Path(folder))
        assert loaded.sees() is None, loaded.sees()
        seen: Counter[str] = Counter()
        tried: Counter[str] = Counter()
        by_sample = 0
        for way, column, file, data in mutations(many, seed):
            save(loaded.root / "data", file, data)
            tried[way] += 1
            if loaded.sees() is None:
                print(f"MISSED: {way} of {column} in {file}")
            else:
                seen[way] += 1
            by_sample += sampled(loaded, file, data)
            loaded.reset()
        assert as_floats(loaded) is not None
        for way in tried:
            print(f"{way:14} {seen[way]:5,} of {tried[way]:5,}")
        print(
            f"all            {seen.total():5,} of {tried.total():5,}; a sample of 100 of {ROWS} rows: {by_sample:,}"
        )


if __name__ == "__main__":
    main()
