"""A database is read back in pages that fit into memory, whatever its shape; each page counts once."""

from __future__ import annotations

import re
import shutil
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.mutations import Loaded, Memory, target
from bgdeploy.errors import BadInput, TargetError, VerifyFailed
from bgdeploy.pipeline.verify import expecting, verify
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.targets.base import End, Ticket
from bgdeploy.targets.ladybug import inspection
from tests.snapshots.folders import write


def load(root: Path, files: dict[str, Any], pool_mb: int = 256) -> Loaded:
    write(root / "data", files)
    snapshot = open_snapshot("acme", 1, root / "data", {}, "")
    ledger = Memory()
    settings = {"buffer_pool_mb": pool_mb, "threads": 2, "group_rows": 8_000_000}
    target(root).load(Ticket(1, "acme-1", 1, settings), snapshot, ledger)
    return Loaded(root, ledger.groups)


def test_hubs_gaps_and_wide_rows_are_read_back_whole_in_small_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One node has more relationships than a page holds, others have none; one text is as large as a page."""
    many = 3_000
    wide = ["x" * 200_000 if at == 700 else f"name {at}" for at in range(many)]
    source = [0] * 2_500 + [at % 7 + 1_000 for at in range(1_500)] + [many - 1]
    loaded = load(
        tmp_path,
        {
            "nodes/P/a.parquet": pa.table({"id": list(range(many)), "name": wide}),
            "relationships/R/a.parquet": pa.table(
                {"source": source, "target": [at % many for at in range(len(source))], "at": list(range(len(source)))}
            ),
        },
    )  # fmt: skip
    monkeypatch.setattr(inspection, "_FIRST_PAGE", 100)
    monkeypatch.setattr(inspection, "_MOST_NODES", 256)
    monkeypatch.setattr(inspection, "_MOST_ROWS", 300)
    monkeypatch.setattr(inspection, "_PAGE_BYTES", 10_000)
    with target(tmp_path).inspect("acme-1") as look:
        nodes, ends = loaded.open().tables
        end = End("P", nodes.key("id"))
        pages = [page.num_rows for page in look.nodes(end, nodes.properties, labels=False)]
        joins = [page.num_rows for page in look.relationships("R", end, end, ends.properties)]
    assert sum(pages) == many
    assert len(pages) > 12
    assert min(pages) < 20  # after the wide row
    assert sum(joins) == len(source)
    assert max(joins) <= 300
    assert loaded.sees() is None


def test_an_id_that_two_labels_have_is_no_end_of_an_undeclared_relationship(tmp_path: Path) -> None:
    """Footers that lie may have said that the ids of A and B lie apart: the proof looks for itself."""
    ends = pa.table({"source": ["x"], "target": ["y"]})
    loaded = load(
        tmp_path,
        {
            "nodes/A/a.parquet": pa.table({"id": ["x", "a"]}),
            "nodes/B/a.parquet": pa.table({"id": ["x", "y"]}),
            "relationships/R/from=A/to=B/a.parquet": ends,
        },
    )
    assert loaded.sees() is None
    shutil.rmtree(tmp_path / "data/relationships")
    write(tmp_path / "data", {"relationships/R/a.parquet": ends})
    assert "ids that several labels have  0         1" in str(loaded.sees())


def test_a_label_that_a_false_footer_kept_out_of_the_plan_is_searched_for_shared_ids(tmp_path: Path) -> None:
    """By honest footers A and C may both be joined, and the load is refused; by C's false bounds only A."""
    files: dict[str, Any] = {
        "nodes/A/a.parquet": pa.table({"id": ["k1", "k2"]}),
        "nodes/C/a.parquet": pa.table({"id": ["k1", "k2"], "n": [1, 2]}),
        "nodes/Empty/a.parquet": pa.table({"id": pa.array([], pa.string())}),
        "relationships/R/a.parquet": pa.table({"source": ["k1"], "target": ["k2"]}),
    }
    with pytest.raises(BadInput):
        load(tmp_path / "honest", files)
    write(tmp_path / "false/data", files)
    place = tmp_path / "false/data/nodes/C/a.parquet"
    content = place.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    lie = content[footer:].replace(b"k1", b"z1").replace(b"k2", b"z2")
    place.write_bytes(content[:footer] + lie)
    loaded = load(tmp_path / "false", {})
    assert {group.source_label for group in loaded.groups if group.kind == "relationship"} == {"A"}
    assert "R, source ids of A, C  ids that several labels have  0         2" in str(loaded.sees())


