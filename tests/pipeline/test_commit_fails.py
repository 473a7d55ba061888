"""A commit that fails after all was written: the next try begins from what is committed, not from what was meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bgdeploy.clock import monotonic
from bgdeploy.errors import NameTaken, StoreFull
from bgdeploy.jobs.lease import Lease
from bgdeploy.jobs.states import Actor
from bgdeploy.jobs.transitions import Tx
from bgdeploy.pipeline import clean, load, scan
from bgdeploy.site import Site
from bgdeploy.worker import run as running
from bgdeploy.worker.run import Run
from bgdeploy.worker.shutdown import Stop
from bgdeploy.worker.supervisor import Heartbeat
from tests.pipeline.place import OLD, Place, databases


@dataclass(frozen=True)
class FullOnce(Site):
    """The first commit finds the disk full: all that the transaction wrote is undone."""

    left: list[str] = field(default_factory=lambda: ["one"])

    @contextmanager
    def transaction(self, actor: Actor) -> Iterator[Tx]:
        with Site.transaction(self, actor) as tx:
            yield tx
            if self.left:
                self.left.pop()
                raise StoreFull("no room for the commit")


def test_a_name_of_somebody_elses_is_disowned_also_when_the_commit_failed_first(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    scan.scan(place.site)
    job = place.take()
    assert job is not None
    theirs = f"acme-{OLD}"  # somebody made a database of this name in the moment before
    place.target.whole.add(theirs)
    site = FullOnce(**vars(place.site))
    lease = Lease(site.store, job["id"], job["fence"], site.owner, 60.0, monotonic())
    run = Run(site, job, Heartbeat(lease, Stop(timeout=1.0)))
    running._rename(run, NameTaken("the name is taken"))
    mine = run.job["database"]
    assert mine != theirs
    assert [row["database"] for row in place.rows()] == [mine]
    left = {row["name"]: row for row in place.rows(databases)}
    assert set(left) == {theirs, mine}
    assert left[theirs]["dropped_at"] is not None, "nothing will ever be dropped by that name"
    with site.transaction(Actor.WORKER) as tx:
        load.fail(tx, run.job, NameTaken("a test says so"))
    place.now += 3600
    clean.clean(place.site)
    assert theirs in place.target.whole
