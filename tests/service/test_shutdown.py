"""Signals that come at a bad moment."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from bgdeploy.worker.shutdown import Stop, listen


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    made = Stop()
    listen(made)
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.timeout(60)
def test_a_signal_while_the_main_thread_is_about_to_wait_for_it_is_heard(stop: Stop) -> None:
    with stop.asked._cond:  # type: ignore[attr-defined]  # as Event.wait holds it before it sleeps
        signal.raise_signal(signal.SIGTERM)
    assert stop.asked.wait(30)
    with stop.hurry._cond:  # type: ignore[attr-defined]
        signal.raise_signal(signal.SIGINT)
    assert stop.hurry.wait(30)
