"""What a server says of a query reaches people as one line with a hint."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bgdeploy.errors import TargetError
from bgdeploy.service.query import ask
from tests.pipeline.place import OLD, Place

SAID = "Asking acme: the server refused. Invalid input 'RETUR' (line 1, column 11 (offset: 10))\n\"MATCH (n) RETUR n\"\n           ^"


def test_a_servers_drawing_of_the_statement_is_left_out(
    make_place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> object:
        raise TargetError(SAID, cure="Correct the query; it may only read.")

    place = make_place()
    place.live_through("acme", OLD)
    monkeypatch.setattr(place.target, "query", refuse)
    with pytest.raises(TargetError) as caught:
        ask(place.site, "acme", "MATCH (n) RETUR n")
    assert caught.value.what == SAID.partition("\n")[0]
    assert "backticks" in caught.value.cure
