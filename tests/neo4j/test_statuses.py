"""Rows of SHOW DATABASES in every status and shape, and what bgdeploy makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from bgdeploy.targets.neo4j.databases import failures, find, gather, list_databases


def row(
    name: str, status: str, *, wanted: str = "online", server: str = "a:7687", **more: Any
) -> dict[str, Any]:
    """One row as Neo4j 5.26 gives it."""
    plain = {
        "name": name, "type": "standard", "aliases": [], "access": "read-write", "address": server, "role": "primary",
        "writer": True, "requestedStatus": wanted, "currentStatus": status, "statusMessage": "", "default": False,
        "home": False, "constituents": [],
    }  # fmt: skip
    return {**plain, **more}


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        ("online", "online"),
        ("starting", "coming"),
        ("stopping", "coming"),
        ("store copying", "coming"),
        ("initial", "coming"),
        ("deallocating", "going"),
        ("dirty", "stuck"),
        ("quarantined", "stuck"),
        ("unknown", "coming"),
        ("mixed", "coming"),
        ("a word of a later version", "coming"),
    ],
)
def test_each_status_has_a_meaning_and_an_unknown_one_means_wait(status: str, verdict: str) -> None:
    assert find([row("acme-1", status)], "acme-1").verdict == verdict


def test_offline_is_stuck_only_with_a_reason_or_by_wish() -> None:
    assert find([row("a", "offline")], "a").verdict == "coming"
    lost = row("a", "offline", statusMessage="Transaction logs are missing")
    assert find([lost], "a").verdict == "stuck"
    assert "Transaction logs are missing" in find([lost], "a").text
    assert find([row("a", "offline", wanted="offline")], "a").verdict == "stuck"


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        (("online", "online", "online"), "online"),
        (("online", "starting", "online"), "coming"),
        (("online", "online", "store copying"), "coming"),
        (("quarantined", "online", "online"), "stuck"),
        (("deallocating", "online", "starting"), "coming"),
        (("deallocating", "online", "online"), "online"),
        (("deallocating", "deallocating"), "going"),
        (("starting", "dirty", "deallocating"), "stuck"),
    ],
)
def test_a_cluster_is_as_far_as_its_last_server(statuses: tuple[str, ...], verdict: str) -> None:
    rows = [row("a", status, server=f"{number}:7687") for number, status in enumerate(statuses)]
    for some in (rows, rows[::-1]):  # after a change of leader the servers answer in another order
        assert find(some, "a").verdict == verdict
    others = [row("b", "online"), *rows, row("c", "dirty")]
    assert find(others, "a").verdict == verdict


def test_a_change_of_leader_changes_nothing_but_roles() -> None:
    before = [row("a", "online", server="1", writer=True), row("a", "online", server="2", writer=False)]
    after = [row("a", "online", server="2", writer=True), row("a", "online", server="1", writer=False)]
    assert find(before, "a").verdict == find(after, "a").verdict == "online"
    assert [one.name for one in gather([*before, *after])] == ["a"]


def test_the_servers_own_databases_are_nobodys() -> None:
    rows = [
        row("system", "online", type="system"),
        row("neo4j", "online", default=True, home=True),
        row("all", "online", type="composite", constituents=["all.a"]),
        row("acme-1", "online"),
        row("acme-1", "starting", server="b:7687"),
        row("acme-2", "deallocating"),
    ]
    assert [(one.name, one.status) for one in list_databases(rows)] == [
        ("acme-1", "unknown"),
        ("acme-2", "dropping"),
    ]


def test_the_rows_of_a_command_with_wait_name_who_failed() -> None:
    rows = [
        {"address": "a:7687", "state": "CaughtUp", "message": "caught up", "success": True},
        {"address": "b:7687", "state": "Failed", "message": "no space left on device", "success": False},
    ]
    assert failures(rows) == "b:7687: no space left on device"
    assert failures(rows[:1]) == "" == failures([])
