"""What holds of the embedded target alone: files, links, and readers that keep what they opened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgdeploy.errors import TargetError
from bgdeploy.targets.base import Target
from bgdeploy.targets.ladybug import open_reader, open_target
from bgdeploy.targets.ladybug.engine import QueryFailed
from tests.house import House, make_house, make_removable

FIRST = 1700000001
LATER = 2**40  # generations that no run has come to


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    house = make_house(tmp_path_factory.mktemp("template"))
    for number in range(3):
        house.drop("acme", FIRST + number, rows=50 + 50 * number)
    house.run("run", "--timeout", "60")
    yield house.folder
    make_removable(house.folder)


@pytest.fixture
def house(copied: House) -> House:
    return copied


@pytest.fixture
def settings(house: House) -> dict[str, object]:
    return {"state_dir": str(house.folder / "state"), "buffer_pool_mb": 64, "threads": 1}


@pytest.fixture
def target(settings: dict[str, object]) -> Target:
    return open_target(settings)


def test_an_alias_never_points_at_what_was_damaged_since(target: Target, house: House) -> None:
    graph = house.folder / "state/databases" / f"acme-{FIRST + 1}" / "graph.lbug"
    graph.chmod(0o644)
    with open(graph, "r+b") as file:
        file.truncate(40_000)
    with pytest.raises(TargetError, match="damaged"):
        target.switch("acme", f"acme-{FIRST + 1}", LATER)
    assert target.alias("acme") == f"acme-{FIRST + 2}"


def test_no_query_leaves_anything_beside_a_published_database(
    settings: dict[str, object], house: House
) -> None:
    folder = house.folder / "state/databases" / f"acme-{FIRST + 2}"
    before = sorted(path.name for path in folder.iterdir())
    with open_reader(settings, "acme") as reader:
        for cypher in ("CHECKPOINT", "RETURN 1; CHECKPOINT", f"EXPORT DATABASE '{house.folder}/out'"):
            with pytest.raises(QueryFailed):
                reader.query(cypher)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert not (house.folder / "out").exists()
    with open_reader(settings, "acme") as reader:
        assert reader.query("MATCH (n) RETURN count(*) AS n") == [{"n": 90}]


def test_readers_see_neither_error_nor_mixture_during_hundreds_of_switches(
    target: Target, settings: dict[str, object]
) -> None:
    sizes = {f"acme-{FIRST + 1}": 60, f"acme-{FIRST + 2}": 90}
    over, faults, reads = threading.Event(), [], [0]

    def read() -> None:
        while not over.is_set():
            with open_reader(settings, "acme") as reader:
                found = reader.query("MATCH (n) RETURN count(*) AS n")[0]["n"]
                if found != sizes[reader.database]:
                    faults.append((reader.database, found))
            reads[0] += 1

    def guarded() -> None:
        try:
            read()
        except Exception as error:
            faults.append(error)

    readers = [threading.Thread(target=guarded) for _ in range(3)]
    for reader in readers:
        reader.start()
    names = list(sizes)
    for generation in range(300):  # a thousand: benchmarks/switches.py
        target.switch("acme", names[generation % 2], LATER + generation)
    over.set()
    for reader in readers:
        reader.join()
    assert faults == []
    assert reads[0] > 0


def test_an_open_reader_outlives_a_switch_and_a_drop(target: Target, settings: dict[str, object]) -> None:
    with open_reader(settings, "acme") as reader:
        assert not reader.stale()
        target.switch("acme", f"acme-{FIRST + 1}", LATER)
        target.drop(f"acme-{FIRST + 2}", 7)
        assert reader.stale()
        assert reader.query("MATCH (n) RETURN count(*) AS n")[0]["n"] == 90


def test_published_files_are_read_only(house: House, target: Target) -> None:
    folder = Path(house.folder / "state/databases" / f"acme-{FIRST + 2}")
    assert folder.stat().st_mode & 0o777 == 0o555
    assert (folder / "graph.lbug").stat().st_mode & 0o777 == 0o444
    assert sorted(path.name for path in folder.iterdir()) == ["facts.json", "graph.lbug"]
