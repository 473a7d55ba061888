"""Pages of a listing: together they are the whole, in order, however the lines are sorted."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from typing import Any

import pytest

from bgdeploy.config import load_settings
from bgdeploy.errors import NotFound
from bgdeploy.jobs.states import State
from bgdeploy.jobs.transitions import customers, jobs
from bgdeploy.pipeline.alias import switches
from bgdeploy.service.customers import list_customers
from bgdeploy.service.results import Customer, Failure
from bgdeploy.service.views import (
    CUSTOMER_ORDERS,
    JOB_ORDERS,
    SWITCH_ORDERS,
    Page,
    list_events,
    list_jobs,
    list_switches,
    pick_customers,
)
from bgdeploy.site import Site, open_site
from bgdeploy.targets.base import DatabaseInfo
from tests.house import House
from tests.jobs.tables import add_customer, opened
from tests.pipeline.fake import FakeTarget

COUNT = 57


@pytest.fixture
def site(house: House) -> Site:
    """Jobs and switches of three customers, with many equal values to sort by."""
    site = open_site(load_settings(house.folder / "config.yaml"))
    chance = random.Random(7)
    for name in ("a", "b", "c"):
        add_customer(site.store, name)
    with site.store.write() as connection:
        for number in range(COUNT):
            row: dict[str, Any] = {
                "customer": chance.choice("abc"),
                "timestamp": number,
                "state": chance.choice(list(State)[:2]),
                "rows_expected": chance.choice([None, 5, 500]),
                "created_at": 0.0,
                "updated_at": float(chance.randrange(4)),
            }
            connection.execute(jobs.insert().values(**row))
            move = {
                "at": float(number),
                "target": "x",
                "kind": "deploy",
                "by": "t",
                "why": "t",
                "generation": 1,
            }
            took = chance.choice([None, 1.5, 2.5])
            connection.execute(switches.insert().values(customer=row["customer"], took_ms=took, **move))
    return site


@pytest.mark.parametrize("down", ["", "-"])
@pytest.mark.parametrize("sort", JOB_ORDERS)
def test_the_pages_of_jobs_are_all_jobs_in_order(site: Site, sort: str, down: str) -> None:
    whole = list_jobs(site, page=Page(limit=1000, sort=down + sort))
    assert len(whole) == COUNT
    found: list[dict[str, Any]] = []
    while page := list_jobs(
        site, page=Page(limit=10, sort=down + sort, before=found[-1].id if found else None)
    ):
        found += page
    assert found == whole
    key = {"created": "id", "updated": "updated_at", "snapshot": "timestamp", "rows": "rows_expected"}.get(
        sort, sort
    )
    values = [getattr(job, key) or 0 for job in whole]
    assert values == sorted(values, reverse=bool(down))


@pytest.mark.parametrize("sort", ["at", "-at", "took", "-took", "customer", "-customer"])
def test_the_pages_of_switches_are_all_switches(site: Site, sort: str) -> None:
    assert sort.removeprefix("-") in SWITCH_ORDERS
    whole = list_switches(site, page=Page(limit=1000, sort=sort))
    found: list[dict[str, Any]] = []
    while page := list_switches(site, page=Page(limit=10, sort=sort, before=found[-1].id if found else None)):
        found += page
    assert found == whole
    assert len(whole) == COUNT


def test_a_line_that_comes_meanwhile_moves_no_other(site: Site) -> None:
    first = list_jobs(site, page=Page(limit=10, sort="-created"))
    with site.store.write() as connection:
        new = {"customer": "a", "timestamp": 999, "state": "queued", "created_at": 0.0, "updated_at": 9.0}
        connection.execute(jobs.insert().values(**new))
    second = list_jobs(site, page=Page(limit=10, sort="-created", before=first[-1].id))
    assert [job.id for job in first + second] == list(range(COUNT, COUNT - 20, -1))


def test_a_page_goes_on_from_a_line_that_is_there(site: Site) -> None:
    with pytest.raises(NotFound, match="no line 999"):
        list_jobs(site, page=Page(sort="rows", before=999))


def test_times_take_in_the_first_and_leave_out_the_last(site: Site) -> None:
    found = list_switches(site, page=Page(sort="at", since=10.0, until=13.0))
    assert [one.at[-3:] for one in found] == ["10Z", "11Z", "12Z"]


def test_events_are_the_newest_and_oldest_first(site: Site) -> None:
    from bgdeploy.jobs.states import Actor

    with opened(site.store, Actor.OPERATOR) as tx:
        for name in ("a", "b", "a", "b", "a"):
            tx.say("customer.resumed", customer=name, by="a test")
    assert [event.id for event in list_events(site, limit=3)] == [3, 4, 5]
    assert [event.id for event in list_events(site, page=Page(limit=2, sort="-at", before=3))] == [1, 2]
    assert [event.id for event in list_events(site, customer="b")] == [2, 4]


def customer(name: str, **more: Any) -> Customer:
    blank = dict.fromkeys(one.name for one in fields(Customer))
    return Customer(**{**blank, "customer": name, "paused": False, **more})


PEOPLE = [
    customer("acme", live="acme-1", live_since="2026-01-02", snapshot_timestamp=5, counts={"labels": {"P": 9}}),
    customer("acme-eu", live="acme-eu-1", standby="acme-eu-0", live_since="2026-01-01", snapshot_timestamp=7,
             counts={"labels": {"P": 1}, "types": {"R": 1}}, paused=True),
    customer("borealis", trouble="the alias points at nothing", failed=Failure(job=4, timestamp=1, error_code="", error="", hint=None)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, "acme acme-eu borealis"),
        ({"sort": "-customer"}, "borealis acme-eu acme"),
        ({"states": ["live"]}, "acme acme-eu"),
        ({"states": ["standby"]}, "acme-eu"),
        ({"states": ["none"]}, "borealis"),
        ({"states": ["failed"]}, "borealis"),
        ({"states": ["paused", "trouble"]}, "acme-eu borealis"),
        ({"text": "acme"}, "acme acme-eu"),
        ({"text": "eu"}, "acme-eu"),
        ({"sort": "since"}, "acme-eu acme borealis"),
        ({"sort": "-snapshot"}, "acme-eu acme borealis"),
        ({"sort": "rows"}, "acme-eu acme borealis"),
        ({"sort": "-rows", "states": ["live"]}, "acme acme-eu"),
    ],
)
def test_customers_are_picked_and_sorted_and_who_has_no_value_comes_last(
    wanted: dict[str, Any], names: str
) -> None:
    assert wanted.get("sort", "customer").removeprefix("-") in CUSTOMER_ORDERS
    assert [one.customer for one in pick_customers(PEOPLE, **wanted)] == names.split()


class Asked(FakeTarget):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def aliases(self) -> dict[str, str]:
        self.asked.append("aliases")
        return {"a": "a-1", "b": "b-1"}

    def databases(self) -> list[DatabaseInfo]:
        self.asked.append("databases")
        return [DatabaseInfo("a-1", "online")]

    def alias(self, name: str) -> str | None:
        raise AssertionError("a listing asks for all of them at once")


def test_a_listing_of_customers_asks_the_target_twice_however_many_there_are(site: Site) -> None:
    target = Asked()
    with site.store.write() as connection:
        for name, live in (("a", "a-1"), ("b", "b-1"), ("c", "c-1")):
            connection.execute(customers.update().where(customers.c.name == name).values(live=live))
    found = list_customers(replace(site, target=target))
    assert [one.trouble for one in found] == [None, "b-1 is gone", "the alias points at nothing"]
    assert sorted(target.asked) == ["aliases", "databases"]
