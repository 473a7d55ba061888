"""What is owed to a database that an alias left: kept until it is done, and never done to a live one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bgdeploy.errors import TargetError
from bgdeploy.finding import Finding
from bgdeploy.targets.neo4j import databases, standbys
from bgdeploy.targets.neo4j.checks import find_unprotected
from bgdeploy.targets.neo4j.statuses import Found


class Server:
    """Databases with their access; ``broken`` refuses to change any."""

    def __init__(self, **there: str) -> None:
        self.there, self.broken, self.verdict = dict(there), False, "online"
        self.durable: list[str] = []  # what a checkpoint was made of


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    def look(server: Any, name: str) -> Any:
        verdict = server.verdict if name in server.there else "absent"
        access = server.there.get(name, "")
        return SimpleNamespace(name=name, verdict=verdict, access=access, text="starting on b:7687")

    def make_durable(server: Any, name: str, note: Path, *, live: bool) -> None:
        server.durable.append(name)

    def set_access(server: Any, name: str, *, read_only: bool) -> None:
        if server.broken:
            raise TargetError("You may not do that.")
        server.there[name] = "read-only" if read_only else "read-write"

    monkeypatch.setattr(databases, "look", look)
    monkeypatch.setattr(databases, "make_durable", make_durable)
    monkeypatch.setattr(databases, "set_access", set_access)
    return Server(old="read-write", new="read-write")


def said(state: Path) -> list[Finding]:
    return list(find_unprotected({"state_dir": str(state)}))


def test_what_cannot_be_protected_stays_owed_with_the_reason(server: Any, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    standbys.owe(builds, "old")
    server.broken = True
    standbys.protect(server, builds, live=("new",))
    assert server.there == {"old": "read-write", "new": "read-write"}
    assert said(tmp_path)[0].what == "old is no longer live and still not read-only: You may not do that."
    server.broken = False
    for _ in range(2):
        standbys.protect(server, builds, live=("new",))
        assert server.there == {"old": "read-only", "new": "read-write"}
        assert set(server.durable) == {"old"}
        assert [one.verdict for one in said(tmp_path)] == ["ok"]


def test_what_is_not_online_at_the_moment_stays_owed(server: Any, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    standbys.owe(builds, "old")
    server.verdict = "coming"
    standbys.protect(server, builds, live=("new",))
    assert standbys.owed(builds) == {"old": "old cannot be made read-only now: starting on b:7687."}
    server.verdict = "online"
    standbys.protect(server, builds, live=("new",))
    assert server.there["old"] == "read-only"


def test_what_is_about_to_be_live_is_owed_nothing(tmp_path: Path) -> None:
    standbys.owe(tmp_path, "old")
    standbys.forgive(tmp_path, "old")
    standbys.forgive(tmp_path, "old")
    assert standbys.owed(tmp_path) == {}


def test_a_note_that_cannot_be_written_is_told_before_the_move(tmp_path: Path) -> None:
    (tmp_path / "builds").write_text("in the way")
    for act in (standbys.owe, standbys.forgive):
        with pytest.raises(TargetError) as caught:
            act(tmp_path / "builds", "old")
        assert caught.value.kept == "No alias was moved."


def test_what_is_live_again_is_left_alone(server: Any, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    standbys.owe(builds, "old")
    standbys.protect(server, builds, live=("old",))
    assert server.there["old"] == "read-write"
    assert list(standbys.owed(builds)) == ["old"]


def test_what_was_dropped_is_owed_nothing(server: Any, tmp_path: Path) -> None:
    standbys.owe(tmp_path / "builds", "gone")
    standbys.protect(server, tmp_path / "builds", live=())
    assert standbys.owed(tmp_path / "builds") == {}
    assert list((tmp_path / "builds").iterdir()) == []


@pytest.mark.parametrize(
    ("status", "wanted", "access", "note", "down"),
    [
        ("offline", "online", "read-only", None, True),
        ("offline", "offline", "read-only", None, False),  # somebody stopped it
        ("offline", "online", "read-write", None, False),  # another reason
        ("offline", "online", "read-write", "", True),  # its healing was cut off
        ("offline", "online", "read-write", "It does not start.", False),  # it was tried a moment ago
        ("quarantined", "online", "read-only", None, False),
        ("online", "online", "read-only", None, False),
    ],
)
def test_what_is_down_since_it_is_read_only(
    tmp_path: Path, status: str, wanted: str, access: str, note: str | None, down: bool
) -> None:
    said = {"statusMessage": "Some indexes need to be rebuilt.", "address": "a:7687"}
    row = {"name": "old", "currentStatus": status, "requestedStatus": wanted, "access": access, **said}
    if note is not None:
        (tmp_path / "old").mkdir()
        (tmp_path / "old/healing").write_text(note)
    assert bool(standbys.find_down(tmp_path, [Found("old", (row,))])) == down
