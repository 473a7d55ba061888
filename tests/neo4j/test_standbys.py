"""What is owed to a database that an alias left: kept until it is done, and never done to a live one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bgdeploy import log
from bgdeploy.errors import TargetError
from bgdeploy.finding import Finding
from bgdeploy.targets.neo4j import aliases, databases
from bgdeploy.targets.neo4j.checks import find_unprotected
from bgdeploy.targets.neo4j.databases import Found
from bgdeploy.targets.neo4j.target import Neo4j


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

    def make_durable(server: Any, name: str, note: Path, *, live: Any) -> None:
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
    aliases.owe(builds, "old")
    server.broken = True
    aliases.protect(server, builds, lambda: ("new",))
    assert server.there == {"old": "read-write", "new": "read-write"}
    assert said(tmp_path)[0].what == "old is no longer live and still not read-only: You may not do that."
    server.broken = False
    for _ in range(2):
        aliases.protect(server, builds, lambda: ("new",))
        assert server.there == {"old": "read-only", "new": "read-write"}
        assert set(server.durable) == {"old"}
        assert [one.verdict for one in said(tmp_path)] == ["ok"]


def test_what_is_not_online_at_the_moment_stays_owed(server: Any, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    aliases.owe(builds, "old")
    server.verdict = "coming"
    aliases.protect(server, builds, lambda: ("new",))
    assert aliases.owed(builds) == {"old": "old cannot be made read-only now: starting on b:7687."}
    server.verdict = "online"
    aliases.protect(server, builds, lambda: ("new",))
    assert server.there["old"] == "read-only"


def test_what_is_about_to_be_live_is_owed_nothing(tmp_path: Path) -> None:
    aliases.owe(tmp_path, "old")
    aliases.forgive(tmp_path, "old")
    aliases.forgive(tmp_path, "old")
    assert aliases.owed(tmp_path) == {}


def test_a_note_that_cannot_be_written_is_told_before_the_move(tmp_path: Path) -> None:
    (tmp_path / "builds").write_text("in the way")
    for act in (aliases.owe, aliases.forgive):
        with pytest.raises(TargetError) as caught:
            act(tmp_path / "builds", "old")
        assert caught.value.kept == "No alias was moved."


def test_what_is_live_again_is_left_alone(server: Any, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    aliases.owe(builds, "old")
    aliases.protect(server, builds, lambda: ("old",))
    assert server.there["old"] == "read-write"
    assert list(aliases.owed(builds)) == ["old"]


def test_what_is_forgiven_meanwhile_is_left_alone_and_not_owed_again(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback in another process, seen before a database would be stopped, before it is protected, and after a refusal."""
    builds = tmp_path / "builds"
    for refused in (False, True):
        aliases.owe(builds, "old")

        def make_durable(server: Any, name: str, note: Path, *, live: Any, refused: bool = refused) -> None:
            assert not live()
            aliases.forgive(builds, name)
            assert live()
            if refused:
                raise TargetError("It stays writable.")

        monkeypatch.setattr(databases, "make_durable", make_durable)
        aliases.protect(server, builds, lambda: ("new",))
        assert server.there["old"] == "read-write"
        assert aliases.owed(builds) == {}


def test_what_was_dropped_is_owed_nothing(server: Any, tmp_path: Path) -> None:
    aliases.owe(tmp_path / "builds", "gone")
    aliases.protect(server, tmp_path / "builds", lambda: ())
    assert aliases.owed(tmp_path / "builds") == {}
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
    assert bool(aliases.find_down(tmp_path, [Found("old", (row,))])) == down


class Cluster:
    """Three members with one read-only database; what is asked of them is kept, and ``said`` is what each says of it."""

    def __init__(self, *said: str) -> None:
        self.said, self.asked, self.access = list(said), list[str](), "read-only"
        self.back: list[str] = []  # what they say once it may be written

    def ask(self, text: str, doing: str, **given: Any) -> list[dict[str, Any]]:
        if text == databases.SHOW:
            return [self.row(number) for number in range(len(self.said))]
        if not text.startswith("SHOW"):
            self.asked.append(text)
        if text == databases.READ_WRITE:
            self.access, self.said = "read-write", self.back or self.said
        if text == databases.READ_ONLY:
            self.access = "read-only"
        if text == databases.START:
            self.said = ["online"] * len(self.said)
        return []

    def row(self, number: int) -> dict[str, Any]:
        said = self.said[number]
        status = {"name": "acme-9", "currentStatus": said, "requestedStatus": "online", "access": self.access}
        return {
            **status,
            "statusMessage": "" if said == "online" else "No index.",
            "address": f"s{number}:7687",
        }


def test_what_a_member_serves_is_never_stopped_for_another_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(log, "emit", lambda event, **_: told.append(event))
    cluster = Cluster("online", "online", "offline")
    target = Neo4j({"state_dir": str(tmp_path)}, cluster)  # type: ignore[arg-type]
    for _ in range(2):
        target.catch_up(lambda: {"acme-9": ""})
    assert (cluster.asked, told) == ([], ["database.half_down"])
    cluster.said = ["online"] * 3
    target.catch_up(lambda: {"acme-9": ""})
    cluster.said = ["offline", "online", "online"]
    target.catch_up(lambda: {"acme-9": ""})
    assert (cluster.asked, told) == ([], ["database.half_down"] * 2)
    cluster.said, cluster.back = ["offline"] * 3, ["offline", "online", "offline"]
    target.catch_up(lambda: {"acme-9": ""})  # a member comes back while it is made writable
    assert (cluster.asked, told[2:]) == ([databases.READ_WRITE], ["service.trouble"])
    cluster.said = ["offline"] * 3
    target.catch_up(lambda: {"acme-9": ""})
    assert cluster.asked.count(databases.STOP) == 2  # to start it, and for its checkpoint
    assert (cluster.said, cluster.access, told[3:]) == (["online"] * 3, "read-only", ["database.healed"])
