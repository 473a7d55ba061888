"""What the doctor looks at, in the order in which it is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bgdeploy.clock import Clock, wall
from bgdeploy.config import Settings
from bgdeploy.errors import StoreError
from bgdeploy.finding import Check, Finding
from bgdeploy.jobs.store import looking_into
from bgdeploy.jobs.transitions import databases
from bgdeploy.service.doctor import (
    aliases,
    base_folder,
    clocks,
    configuration,
    disk_of_table,
    job_table,
    limits,
    state_folder,
    stuck,
    workers,
)
from bgdeploy.service.doctor.rounds import make_rounds
from bgdeploy.site import Site
from bgdeploy.targets import open_target


def examine(
    file: Path | None, overrides: Mapping[str, Any], *, try_rights: bool = False, clock: Clock = wall
) -> Iterator[Finding]:
    """Yield what is found, subject by subject; never raises, and leaves everything as it was."""
    kept: list[Settings] = []
    yield from make_rounds(
        [Check("configuration", "faults", lambda: configuration.read(file, overrides, kept))]
    )
    if not kept:
        why = "nothing else was looked at: it is not known where everything is"
        yield Finding("configuration", "unknown", why, "Mend the configuration first.")
        return
    with looking(kept[0], clock) as site:
        yield from make_rounds(find_checks(site, try_rights=try_rights))


@contextmanager
def looking(settings: Settings, clock: Clock = wall) -> Iterator[Site]:
    """An installation to look at: nothing is made, bound, migrated or connected."""
    with looking_into(settings.database_path) as store:
        yield Site(settings, store, open_target(settings), "doctor", clock)


def find_checks(site: Site, *, try_rights: bool = False) -> list[Check]:
    """All checks; those of the target stand where what they open is needed next."""

    def owned() -> dict[str, int]:
        kept = sa.select(databases.c.name, databases.c.job_id).where(databases.c.dropped_at.is_(None))
        try:
            with site.store.read() as connection:
                return {row["name"]: row["job_id"] for row in connection.execute(kept).mappings().all()}
        except sa.exc.SQLAlchemyError as error:  # such as a table that is missing
            raise StoreError(f"The job table {site.store.path} cannot be read ({error}).") from error

    return [
        *configuration.checks(site.settings),
        *job_table.checks(site),
        *disk_of_table.checks(site.settings.database_path),
        *state_folder.checks(site),
        *base_folder.checks(site),
        *clocks.checks(site),
        *site.target.checks(owned, try_rights=try_rights),
        *aliases.checks(site),
        *workers.checks(site),
        *stuck.checks(site),
        *limits.checks(site),
    ]
