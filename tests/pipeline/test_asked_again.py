"""What a person asks for again is loaded, whatever it shares its timestamp with."""

from __future__ import annotations

from collections.abc import Callable

from bgdeploy.service import operate
from tests.pipeline.place import OLD, Place, jobs


def test_a_reload_of_what_is_live_that_failed_can_be_retried(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.live_through("acme", OLD, OLD + 1)
    again = operate.reload(place.site, 2, by="a test")
    place.run(bad=[OLD + 1])
    assert place.rows(jobs, jobs.c.id == again["id"])[0]["state"] == "failed"
    operate.retry(place.site, again["id"], by="a test")
    assert place.load_next()
    assert place.rows(jobs, jobs.c.id == again["id"])[0]["state"] == "loaded"
