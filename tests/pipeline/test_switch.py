"""Which of a customer's waiting databases goes live, and when."""

from __future__ import annotations

from collections.abc import Callable

from bgdeploy.pipeline import scan, switch
from bgdeploy.service import pins
from tests.pipeline.place import OLD, Place, jobs


def test_while_the_newest_is_put_off_no_older_one_takes_its_place(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.drop("acme", OLD, OLD + 1)
    scan.scan(place.site)
    assert place.load_next()
    pins.pin(place.site, "acme", f"acme-{OLD}", by="a test")  # so the cleaner leaves it waiting
    assert place.load_next()
    assert place.states("acme") == {OLD: "loaded", OLD + 1: "loaded"}
    with place.site.store.write() as connection:
        later = jobs.update().where(jobs.c.timestamp == OLD + 1).values(not_before=place.now + 60)
        connection.execute(later)
    assert switch.switch_ready(place.site) == 0
    assert place.target.pointing == {}
    place.now += 61
    assert switch.switch_ready(place.site) == 1
    assert place.target.pointing == {"acme": f"acme-{OLD + 1}"}
