"""The place where snapshots lie: what is listed can be looked at, and what can be looked at can be fetched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bgdeploy.errors import NotReadable
from bgdeploy.snapshots.readiness import fingerprint
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.snapshots.store import FolderStore
from tests.snapshots.folders import KNOWS, PEOPLE, write

NOW = 1_800_000_000.0


def test_a_snapshot_that_is_listed_is_looked_at_and_fetched(tmp_path: Path) -> None:
    folder = write(tmp_path / "acme/1700000001", {**PEOPLE, **KNOWS})
    (tmp_path / "acme/latest").mkdir()
    store = FolderStore(tmp_path)
    assert [(one.name, one.skipped) for one in store.list_customers()] == [("acme", None)]
    listing = store.list_snapshots("acme", now=NOW)
    assert listing.timestamps == {1700000001}
    assert [one.name for one in listing.skipped] == ["latest"]
    assert store.list_snapshots("acme", now=NOW, known={"1700000001"}).there == {"1700000001"}
    look = store.look("acme", 1700000001)
    assert look is not None and look.text == fingerprint(folder).text
    fetched = store.fetch("acme", 1700000001)
    assert open_snapshot("acme", 1700000001, fetched, {}, look.text).rows == 3


def test_what_is_gone_or_leads_elsewhere_is_seen_as_nothing_and_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "data/acme").mkdir(parents=True)
    write(tmp_path / "elsewhere", PEOPLE)
    os.symlink(tmp_path / "elsewhere", tmp_path / "data/acme/1700000002")
    store = FolderStore(tmp_path / "data")
    for timestamp, why in ((1700000001, "it is gone"), (1700000002, "leads out of the base folder")):
        assert store.look("acme", timestamp) is None
        with pytest.raises(NotReadable, match=why):
            store.fetch("acme", timestamp)


def test_what_cannot_be_listed_says_nothing_of_what_it_holds(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "away")
    for ask in (store.list_customers, lambda: store.list_snapshots("acme", now=NOW)):
        with pytest.raises(NotReadable):
            ask()
