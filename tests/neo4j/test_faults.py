"""Faults of the files met while a load is under way, and batches that the server has no memory for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bgdeploy.errors import BadInput
from bgdeploy.targets.neo4j.bolt import batches
from bgdeploy.targets.neo4j.bolt.batches import Pace
from tests.neo4j.loading import loading_of
from tests.neo4j.servers import LTS, Community, NoServer, community, do_without
from tests.neo4j.test_loader import ask
from tests.neo4j.test_reader import damage

ROWS = 30_000


def things(rows: int, **columns: Any) -> pa.Table:
    return pa.table({"id": list(range(rows)), "size": list(range(rows)), **columns})


@pytest.mark.parametrize("part", ["nodes/Thing/b.parquet", "relationships/JOINS/a.parquet"])
def test_a_page_that_is_damaged_is_the_files_fault(lts_server: Community, tmp_path: Path, part: str) -> None:
    lts_server.empty()
    files = {
        "nodes/Thing/a.parquet": things(ROWS),
        "nodes/Thing/b.parquet": things(ROWS).set_column(0, "id", [list(range(ROWS, 2 * ROWS))]),
        "relationships/JOINS/a.parquet": pa.table({"source": [1] * ROWS, "target": [2] * ROWS, "size": list(range(ROWS))}),
    }  # fmt: skip
    one = loading_of(tmp_path, lts_server.uri, files, batch_rows=1000)
    damage(one.snapshot.path / part, "size")
    with pytest.raises(BadInput, match=rf"^{part}: column 'size' cannot be read, it is damaged: "):
        one.load()


def test_text_that_is_none_is_the_files_fault(lts_server: Community, tmp_path: Path) -> None:
    lts_server.empty()
    text = pa.array([b"fine"] * 7 + [b"\xff\xfe"] + [b"fine"] * 2).view(pa.string())
    files = {"nodes/Thing/a.parquet": things(10, text=["fine"] * 10), "nodes/Thing/b.parquet": things(10, text=text)}  # fmt: skip
    one = loading_of(tmp_path, lts_server.uri, files)
    with pytest.raises(BadInput, match=r"^nodes/Thing/b.parquet, row 8: column 'text' holds bytes"):
        one.load()


def test_a_batch_grows_again_after_some_went_well_and_ever_later() -> None:
    pace, sizes = Pace(1000), []
    pace.shrink(1000)
    for _ in range(2):
        while pace.rows < 1000:
            pace.went_well()
            sizes.append(pace.rows)
        pace.shrink(1000)
    assert sizes == [500] * 7 + [1000] + [500] * 15 + [1000]
    pace.shrink(60)
    assert pace.rows == 50


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    """A server whose transactions may take 2 MiB."""
    try:
        with community(
            tmp_path_factory.mktemp("small") / "home", LTS, **{"db.memory.transaction.max": "2m"}
        ) as one:
            yield one
    except NoServer as error:
        do_without(error)


def test_after_wide_rows_batches_grow_back(
    small_server: Community, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ["x" * 6_000] * 1000 + ["y"] * (ROWS - 1000)
    one = loading_of(
        tmp_path, small_server.uri, {"nodes/Thing/a.parquet": things(ROWS, text=text)}, batch_rows=1000
    )
    sizes: list[int] = []
    write = batches._write

    def noted(session: Any, parts: Any, move: Any) -> None:
        write(session, parts, move)
        sizes.append(move["next"] - move["at"])

    monkeypatch.setattr(batches, "_write", noted)
    one.options["concurrency"] = 1
    one.load()
    assert min(sizes[:-1]) < 500
    assert sizes[-2] > 2 * min(sizes[:-1])
    assert ask(small_server, "MATCH (n) RETURN count(*) AS n") == [{"n": ROWS}]
