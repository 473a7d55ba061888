"""Everything that can happen, in any order, with a crash at any named moment: the promises hold after every step.

Scans, loads, switches, drops, rescues and people's commands run on a real job table and real folders;
only the target is in memory, so that thousands of steps take seconds. At a failpoint a process may
crash (an exception: nothing after it runs, and the next step is another process's, with a name of its
own), or freeze: others do something meanwhile, and then it goes on as if nothing had happened.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bgdeploy import failpoints
from bgdeploy.config import load_settings
from bgdeploy.errors import BadInput, BgdeployError, TargetError
from bgdeploy.jobs import lineage
from bgdeploy.jobs.lease import rescue
from bgdeploy.jobs.states import Actor, State
from bgdeploy.jobs.transitions import Row, customers, databases, jobs
from bgdeploy.pipeline import alias, clean, load, scan, switch
from bgdeploy.pipeline.claim import Rules, claim, peek
from bgdeploy.service import steer
from bgdeploy.service.steer import cancel
from bgdeploy.site import Site, open_site
from bgdeploy.targets.base import Ticket
from tests.pipeline.fake import FakeTarget
from tests.snapshots.folders import PEOPLE, write

CUSTOMERS = ("acme", "borealis")
FIRST = 1_700_000_000
START = 1_800_000_000.0
GRACE, LEASE = 5.0, 10.0
RULES = Rules(keep_databases=2, latest_only=False, settle_seconds=1, max_concurrent_loads=None)
MOMENTS = (
    None,
    None,
    None,
    "switch.intended",
    "switch.moved",
    "clean.decided",
    "clean.intended",
    "clean.dropped",
)
ENDINGS = ("good", "good", "good", "bad", "error", "killed before", "killed after", "cancelled meanwhile")
MEANWHILE = (
    "crash", "crash", "roll back", "roll back and pause", "switch to the oldest", "switch", "clean", "rescue",
    "load", "watch", "pin", "cancel",
)  # fmt: skip
OPEN = (State.DISCOVERED, State.QUEUED, State.LOADING, State.LOADED)
PERSON: dict[str, Any] = {"why": "a test", "by": "a person"}


def set_reach(reach: Callable[[str], None]) -> None:
    """Put this in place of the failpoints of the stages that act on the target."""
    for stage in (alias, clean, switch):
        stage.reach = reach  # type: ignore[attr-defined]


class Crash(BaseException):
    """The process ends here."""


class AnyOrder(RuleBasedStateMachine):
    """``now`` is the clock of all processes; ``lives`` counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model = write(self.folder / "model", PEOPLE)
        (self.folder / "data").mkdir()
        self.now, self.lives, self.newest = START, 0, dict.fromkeys(CUSTOMERS, FIRST)
        self.target = FakeTarget()
        self.keep = 0
        self.cancelled: set[int] = set()  # jobs whose cancel was taken, until somebody retries them

    def teardown(self) -> None:
        self.settle_everything()
        self.store.close()
        shutil.rmtree(self.folder)

    def new_process(self) -> Site:
        """Another host's process: nobody can see that the one before is dead, only that its lease runs out."""
        self.lives += 1
        owner = f"host{self.lives}~1/1/1.00/{self.lives:032d}"
        return Site(self.settings, self.store, self.target, owner, lambda: self.now)

    def run(self, act: Callable[[Site], object], moment: str | None = None, meanwhile: str = "crash") -> None:
        """Act; when the moment comes, crash, or freeze while others act. What is refused is refused."""

        def reach(name: str) -> None:
            if name == moment:
                set_reach(failpoints.reach)
                self.happen(meanwhile)

        set_reach(reach)
        try:
            act(self.site)
        except Crash:
            self.site = self.new_process()
        except BgdeployError:
            return
        finally:
            set_reach(failpoints.reach)

    def happen(self, meanwhile: str) -> None:
        """What others do while a process is frozen for longer than its lease and its intent are worth."""
        if meanwhile == "crash":
            raise Crash
        frozen, self.site = self.site, self.new_process()
        self.now += 2 * LEASE
        if meanwhile == "switch to the oldest":
            for row in reversed(self.rows(databases, databases.c.verified_at.is_not(None))):
                to = {"to": row["name"], **PERSON}
                self.run(lambda site, row=row, to=to: switch.switch_by_hand(site, row["customer"], **to))  # type: ignore[misc]
        elif meanwhile.startswith("roll back"):
            wish: dict[str, Any] = {"to": None, "pause": meanwhile.endswith("pause"), **PERSON}
            for customer in CUSTOMERS:
                self.run(lambda site, name=customer: switch.roll_back(site, name, **wish))  # type: ignore[misc]
        else:
            acts: dict[str, Callable[[Site], object]] = {
                "pin": lambda site: self.pin_everything(),
                "cancel": lambda site: self.cancel_everything(),
                "switch": switch.switch_ready,
                "clean": clean.clean,
                "rescue": lambda site: self.rescue(),
                "load": lambda site: self.work("good"),
                "watch": alias.watch_aliases,
            }
            self.run(acts[meanwhile])
        self.site = frozen

    def rows(self, table: sa.Table, *where: Any) -> list[Row]:
        with self.store.read() as connection:
            return list(connection.execute(sa.select(table).where(*where)).mappings().all())

    # what happens

    @initialize(keep=st.sampled_from([1, 2]))
    def begin(self, keep: int) -> None:
        """Every customer starts with something live and a way back: most that can go wrong needs both.

        Where one database is kept only, the cleaner wants the very one that a rollback goes to.
        """
        self.keep = keep
        options = {
            "state_dir": str(self.folder / "state"),
            "dataset.base_path": str(self.folder / "data"),
            "dataset.settle_seconds": 1,
            "orchestrator.keep_databases": keep,
            "orchestrator.drop_grace_seconds": GRACE,
            "orchestrator.lease_seconds": LEASE,
            "orchestrator.health_check_retry_delay": 1,
        }
        real = open_site(load_settings(None, options, {}), clock=lambda: self.now)
        self.settings, self.store = real.settings, real.store
        self.site = self.new_process()
        for customer in CUSTOMERS:
            for _ in range(2):
                self.arrive(customer, "good")
                switch.switch_ready(self.site)

    @rule(customer=st.sampled_from(CUSTOMERS), ending=st.sampled_from(ENDINGS))
    def arrive(self, customer: str, ending: str) -> None:
        """A snapshot is dropped, found, seen to be complete, and loaded as far as ``ending`` says."""
        self.newest[customer] += 1
        shutil.copytree(self.model, self.folder / "data" / customer / str(self.newest[customer]))
        self.scan()
        self.now += 0.6
        self.scan()
        self.work(ending)

    @rule(
        customer=st.sampled_from(CUSTOMERS),
        moment=st.sampled_from([moment for moment in MOMENTS if moment]),
        meanwhile=st.sampled_from(MEANWHILE),
    )
    def contend(self, customer: str, moment: str, meanwhile: str) -> None:
        """Something is ready to go live and something ready to be dropped, and others come in between."""
        self.arrive(customer, "good")
        self.now += 2 * GRACE
        self.run(switch.switch_ready, moment, meanwhile)
        self.run(clean.clean, moment, meanwhile)

    @rule(seconds=st.sampled_from([0.6, 3.0, 12.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def scan(self) -> None:
        self.run(scan.scan)

    @rule(ending=st.sampled_from(ENDINGS))
    def work(self, ending: str) -> None:
        found = peek(self.store, RULES, now=self.now)
        if found is None:
            return
        existing = {info.name for info in self.target.databases()}
        who = {"owner": self.site.owner, "now": self.now, "lease_seconds": LEASE}
        job = claim(self.store, RULES, job_id=found["id"], settings={}, existing=existing, **who)
        assert job is not None
        self.build(job, ending)

    def build(self, job: Row, ending: str) -> None:
        name = str(job["database"])
        if name not in self.target.whole:
            self.target.builds.add(name)
        if ending == "killed before":
            self.site = self.new_process()
            return
        with self.site.transaction(Actor.WORKER) as tx:
            if ending == "bad":
                load.fail(tx, job, BadInput("a test says so"))
            elif ending == "error":
                load.end_badly(tx, job, TargetError("a test says so"), max_retries=3, base=1, wait=1)
        if ending in ("bad", "error"):
            return
        self.target.publish(Ticket(job["id"], name, job["fence"], {}), {})
        if ending == "cancelled meanwhile":
            self.cancel_one(job["id"])
        if ending == "killed after":
            self.site = self.new_process()
            return
        with self.site.transaction(Actor.WORKER) as tx:
            load.finish(tx, job, counts={"labels": {"Person": 2}, "types": {}}, proof={"compared": "nothing"})

    @rule()
    def rescue(self) -> None:
        rescue(self.store, now=self.now, owner=self.site.owner, most=50, base=1.0)

    @rule(moment=st.sampled_from(MOMENTS), meanwhile=st.sampled_from(MEANWHILE))
    def switch(self, moment: str | None, meanwhile: str) -> None:
        self.run(switch.switch_ready, moment, meanwhile)

    @rule(moment=st.sampled_from(MOMENTS), meanwhile=st.sampled_from(MEANWHILE))
    def clean(self, moment: str | None, meanwhile: str) -> None:
        self.run(clean.clean, moment, meanwhile)

    @rule(moment=st.sampled_from(MOMENTS), meanwhile=st.sampled_from(MEANWHILE))
    def watch(self, moment: str | None, meanwhile: str) -> None:
        self.run(alias.watch_aliases, moment, meanwhile)

    @rule(
        customer=st.sampled_from(CUSTOMERS),
        pause=st.booleans(),
        moment=st.sampled_from((*MOMENTS, "rollback.decided", "rollback.decided")),
        meanwhile=st.sampled_from(MEANWHILE),
    )
    def roll_back(self, customer: str, pause: bool, moment: str | None, meanwhile: str) -> None:
        wish: dict[str, Any] = {"to": None, "pause": pause, **PERSON}

        def roll_back(site: Site) -> None:
            _, left = switch.roll_back(site, customer, **wish)
            mine = (alias.switches.c.customer == customer, alias.switches.c.kind == "rollback")
            assert self.rows(alias.switches, *mine)[-1]["source"] == left, "it left what a person saw live"

        self.run(roll_back, moment, meanwhile)

    @rule(data=st.data(), moment=st.sampled_from(MOMENTS), meanwhile=st.sampled_from(MEANWHILE))
    def switch_to(self, data: st.DataObject, moment: str | None, meanwhile: str) -> None:
        if known := [(row["customer"], row["name"]) for row in self.rows(databases)]:
            customer, name = data.draw(st.sampled_from(known))
            wish: dict[str, Any] = {"to": name, **PERSON}
            self.run(lambda site: switch.switch_by_hand(site, customer, **wish), moment, meanwhile)

    @rule(customer=st.sampled_from(CUSTOMERS))
    def resume(self, customer: str) -> None:
        self.run(lambda site: switch.resume(site, customer, by="me"))

    @rule(data=st.data(), again=st.booleans())
    def retry(self, data: st.DataObject, again: bool) -> None:
        failed = [row["id"] for row in self.rows(jobs, jobs.c.state == State.FAILED)]
        if ids := failed or [row["id"] for row in self.rows(jobs)]:
            job = data.draw(st.sampled_from(ids))
            act = steer.reload if again else steer.retry
            self.run(lambda site: act(site, job, by="a person"))
            if self.rows(jobs, jobs.c.id == job)[0]["state"] == State.QUEUED:
                self.cancelled.discard(job)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if ids := [row["id"] for row in self.rows(jobs, jobs.c.state.in_(OPEN))]:
            self.cancel_one(data.draw(st.sampled_from(ids)))

    def cancel_one(self, job: int) -> None:
        def act(site: Site) -> None:
            cancel(site, job, by="a person")
            self.cancelled.add(job)

        self.run(act)

    def cancel_everything(self) -> None:
        for row in self.rows(jobs, jobs.c.state.in_(OPEN)):
            self.cancel_one(row["id"])

    def pin_everything(self) -> None:
        for row in self.rows(databases, databases.c.pinned_at.is_(None)):
            self.run(lambda site, row=row: steer.pin(site, row["customer"], row["name"], by="a person"))  # type: ignore[misc]

    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        if known := self.rows(databases):
            row = data.draw(st.sampled_from(known))
            act = steer.pin if row["pinned_at"] is None else steer.unpin
            self.run(lambda site: act(site, row["customer"], row["name"], by="a person"))

    @rule(well=st.booleans())
    def health(self, well: bool) -> None:
        self.target.well = well

    @precondition(lambda self: self.target.pointing)
    @rule(data=st.data())
    def break_alias(self, data: st.DataObject) -> None:
        """Somebody removes an alias by hand, and a service sees it at its next scan."""
        name = data.draw(st.sampled_from(sorted(self.target.pointing)))
        del self.target.pointing[name]
        self.run(alias.watch_aliases)
        intent = self.rows(customers, customers.c.name == name)[0]["intent"]
        assert intent is not None or self.target.pointing.get(name) is not None

    # what must hold after each of them

    @invariant()
    def an_alias_points_at_what_was_verified_and_is_there(self) -> None:
        verified = {row["name"] for row in self.rows(databases) if row["verified_at"] is not None}
        for database in self.target.pointing.values():
            assert database in self.target.whole
            assert database in verified

    @invariant()
    def once_live_a_customer_has_an_alias(self) -> None:
        for row in self.rows(customers, customers.c.live.is_not(None)):
            assert row["intent"] is not None or self.target.pointing.get(row["alias"]) == row["live"]

    @invariant()
    def what_is_pinned_is_there_and_nobody_means_to_drop_it(self) -> None:
        for row in self.rows(databases, databases.c.pinned_at.is_not(None)):
            assert row["name"] in self.target.whole
            assert row["drop_at"] is None

    @invariant()
    def what_a_person_cancelled_never_gets_further(self) -> None:
        for row in self.rows(jobs, jobs.c.id.in_(self.cancelled)):
            asked = row["state"] == State.LOADING and row["cancel_at"] is not None
            assert asked or (row["state"], row["error_code"]) == (State.FAILED, "cancelled")

    @invariant()
    def automation_moves_only_above_everything_that_was_ever_live(self) -> None:
        ages = {row["name"]: (row["timestamp"], row["build"]) for row in self.rows(databases)}
        floor = dict.fromkeys(CUSTOMERS, (0, 0))
        for row in self.rows(alias.switches):
            age = ages[row["target"]]
            assert row["kind"] != "deploy" or age > floor[row["customer"]]
            floor[row["customer"]] = max(age, floor[row["customer"]])

    @invariant()
    def what_is_live_is_so_since_another_was_left_for_it(self) -> None:
        for owner in self.rows(customers, customers.c.live.is_not(None)):
            moved = [row for row in self.rows(alias.switches) if row["customer"] == owner["name"]]
            last = [row["at"] for row in moved if row["source"] != row["target"]][-1]
            assert owner["live_since"] == last

    @invariant()
    def the_way_back_is_there(self) -> None:
        """What the rules keep is at the target: live, the newest good ones, what an intent names."""
        with self.store.read() as connection:
            for owner in connection.execute(sa.select(customers)).mappings().all():
                good = lineage.good(owner, lineage.kept_databases(connection, owner["name"]))
                assert {row["name"] for row in good[: self.keep]} <= self.target.whole
                assert {owner["live"], owner["intent"]} - {None} <= self.target.whole

    @invariant()
    def nobody_means_to_drop_what_is_live(self) -> None:
        for owner in self.rows(customers):
            for row in self.rows(databases, databases.c.name.in_([owner["live"], owner["intent"]])):
                assert row["drop_at"] is None

    @invariant()
    def one_load_a_customer_and_one_job_a_snapshot(self) -> None:
        rows = self.rows(jobs)
        keys = [(row["customer"], row["timestamp"], row["build"]) for row in rows]
        assert len(keys) == len(set(keys))
        loading = [row["customer"] for row in rows if row["state"] == State.LOADING]
        assert len(loading) == len(set(loading))

    @invariant()
    def nothing_exists_that_no_row_owns(self) -> None:
        owned = {row["name"] for row in self.rows(databases) if row["dropped_at"] is None}
        assert {info.name for info in self.target.databases()} <= owned

    # where it ends

    def settle_everything(self) -> None:
        """Undisturbed, well and resumed, everything comes to rest, and what is newest and good is live."""
        self.target.well = True
        for customer in [row["name"] for row in self.rows(customers)]:
            switch.resume(self.site, customer, by="me")
        for _ in range(12 + 4 * len(self.rows(jobs))):
            self.now += 2 * LEASE
            self.rescue()
            self.scan()
            self.work("good")
            switch.switch_ready(self.site)
            alias.watch_aliases(self.site)
            clean.clean(self.site)
        rest = (State.SWITCHED, State.CLEANED, State.FAILED, State.LOADED)
        pinned = {row["name"] for row in self.rows(databases, databases.c.pinned_at.is_not(None))}
        for row in self.rows(jobs):
            assert row["state"] in rest, row["reason"]
            assert row["state"] != State.LOADED or row["blocked"] or row["database"] in pinned
            assert row["lease_owner"] is None
        for row in self.rows(customers):
            assert row["intent"] is None
            self.check_newest(row)

    def check_newest(self, customer: Row) -> None:
        mine = self.rows(jobs, jobs.c.customer == customer["name"])
        floor = (customer["floor_timestamp"], customer["floor_build"])
        above = [row for row in mine if (row["timestamp"], row["build"]) > floor]
        assert all(row["state"] == State.FAILED for row in above)
        kept = [row for row in self.rows(databases) if row["dropped_at"] is None]
        assert self.target.whole | self.target.builds == {row["name"] for row in kept}


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=int(os.environ.get("BGDEPLOY_EXAMPLES", "16")),
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.generate],  # a failure is shown as it was found: making it shorter takes minutes
    derandomize="BGDEPLOY_EXAMPLES" not in os.environ,  # the same in every run, unless more is asked for
    suppress_health_check=list(HealthCheck),
)
