"""The reserve beside the job table, on a disk that takes no more: who gives it up, and who waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bgdeploy.errors import LeaseLost, StoreFull
from bgdeploy.jobs.lease import Lease
from bgdeploy.jobs.store import Store, disk_full
from bgdeploy.jobs.transitions import Tx
from bgdeploy.pipeline import scan
from bgdeploy.service import steer
from bgdeploy.service.steer import cancel
from bgdeploy.worker import run as run_state
from bgdeploy.worker import run as telling
from bgdeploy.worker.run import Run
from bgdeploy.worker.shutdown import Stop
from bgdeploy.worker.supervisor import Heartbeat
from tests.pipeline.place import OLD, Place

MakePlace = Callable[..., Place]


@pytest.fixture
def place(make_place: MakePlace) -> Place:
    """One is live, and one is queued."""
    made = make_place()
    made.live_through("acme", OLD)
    made.drop("acme", OLD + 1)
    scan.scan(made.site)
    return made


@pytest.fixture
def reserve(place: Place) -> Path:
    path = place.folder / "state/ballast"
    path.write_bytes(b"x")
    return path


def fill(place: Place, monkeypatch: pytest.MonkeyPatch, reserve: Path) -> None:
    """From now on nothing can be written before the reserve is given up."""
    write = Store.write

    @contextmanager
    def full(store: Store) -> Iterator[object]:
        if reserve.exists():
            raise disk_full(store.path, "database or disk is full")
        with write(store) as connection:
            yield connection

    monkeypatch.setattr(Store, "write", full)


def run_of(place: Place) -> Run:
    job = place.take()
    assert job is not None
    lease = Lease(place.site.store, job["id"], job["fence"], place.site.owner, 60.0, -1e9)
    return Run(place.site, job, Heartbeat(lease, Stop(), "acme"))


@pytest.mark.parametrize(
    "act",
    [
        lambda place: steer.pin(place.site, "acme", None, by="a test"),
        lambda place: steer.unpin(place.site, "acme", None, by="a test"),
        lambda place: cancel(place.site, 2, by="a test"),
    ],
)
def test_a_pin_and_a_cancel_leave_it(
    place: Place, reserve: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Place], object]
) -> None:
    fill(place, monkeypatch, reserve)
    with pytest.raises(StoreFull):
        act(place)
    assert reserve.exists()


def test_a_load_gives_it_up_for_its_end_and_for_nothing_before(
    place: Place, reserve: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, written = run_of(place), []

    def write(tx: Tx) -> None:
        written.append(tx)

    fill(place, monkeypatch, reserve)
    telling.note_seen(run, {"group": 0, "seen": 5})
    with pytest.raises(LeaseLost):
        run_state.persist(run, write)
    assert reserve.exists() and not written
    monkeypatch.setattr(Lease, "share_used", lambda _: 0.0)
    run_state.persist(run, write, ends=True)
    assert written and not reserve.exists()
