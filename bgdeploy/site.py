"""One installation in a process's hands: its configuration, job table, target and own name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa

from bgdeploy import log
from bgdeploy.actions import Hint, do
from bgdeploy.clock import Clock, wall
from bgdeploy.config import Settings
from bgdeploy.errors import ConfigError, Refused, TargetError
from bgdeploy.jobs import migrate
from bgdeploy.jobs.lease import new_owner
from bgdeploy.jobs.models import identity
from bgdeploy.jobs.states import Actor
from bgdeploy.jobs.store import Store, open_store, with_reserve
from bgdeploy.jobs.transitions import Tx, transaction
from bgdeploy.targets import open_target
from bgdeploy.targets.base import Target

if TYPE_CHECKING:
    from bgdeploy.worker.inspector import Inquiry as Inquiry
    from bgdeploy.worker.inspector import Inspectors

Result = TypeVar("Result")


@dataclass(frozen=True)
class Site:
    """What every stage works with. ``owner`` names this process in leases and intents."""

    settings: Settings
    store: Store
    target: Target
    owner: str
    clock: Clock = wall

    @property
    def terms(self) -> dict[str, Any]:
        """By whom and for how long this process takes a row."""
        return {"owner": self.owner, "seconds": self.settings.orchestrator.lease_seconds}

    @property
    def inspectors(self) -> Inspectors:
        """Who reads snapshots' files for this process, which itself never does."""
        from bgdeploy.worker import inspector  # late: most commands read none

        return inspector.shared()

    @contextmanager
    def transaction(self, actor: Actor) -> Iterator[Tx]:
        """A write transaction in this process's name."""
        with transaction(self.store, now=self.clock(), actor=actor, owner=self.owner) as tx:
            yield tx

    def persist(self, actor: Actor, act: Callable[[Tx], Result]) -> Result:
        """Write in one transaction; where the disk is full the reserve is given up for it."""

        def write() -> Result:
            with self.transaction(actor) as tx:
                return act(tx)

        return with_reserve(self.store.path.parent, write)


def open_site(settings: Settings, *, clock: Clock = wall, rebind: bool = False, urgent: bool = False) -> Site:
    """Open job table and target; refuses a job table that speaks of another base folder or target.

    Only an ``urgent`` command, which moves an alias or takes it away, gives the reserve up on a full disk.
    """
    path = settings.database_path
    is_new = with_reserve(path.parent, lambda: migrate.ensure(path)) if urgent else migrate.ensure(path)
    target = open_target(settings)
    site = Site(settings, open_store(path), target, new_owner(), clock)
    _check_identity(site, rebind=rebind)
    if is_new:
        _tell_of_loss(site)
    return site


def _tell_of_loss(site: Site) -> None:
    """A new job table where aliases are already: the old one was lost, and nobody may have noticed."""
    try:
        there = site.target.aliases()
    except (TargetError, ConfigError):
        return  # it cannot be asked; the doctor tells what no job owns
    if there:
        log.emit("store.anew", path=site.store.path, count=len(there))


def _check_identity(site: Site, *, rebind: bool) -> None:
    row = read_identity(site)
    if row is None or rebind or not row["place"]:
        _bind(site, {**_ours(site), "place": _place(site)})
        return
    differing = find_differences(site, row)
    if differing:
        cure = Hint("Use another state_dir, or move it on purpose with: ", do("init", rebind=True))
        if row["target"] != site.target.kind and (setting := site.settings.target_follows):
            before = f"To go on as before write down target: {row['target']}; {setting} made it {site.target.kind}. "
            cure = Hint(before, cure)
        raise Refused(
            f"The job table {site.store.path} belongs to another set-up ({'; '.join(differing)}).",
            kept="Nothing was changed.",
            cure=cure,
        )
    site.target.expect(row["place"])


def read_identity(site: Site) -> sa.RowMapping | None:
    """Whom the job table speaks of; None before it was first used."""
    with site.store.read() as connection:
        return connection.execute(sa.select(identity)).mappings().one_or_none()


def find_differences(site: Site, row: sa.RowMapping) -> list[str]:
    """What the job table says otherwise than the configuration: target kind and base folder."""
    ours = _ours(site)
    return [f"{key}: {row[key]!r} there, {ours[key]!r} here" for key in ours if row[key] != ours[key]]


def _ours(site: Site) -> dict[str, str]:
    return {"target": site.target.kind, "base_path": str(site.settings.dataset.base_path)}


def _place(site: Site) -> str:
    """Where the databases lie; empty while the target cannot be asked, so that it is asked again."""
    try:
        return site.target.identity()
    except (TargetError, ConfigError):
        return ""


def _bind(site: Site, ours: dict[str, str]) -> None:
    with site.store.write() as connection:
        if connection.execute(sa.select(identity.c.id)).first():
            connection.execute(identity.update().values(**ours))
        else:
            connection.execute(identity.insert().values(id=1, created_at=site.clock(), **ours))
