"""The tool's processes end with the loading process, however that ends; no server is needed for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bgdeploy.errors import NameTaken, TargetAway, TargetError, TargetFull
from bgdeploy.targets.neo4j.offline import load, store
from bgdeploy.targets.neo4j.offline.store import Place
from bgdeploy.targets.neo4j.offline.tool import Failed, Tool, run

MARK = "a-mark-of-this-test"
# As neo4j-admin does: a shell that starts the process which does the work.
FAMILY = '#!/bin/sh\necho "Nodes, started 2026-"\nsleep 1000 &\necho $! > started.new\nmv started.new started\nwait\n'
LOADER = (
    "import sys; from pathlib import Path; from bgdeploy.targets.neo4j.offline.tool import Tool, run; "
    "run(Tool(sys.argv[1], None), ['import'], Path(sys.argv[2]), sys.argv[3], lambda phase: None)"
)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def await_(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def marked(mark: str) -> list[int]:
    return [one.pid for one in psutil.process_iter() if store._carries(one, mark)]


@pytest.fixture
def family(tmp_path: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A loading process whose tool has a child of its own at work, and the number of that child."""
    command = [sys.executable, "-c", LOADER, write(tmp_path / "tool", FAMILY), str(tmp_path), MARK]
    loader = subprocess.Popen(command)
    await_((tmp_path / "started").exists)
    return loader, int((tmp_path / "started").read_text())


def test_the_whole_family_ends_when_the_loading_process_is_killed(
    family: tuple[subprocess.Popen[bytes], int],
) -> None:
    loader, worker = family
    assert worker in marked(MARK)
    loader.kill()
    loader.wait()
    await_(lambda: not marked(MARK))


def test_a_keeper_that_is_killed_fails_the_import_and_its_family_ends(
    family: tuple[subprocess.Popen[bytes], int],
) -> None:
    loader, _ = family
    keeper = next(one for one in psutil.Process(loader.pid).children() if store._carries(one, MARK))
    keeper.kill()
    assert loader.wait(20) == 1
    assert not marked(MARK)


def test_a_new_owner_ends_what_an_older_one_left_at_work_before_it_removes_the_store(tmp_path: Path) -> None:
    place, folder = _place(tmp_path), tmp_path / "build"
    folder.mkdir()
    note = store.open_note(folder, place, "acme-1")
    for one in note.folders:
        one.mkdir(parents=True)
    left = subprocess.Popen(["sleep", "1000"], env={**os.environ, store.MARK: note.mark})
    store.discard(folder)
    assert not marked(note.mark)
    left.wait(5)
    assert not any(one.exists() for one in note.folders)
    assert store.read_note(folder) is None
    store.discard(folder)  # again: there is nothing to do


def test_a_store_that_lies_there_already_is_never_touched(tmp_path: Path) -> None:
    place, folder = _place(tmp_path), tmp_path / "build"
    folder.mkdir()
    theirs = place.stores / "acme-1"
    theirs.mkdir(parents=True)
    (theirs / "neostore").write_text("theirs")
    with pytest.raises(NameTaken, match="bgdeploy did not make it"):
        store.open_note(folder, place, "acme-1")
    store.discard(folder)
    assert (theirs / "neostore").read_text() == "theirs"


def dumped(tmp_path: Path) -> tuple[store.Note, Path, Path]:
    """The note of a store that was dumped for other members, its build's folder, and the dump."""
    folder, seeds = tmp_path / "build", tmp_path / "seeds"
    folder.mkdir()
    seeds.mkdir()
    note = store.open_note(folder, _place(tmp_path), "acme-1")
    note = store.move_on(folder, note, "dumping", dump=str(seeds / "acme-1.dump"))
    assert not note.is_whole
    (seeds / "acme-1.dump").write_text("a dump")
    return store.move_on(folder, note, "dumped"), folder, seeds


def test_a_dump_goes_with_its_build_and_never_unseen(tmp_path: Path) -> None:
    note, folder, seeds = dumped(tmp_path)
    assert note.is_whole
    assert load.address_of(note) == (seeds / "acme-1.dump").as_uri()
    away = seeds.rename(tmp_path / "unmounted")
    with pytest.raises(TargetError, match="cannot be removed: No such file"):
        store.discard(folder)
    assert store.read_note(folder) == note
    away.rename(seeds)
    store.discard(folder)
    assert list(seeds.iterdir()) == []
    assert store.read_note(folder) is None


def test_a_dump_whose_folder_is_away_is_waited_for(tmp_path: Path) -> None:
    note, _, seeds = dumped(tmp_path)
    seeds.rename(tmp_path / "unmounted")
    assert note.is_whole
    with pytest.raises(TargetAway, match="may not be mounted"):
        load.address_of(note)


def test_a_dump_that_fails_keeps_the_store_and_leaves_nothing_half(tmp_path: Path) -> None:
    folder, seeds = tmp_path / "build", tmp_path / "seeds"
    for one in (folder, seeds):
        one.mkdir()
    note = store.move_on(folder, store.open_note(folder, _place(tmp_path), "acme-1"), "imported")
    for one in note.folders:
        one.mkdir(parents=True)
    half = f"#!/bin/sh\necho half > {seeds}/acme-1.dump\necho 'No space left on device'\nexit 1\n"
    tool = Tool(write(tmp_path / "tool", half), None)
    with pytest.raises(TargetFull, match="could not be dumped") as caught:
        load.dump(tool, note, folder, seeds, tmp_path / "conf", lambda phase: None)
    assert "store that was imported is kept" in caught.value.kept
    assert list(seeds.iterdir()) == []
    assert all(one.is_dir() for one in note.folders)
    assert (store.read_note(folder) or note).is_whole


def _place(root: Path) -> Place:
    return Place(root / "data/databases", root / "data/transactions", "", "", ())


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        ("echo 'Unknown option'; exit 64", Failed, "Unknown option"),
        ("kill -9 $$", TargetError, "was killed by signal 9"),
        ("kill -TERM $$", TargetError, "was killed by signal 15"),
    ],
)
def test_how_a_tool_ends_is_told(tmp_path: Path, script: str, kind: type[Exception], said: str) -> None:
    tool = Tool(write(tmp_path / "tool", f"#!/bin/sh\n{script}\n"), None)
    with pytest.raises(kind, match=said):
        run(tool, [], tmp_path, MARK, lambda phase: None)


def test_phases_are_told_as_the_tool_says_them(tmp_path: Path) -> None:
    lines = [
        "Suggested heap size is 1.000GiBNodes, started 2026-",
        "Prepare node index, started 2026-",
        "(3/4) Relationship linking 2026-",
    ]
    script = "#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines)
    told: list[str] = []
    run(Tool(write(tmp_path / "tool", script), None), [], tmp_path, MARK, told.append)
    assert told == ["nodes", "prepare node index", "relationship linking"]