def test_a_value_that_changed_in_either_copy_of_a_relationship_is_found(tmp_path: Path) -> None:
    """The engine keeps what a relationship holds with its source and again with its target; questions read either."""
    many = 3_000
    texts = [f"{at:04} of the texts of this table" for at in range(many)]
    ends = {"source": [at * 7 % 500 for at in range(many)], "target": [at * 13 % 500 for at in range(many)]}
    loaded = load(
        tmp_path,
        {
            "nodes/A/a.parquet": pa.table({"id": list(range(500))}),
            "relationships/R/from=A/to=A/a.parquet": pa.table({**ends, "text": texts}),
        },
    )
    assert loaded.sees() is None
    graph = next(tmp_path.glob("state/builds/acme-1/graph*"))
    content, wanted = graph.read_bytes(), texts[1234].encode()
    copies = [at for at in range(len(content)) if content.startswith(wanted, at)]
    assert len(copies) == 2
    told = []
    for at in copies:
        graph.write_bytes(content[:at] + b"#" + content[at + 1 :])
        told.append(str(loaded.sees()))
        assert re.search(r"a\.parquet row 1,235 +text +1234 of.* +#234 of", told[-1]), told[-1]
    assert sum("read from its targets" in one for one in told) == 1
    graph.write_bytes(content)
    assert loaded.sees() is None


def test_both_copies_are_read_in_small_pages_whatever_hub_is_on_which_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = 2_000
    sources = [3] * 700 + [at % 900 for at in range(many - 700)]
    targets = [at % 900 for at in range(many - 900)] + [5] * 900
    rows = pa.table({"source": sources, "target": targets, "at": list(range(many))})
    loaded = load(
        tmp_path,
        {"nodes/P/a.parquet": pa.table({"id": list(range(900))}), "relationships/R/a.parquet": rows},
    )
    monkeypatch.setattr(inspection, "_MOST_ROWS", 300)
    nodes = loaded.open().nodes[0]
    end, held = End("P", nodes.key("id")), loaded.open().relationships[0].properties
    with target(tmp_path).inspect("acme-1") as look:
        for side in look.sides:
            pages = list(look.relationships("R", end, end, held, side=side))
            assert max(page.num_rows for page in pages) <= 300
            assert sorted(at for page in pages for at in page["c0"].to_pylist()) == list(range(many))
    assert loaded.sees() is None


def test_an_empty_snapshot_table_and_a_lost_one_are_told_apart(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        {
            "nodes/A/a.parquet": pa.table({"id": ["x", "a"], "n": pa.array([None, None], pa.int64())}),
            "nodes/Empty/a.parquet": pa.table({"id": pa.array([], pa.string())}),
        },
    )
    assert loaded.sees() is None
    write(tmp_path / "data", {"nodes/B/a.parquet": pa.table({"id": ["q"]})})
    with pytest.raises(VerifyFailed, match="B"), expecting(loaded.open(), tmp_path / "s") as expected:
        verify(target(tmp_path), "acme-1", expected, loaded.groups)


