"""Times as people write them, and calls as they would be typed again."""

from __future__ import annotations

import pytest
import typer

from bgdeploy.cli import listing
from bgdeploy.cli.listing import moment, order

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1767741427", 1767741427),
        ("0", 0),
        ("2026-01-31", 1769817600),
        ("2026-01-31T12:00", 1769860800),
        ("2026-01-31 12:00:00", 1769860800),
        ("2026-01-31T12:00:00Z", 1769860800),
        ("2026-01-31T12:00:00+02:00", 1769853600),
        ("45s", NOW - 45),
        ("30min", NOW - 1800),
        ("30m", NOW - 1800),
        ("1.5h", NOW - 5400),
        ("2d", NOW - 172800),
        ("1w", NOW - 604800),
        ("2d ago", NOW - 172800),
    ],
)
def test_a_moment_is_read_in_utc_as_seconds_or_as_an_age(
    monkeypatch: pytest.MonkeyPatch, text: str, seconds: float
) -> None:
    monkeypatch.setattr(listing, "wall", lambda: NOW)
    assert moment(text, "--since") == seconds


@pytest.mark.parametrize(
    "text", ["yesterday", "2 d", "2d  ago", "ago", "-5", "2y", "2026-13-01", "", "d", "1e5"]
)
def test_what_is_no_moment_is_a_usage_error_that_shows_how(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="12h"):
        moment(text, "--since")
    assert moment(None, "--since") is None


def test_an_order_is_turned_round() -> None:
    assert order("rows", False, ["rows"]) == "rows"
    assert order("-rows", False, ["rows"]) == "-rows"
    assert order("-rows", True, ["rows"]) == "rows"
    assert order("rows", True, ["rows"]) == "-rows"
    with pytest.raises(typer.BadParameter, match="there are: rows"):
        order("--rows", False, ["rows"])
