"""Returning: a paused customer goes on, and a removed one comes back once everything of it is gone."""

from __future__ import annotations

from bgdeploy.errors import Refused
from bgdeploy.finding import many
from bgdeploy.jobs import lineage
from bgdeploy.jobs.rows import get_customer
from bgdeploy.pipeline import switch as stage
from bgdeploy.site import Site


def resume(site: Site, name: str) -> None:
    """Take a pause back, or a removal: the customer's next snapshot is loaded again.

    Raises Refused while a removed customer's databases are still to be dropped: one that is doomed would
    else become the way back of whatever is live next.
    """
    with site.store.read() as connection:
        customer = get_customer(connection, name)
        left = lineage.kept_databases(connection, name)
    if customer["removed_at"] is not None and (left or customer["live"]):
        raise Refused(
            f"{name} is leaving: {many(len(left), 'database')} of it still to be dropped "
            f"({', '.join(row['name'] for row in left[:3])}{', ...' if len(left) > 3 else ''}).",
            kept="It stays removed.",
            cure="A running bgdeploy serve or work drops them, or: bgdeploy run. Then again: "
            f"bgdeploy resume {name}",
        )
    stage.resume(site, name)