def test_right_files_of_odd_types_are_proven_right(tmp_path: Path) -> None:
    """Each was refused once, since the two halves brought it to another type or unit."""
    spans = [[timedelta(seconds=5)], None, []]
    loaded = load(
        tmp_path,
        {
            "nodes/T/a.parquet": pa.table(
                {
                    "id": [1, 2, 3],
                    "labels": ["A,\u00a0X", "T", None],
                    "at": pa.array([time(1, 2, 3), None, time(4)], pa.time64("us")),
                    "ats": pa.array([[time(1)], [], None], pa.list_(pa.time64("us"))),
                    "millis": pa.array(spans, pa.list_(pa.duration("ms"))),
                    "seconds": pa.array(spans, pa.list_(pa.duration("s"))),
                    "span": pa.array([timedelta(seconds=5), None, timedelta(-1)], pa.duration("ms")),
                }
            ),
            "nodes/T/b.parquet": pa.table(
                {
                    "id": [4],
                    "labels": ["T"],
                    "at": pa.nulls(1),
                    "ats": pa.array([[None]], pa.list_(pa.null())),
                }
            ),
            "nodes/U/a.parquet": pa.table({"id": pa.array([2**63 + 1, 7], pa.uint64())}),
            "nodes/S/a.parquet": pa.table({"id": [-5, -(2**62)]}),
            "relationships/R/a.parquet": pa.table({"source": [-5, 1], "target": [7, -(2**62)]}),
        },
    )
    assert loaded.sees() is None


def test_wide_relationships_come_in_smaller_pages(tmp_path: Path) -> None:
    load(
        tmp_path,
        {
            "nodes/P/a.parquet": pa.table({"id": list(range(100))}),
            "relationships/R/a.parquet": pa.table(
                {"source": [0] * 50 + list(range(50)), "target": [1] * 100, "text": ["x" * 500] * 100}
            ),
        },
    )
    snapshot = open_snapshot("acme", 1, tmp_path / "data", {}, "")
    nodes, ends = snapshot.tables
    end = End("P", nodes.key("id"))
    with target(tmp_path).inspect("acme-1") as look:
        pages = list(look.relationships("R", end, end, ends.properties, width=5_000_000))
    assert sum(page.num_rows for page in pages) == 100
    assert max(page.num_rows for page in pages) <= 10


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Narrow rows and wide ones in turn, of nodes and of relationships: no width of one page tells that of the next."""
    ids = list(range(20_000))
    texts = [f"{at} " * (1_100 if at % 10_000 > 3_000 else 1) for at in ids]
    return load(
        tmp_path_factory.mktemp("uneven"),
        {
            "nodes/P/a.parquet": pa.table({"id": ids, "text": texts}),
            "relationships/R/a.parquet": pa.table({"source": ids, "target": ids[::-1], "text": texts}),
        },
        pool_mb=1024,
    )


def test_pages_that_do_not_fit_are_read_smaller_by_an_engine_that_was_opened_again(
    uneven: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After about ten pages that failed, one engine gave wrong values or died."""
    monkeypatch.setattr(
        inspection.Inspection, "_rows_of", lambda *_: 1 << 20
    )  # every page is tried too large
    monkeypatch.setattr(inspection, "_POOL_MB", 32)
    opened: list[int] = []
    open_engine = inspection.open_engine

    def count(*where: Any, **how: Any) -> Any:
        opened.append(how["pool_mb"])
        return open_engine(*where, **how)

    monkeypatch.setattr(inspection, "open_engine", count)
    assert uneven.sees() is None
    assert len(opened) > 6
    assert {*opened} == {32}


def test_what_the_usual_memory_does_not_hold_is_read_with_all_that_is_allowed(
    uneven: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine reads 2,048 nodes at once, however few are asked for: smaller pages do not help there."""
    nodes = uneven.open().nodes[0]
    graph = next(uneven.root.glob("state/builds/acme-1/graph*"))

    def read(pool_mb: int) -> int:
        with inspection.inspected(graph, pool_mb=pool_mb, threads=1) as look:
            pages = look.nodes(End("P", nodes.key("id")), nodes.properties, labels=False)
            return sum(page.num_rows for page in pages)

    monkeypatch.setattr(inspection, "_POOL_MB", 8)
    assert read(64) == 20_000
    with pytest.raises(TargetError, match=r"One row of P .* ladybug.buffer_pool_mb \(8 MiB\)") as refused:
        read(8)
    assert "Raise ladybug.buffer_pool_mb" in str(refused.value)
