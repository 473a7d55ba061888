"""The API: every verb once, for the command line, for Python and for whatever serves pages.

``bgdeploy.open(config)`` returns a ``Deployments``. What it answers are the types of ``results``; what it raises are the
errors of ``bgdeploy.errors``, each with what failed, what stayed as it was, and what helps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgdeploy.actions import Hint, do, join
from bgdeploy.config import Settings, find_file, load_settings
from bgdeploy.errors import BadWords, BgdeployError, Refused, StoreError
from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import get_job, title
from bgdeploy.service import customers, steer, views
from bgdeploy.service import query as asking
from bgdeploy.service.results import (
    Answer,
    Customer,
    Database,
    Event,
    Finding,
    Hold,
    Job,
    JobRow,
    Leaving,
    Move,
    Named,
    Offenders,
    Pinned,
    Process,
    Queued,
    Refusal,
    Revision,
    RolledBack,
    ScanReport,
    Story,
    Switched,
    Waited,
    Waiting,
    advice,
)
from bgdeploy.service.views import (
    CUSTOMER_ORDERS,
    CUSTOMER_STATES,
    JOB_ORDERS,
    SWITCH_ORDERS,
    Page,
    pick_customers,
)
from bgdeploy.site import Site, open_site

if TYPE_CHECKING:
    from bgdeploy.pipeline.admit import Report

EVENT_ORDERS = ("at",)
__all__ = [
    "CUSTOMER_ORDERS",
    "CUSTOMER_STATES",
    "EVENT_ORDERS",
    "JOB_ORDERS",
    "SWITCH_ORDERS",
    "Deployments",
    "Page",
]


class Deployments:
    """One installation: its customers, their snapshots and databases, and what may be done about them.

    It is opened by the first verb that needs it, and never made by one that only looks: that raises StoreError where
    there is no job table yet. Verbs that act take ``who`` asks, a name that the history keeps, and ``why`` where the
    history keeps a reason. Any verb may raise ConfigError (the configuration has faults), StoreError (the job table
    cannot be used) and, where it asks the target, TargetError.
    """

    def __init__(
        self,
        config: str | Path | None = None,
        overrides: Mapping[str, Any] | None = None,
        *,
        site: Site | None = None,
    ) -> None:
        """``overrides`` are settings by their dotted names; ``site`` is an installation that is open already."""
        self._config = None if config is None else Path(config)
        self._overrides = dict(overrides or {})
        self._opened = site

    @cached_property
    def settings(self) -> Settings:
        """The configuration in force; raises ConfigError with all its faults."""
        return self._opened.settings if self._opened else load_settings(self._config, self._overrides)

    # Looking: nothing is changed.

    def jobs(
        self,
        *,
        states: Sequence[str] = (),
        customer: str | None = None,
        error: str | None = None,
        blocked: bool = False,
        page: Page | None = None,
    ) -> list[Job]:
        """Return jobs, newest first: those in any of ``states``, of one customer, that failed with one code, that wait for a decision.

        ``page`` says how many (50), in which order (created, updated, customer, snapshot, rows), of which time, and
        after which id. Raises BadWords for a state or an order that does not exist, NotFound where the line it goes
        on from is gone.
        """
        states = [states] if isinstance(states, str) else states
        for state in states:
            _one_of(state, tuple(State), "state")
        page = _ordered(page, JOB_ORDERS, "-created")
        return views.list_jobs(
            self._site(), states=states, customer=customer, error=error, blocked=blocked, page=page
        )

    def job(self, job_id: int) -> Story:
        """Return all that is known of a job: how far it is, its ledger, its proof, its history. Raises NotFound."""
        return views.find_job(self._site(), job_id)

    def events(
        self, job_id: int | None = None, *, customer: str | None = None, page: Page | None = None
    ) -> list[Event]:
        """Return the newest events, oldest first: of one job, of one customer, or all; ``page`` as for ``jobs``, by at.

        Raises NotFound for a job that does not exist.
        """
        site = self._site()
        if job_id is not None:
            self._job(job_id)
        return views.list_events(site, job_id, customer=customer, page=_ordered(page, EVENT_ORDERS, "-at"))

    def customers(
        self, *, states: Sequence[str] = (), text: str = "", sort: str = "customer"
    ) -> list[Customer]:
        """Return customers whose name holds ``text``, in any of ``states``: live, standby, none, paused, failed, trouble.

        ``sort`` is customer, since, snapshot or rows, with ``-`` from the greatest down. The target is asked once for
        all of them; where it cannot be, ``trouble`` says so. Raises BadWords.
        """
        states = [states] if isinstance(states, str) else states
        for state in states:
            _one_of(state, CUSTOMER_STATES, "state")
        _one_of(sort.removeprefix("-"), CUSTOMER_ORDERS, "order")
        return pick_customers(customers.list_customers(self._site()), states=states, text=text, sort=sort)

    def check_customer(self, customer: str) -> None:
        """Raise NotFound, naming those there are, where there is no such customer."""
        asking.check_customer(self._site(), customer)

    def databases(self, customer: str | None = None, *, dropped: bool = False) -> list[Database]:
        """Return the databases that bgdeploy owns, of all customers or of one, newest first; with those it has dropped."""
        return customers.list_databases(self._site(), customer, dropped=dropped)

    def switches(self, customer: str | None = None, *, page: Page | None = None) -> list[Move]:
        """Return the moves of aliases, newest first; ``page`` as for ``jobs``, by at, customer or took."""
        return views.list_switches(self._site(), customer, page=_ordered(page, SWITCH_ORDERS, "-at"))

    def query(self, customer: str, cypher: str) -> Answer:
        """Return the rows of one statement that reads what is live for a customer.

        The embedded target answers without its job table too, with a warning. Raises NotFound, and TargetError or
        Refused with what to write instead.
        """
        try:
            return Answer(rows=asking.ask(self._site(), customer, cypher), warning=None, hint=None)
        except StoreError as error:
            rows = asking.ask_without_table(self.settings, customer, cypher)
            if rows is None:
                raise
            return Answer(rows=rows, warning=str(error), hint=advice(error.cure))

    def wait(
        self,
        customer: str,
        timestamp: int,
        *,
        timeout: float = 3600.0,
        tell: Callable[[Waiting], None] = lambda look: None,
    ) -> Waited:
        """Wait until this snapshot or a newer one is live, or cannot be without a person; at most ``timeout`` seconds.

        ``tell`` hears of each look in between, twice a second. What nobody has found yet is waited for, and so is a
        job table that is configured and not there yet.
        """
        from bgdeploy.service.wait import wait_for

        return wait_for(
            self.settings,
            self._site,
            customer,
            timestamp,
            configured=self._is_configured(),
            timeout=timeout,
            tell=tell,
        )

    def offenders(
        self,
        job_id: int,
        output: Path | str | None = None,
        *,
        tell: Callable[[str, int], None] = lambda folder, rows: None,
    ) -> Offenders:
        """Read a job's snapshot again, and return the rows whose id or end does not fit; write them all to ``output``.

        A file that ends in .csv is a table, any other JSON lines. ``tell`` hears of each folder and its rows. Raises
        NotFound, BadInput, and Refused where the folder is not what the job saw.
        """
        from bgdeploy.service.offenders import list_offenders, show_report

        place = None if output is None else Path(output)
        return show_report(list_offenders(self._site(), job_id, place, tell), place)

    def doctor(self, *, try_rights: bool = False) -> Iterator[Finding]:
        """Yield what is found wrong or well, area by area; raises nothing, and works when little else does.

        ``try_rights`` tries rights on a Neo4j server on a scratch database, which is dropped again.
        """
        from bgdeploy.service.doctor.examine import examine

        return examine(self._config, self._overrides, try_rights=try_rights)

    def capacity_warning(self) -> Hint | None:
        """Say, with the sum, when the databases that are to be kept can exceed ``max_databases``; else None."""
        return customers.capacity_warning(self._site())

    def processes(self) -> list[Process]:
        """Return the processes that work, on any host, and those that did, newest first: what each does, and when it was last seen."""
        from bgdeploy.service.processes import list_processes

        return list_processes(self._site())

    def absence(self) -> Hint | None:
        """Say so when nobody works and somebody should, and who was last seen in the middle of a load; else None.

        Where only ``run`` works, from cron, nobody is missed between two runs unless something waits.
        """
        from bgdeploy.service.processes import say_nobody, say_silent, who_works

        works = who_works(self._site())
        said = [say_nobody(works)] if works.missed else []
        return join("; ", [*said, *say_silent(works)]) or None

    def revision(self) -> Revision:
        """Return the revision of the job table, and the newest one this version knows."""
        from bgdeploy.jobs import migrate

        path = self.settings.database_path
        return Revision(path=str(path), found=migrate.current(path), newest=migrate.HEAD)

    # Acting: each verb is done, or refused with nothing changed.

    def scan(self) -> ScanReport:
        """Look for new snapshots and queue those that are ready; makes the job table where there is none.

        What is wrong with one customer is in ``errors`` and holds up no other.
        """
        from bgdeploy.pipeline.scan import scan_once

        return _show_report(scan_once(self._site(makes=True)))

    def retry(self, job_id: int, *, who: str) -> Queued:
        """Queue a failed job again, from zero. Raises NotFound, and Refused for one that has not failed."""
        steer.retry(self._site(), job_id, by=who)
        return self._queued(job_id)

    def retry_all_failed(self, *, who: str) -> list[Queued | Refusal]:
        """Queue every failed job again but those cancelled or not above what was live; what is refused holds up no other."""
        found: list[Queued | Refusal] = []
        for job_id in steer.failed_jobs(self._site()):
            try:
                found.append(self.retry(job_id, who=who))
            except BgdeployError as error:
                found.append(_refusal(job_id, error))
        return found

    def reload(self, job_id: int, *, who: str) -> Queued:
        """Make a new job, one build higher, of one that is loaded, switched or cleaned; the old one keeps its state.

        Raises NotFound, and Refused for other states or where its folder is gone.
        """
        return self._queued(steer.reload(self._site(), job_id, by=who)["id"])

    def cancel(self, job_id: int, *, who: str, wait: bool = True) -> JobRow:
        """Give a job up that is not live yet; returns it as it is then: ``failed``, or ``loading`` without ``wait``.

        With ``wait`` a load that runs is seen to have ended. Raises NotFound, and Refused once its switch has begun,
        for a pinned database, and for a job that is over.
        """
        from bgdeploy.service.steer import cancel

        row = cancel(self._site(), job_id, by=who)
        return self.await_end(job_id) if wait else views.show_job(row)

    def await_end(self, job_id: int) -> JobRow:
        """Return a job once its load has ended; where its worker is gone, it is ended here. Raises NotFound."""
        from bgdeploy.service.steer import await_end

        return views.show_job(await_end(self._site(), self._job(job_id)))

    def switch(self, customer: str, to: str | None = None, *, who: str, why: str = "asked for") -> Switched:
        """Move a customer's alias to the database that waits, or to ``to``: any that is verified and still there.

        One that was marked bad is good again then. Raises NotFound where nothing waits, and Refused where it is held
        back for its content or where the move would break a promise; the alias stays then.
        """
        from bgdeploy.pipeline.switch import switch_by_hand

        site = self._site(urgent=True)
        with customers.naming_choices(site, customer, to):
            if to is not None and customers.is_live(site, customer, to):
                database, moved = to, False
            else:
                database, moved = switch_by_hand(site, customer, to=to, why=why, by=who).database, True
        way_back = customers.way_back(site, customer)
        return Switched(customer=customer, database=database, moved=moved, way_back=way_back)

    def accept(self, job_id: int, *, who: str, why: str = "asked for") -> Switched:
        """Let a loaded job go live that waits for a decision. Raises NotFound, and Refused for any other state."""
        job = self._job(job_id)
        if job["state"] != State.LOADED:
            raise Refused(
                f"Job {job_id} ({title(job)}) is {job['state']}; only a loaded one can go live.",
                kept="Nothing was changed.",
                cure=Hint("See: ", do("job", job_id=job_id)),
            )
        return self.switch(job["customer"], to=job["database"], who=who, why=why)

    def rollback(
        self, customer: str, to: str | None = None, *, who: str, why: str, pause: bool = False
    ) -> RolledBack:
        """Move a customer's alias back to what was live before, or to ``to``, and mark what it leaves as bad.

        Only something newer than the bad one goes live by itself, and with ``pause`` not even that. Raises NotFound,
        and Refused where there is nothing to go back to or something else went live at this moment.
        """
        from bgdeploy.pipeline.switch import roll_back

        site = self._site(urgent=True)
        with customers.naming_choices(site, customer, to):
            wish, left = roll_back(site, customer, to=to, why=why, by=who, pause=pause)
        return RolledBack(customer=customer, database=wish.database, left=left, paused=pause)

    def pause(self, customer: str, *, who: str, why: str = "asked for") -> Hold:
        """Load and switch nothing for a customer until it is resumed; a load that runs goes on. Raises NotFound."""
        from bgdeploy.pipeline.switch import pause

        pause(self._site(), customer, why=why, by=who)
        return Hold(customer=customer, paused=True)

    def resume(self, customer: str, *, who: str) -> Hold:
        """End a pause, or take a removed customer back for snapshots that come later.

        Raises NotFound, and Refused while databases of a removed customer are still to be dropped.
        """
        from bgdeploy.pipeline.switch import resume

        resume(self._site(), customer, by=who)
        return Hold(customer=customer, paused=False)

    def pin(self, customer: str, database: str | None = None, *, who: str) -> Pinned:
        """Keep a database for good, what is live where none is named; twice is fine.

        Raises NotFound, and Refused for one that is another customer's, not verified, or being dropped.
        """
        name = steer.pin(self._site(), customer, database, by=who)
        return Pinned(customer=customer, database=name, pinned=True)

    def unpin(self, customer: str, database: str | None = None, *, who: str) -> Pinned:
        """Let a pinned database go the way of the others. Raises NotFound, and Refused where it is not pinned."""
        name = steer.unpin(self._site(), customer, database, by=who)
        return Pinned(customer=customer, database=name, pinned=False)

    def remove(self, customer: str, *, who: str, why: str = "asked for", dry_run: bool = False) -> Leaving:
        """Offboard a customer: its jobs end, its alias goes, then its databases; with ``dry_run`` only say what would go.

        Its snapshots and its history stay. Raises NotFound, and Refused while its alias is being moved.
        """
        from bgdeploy.pipeline import leave

        site = self._site(urgent=not dry_run)
        goes = leave.look(site, customer) if dry_run else leave.remove(site, customer, why=why, by=who)
        return Leaving(
            customer=goes.customer,
            alias=goes.alias,
            live=goes.live,
            databases=list(goes.databases),
            jobs=goes.jobs,
            removed=goes.removed,
            done=not dry_run,
            folder=str(self.settings.dataset.base_path / customer),
            grace_seconds=self.settings.orchestrator.drop_grace_seconds,
        )

    def init(self, *, rebind: bool = False) -> None:
        """Make the base folder and the job table where there are none.

        With ``rebind`` a job table that is there speaks of this base folder and this target from now on; without it
        that is Refused.
        """
        self.settings.dataset.base_path.mkdir(parents=True, exist_ok=True)
        self._opened = open_site(self.settings, rebind=rebind)

    def upgrade(self) -> Revision:
        """Bring the job table to this version's revision, keeping a backup of the old file, and return it."""
        from bgdeploy.jobs import migrate

        migrate.ensure(self.settings.database_path)
        return self.revision()

    # Below: how it is opened.

    def _site(self, *, makes: bool = False, urgent: bool = False) -> Site:
        """Open job table and target, once. An ``urgent`` verb, which moves an alias, may have the reserve of a full disk."""
        if self._opened is None:
            if not makes and not self.settings.database_path.exists():
                raise self._no_table()
            self._opened = open_site(self.settings, urgent=urgent)
        return self._opened

    def _is_configured(self) -> bool:
        """True where a configuration file is named, or lies in this folder."""
        return find_file(self._config, os.environ) is not None

    def _no_table(self) -> StoreError:
        what = f"There is no job table {self.settings.database_path}."
        first = Hint("It is made by the first: ", do("serve"), ", or ", do("run"))
        cure = Hint(first, ". If there was one before: ", do("doctor"))
        if not self._is_configured():
            what += f" Nor is there a configuration in {Path.cwd()}."
            there = "Go to the folder of yours, or name it: bgdeploy --config FILE ... To begin here: "
            cure = Hint(there, do("init"))
        return StoreError(what, kept="Nothing was made.", cure=cure)

    def _job(self, job_id: int) -> Any:
        with self._site().store.read() as connection:
            return get_job(connection, job_id)

    def _queued(self, job_id: int) -> Queued:
        row = self._job(job_id)
        about = {key: row[key] for key in ("customer", "timestamp", "build")}
        pause = views.find_pause(self._site(), job_id)
        return Queued(job=job_id, **about, held_back=pause, hint=advice(pause or ""))


def _ordered(page: Page | None, orders: Collection[str], usual: str) -> Page:
    """The page, in the usual order of its listing where it names none."""
    page = page or Page()
    if not page.sort:
        return replace(page, sort=usual)
    _one_of(page.sort.removeprefix("-"), orders, "order")
    return page


def _one_of(value: str, known: Collection[str], what: str) -> None:
    if value not in known:
        raise BadWords(
            f"There is no {what} {value!r}; there are: {', '.join(known)}", kept="Nothing was done."
        )


def _refusal(job_id: int, error: BgdeployError) -> Refusal:
    return Refusal(
        job=job_id,
        code=error.code,
        exit_code=int(error.exit_code),
        what=error.what,
        kept=error.kept,
        cure=error.cure,
        hint=advice(error.cure),
    )


def _show_report(report: Report) -> ScanReport:
    def named(pairs: Sequence[tuple[str, str]]) -> list[Named]:
        return [Named(name=name, reason=reason) for name, reason in pairs]

    return ScanReport(
        customers=report.customers,
        discovered=report.discovered,
        again=report.again,
        queued=report.queued,
        waiting=named(report.waiting),
        skipped=named(report.skipped),
        failed=named(report.failed),
        errors=named(report.errors),
    )
