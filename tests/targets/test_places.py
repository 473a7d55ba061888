"""Where files of the embedded target go: a build to its public place, and a database out of it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bgdeploy.errors import TargetError
from bgdeploy.targets.base import Ticket
from bgdeploy.targets.ladybug import target as module
from bgdeploy.targets.ladybug.disk import FACTS, GRAPH
from bgdeploy.targets.ladybug.target import Ladybug

TICKET = Ticket(1, "acme-1", 1, {})


@pytest.fixture
def target(tmp_path: Path) -> Ladybug:
    made = Ladybug({"state_dir": str(tmp_path)})
    made.health()  # makes the folders
    draft = tmp_path / "builds/acme-1"
    draft.mkdir()
    (draft / GRAPH).write_bytes(b"LBUG")
    return made


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_build_stays_writable_until_it_has_its_public_place(
    target: Ladybug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int] = {}

    def look(name: str) -> None:
        if name == "publish.before":
            seen[name] = rights(tmp_path / "builds/acme-1" / GRAPH) & stat.S_IWUSR

    monkeypatch.setattr(module, "reach", look)
    target.publish(TICKET, {})
    assert seen == {"publish.before": stat.S_IWUSR}
    assert rights(tmp_path / "databases/acme-1" / GRAPH) == 0o444


def test_a_publication_that_was_cut_off_behind_the_rename_is_made_read_only(
    target: Ladybug, tmp_path: Path
) -> None:
    (tmp_path / "builds/acme-1").rename(tmp_path / "databases/acme-1")
    target.publish(TICKET, {})
    assert rights(tmp_path / "databases/acme-1" / GRAPH) == 0o444
    assert rights(tmp_path / "databases/acme-1") == 0o555


def test_what_the_system_does_not_let_go_is_told_as_this_databases_trouble(
    target: Ladybug, tmp_path: Path
) -> None:
    target.publish(TICKET, {})
    (tmp_path / "trash/acme-1.7").write_text("somebody's file, where a folder is to be put")
    with pytest.raises(TargetError, match=r"acme-1 cannot be removed: .*trash") as caught:
        target.drop("acme-1", 7)
    assert "owner and rights" in caught.value.cure
    assert (tmp_path / "databases/acme-1" / GRAPH).exists()
    (tmp_path / "trash/acme-1.7").unlink()
    target.drop("acme-1", 7)
    assert [one.name for one in target.databases()] == []


def test_one_whose_facts_are_lost_is_told_in_the_words_that_refuse_a_move_to_it(
    target: Ladybug, tmp_path: Path
) -> None:
    target.publish(TICKET, {})
    assert target.outdated("acme-1") is None
    target.switch("acme", "acme-1", 1)
    (tmp_path / "databases/acme-1" / FACTS).unlink()
    told = target.outdated("acme-1")
    assert told == f"acme-1 was published with nobody knows how many bytes: its {FACTS} does not say"
    with pytest.raises(TargetError) as caught:
        target.switch("acme", "acme-1", 2)
    assert caught.value.what == f"{told}."
