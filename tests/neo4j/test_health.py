"""What each figure of a server means for starting work; pure functions."""

from __future__ import annotations

import pytest

from bgdeploy.targets.neo4j.health import Figure


@pytest.mark.parametrize(
    ("figure", "verdict", "text"),
    [
        (Figure("heap", 84.9, 85), "ok", "heap 84.9 % (at most 85 %)"),
        (Figure("heap", 85.1, 85), "wait", "heap 85.1 % (at most 85 %)"),
        (Figure("heap", None, 85), "unknown", "heap unknown (at most 85 %)"),
        (Figure("heap", None, 85, " %", "proceed"), "ok", "heap unknown (at most 85 %)"),
        (Figure("page cache used", 97.0, None), "ok", "page cache used 97 %"),
        (Figure("page cache used", None, None), "ok", "page cache used unknown"),
        (Figure("databases", 100, 100, ""), "ok", "databases 100 (at most 100)"),
        (Figure("databases", 101, 100, ""), "wait", "databases 101 (at most 100)"),
    ],
)
def test_a_figure_says_its_number_and_its_threshold(figure: Figure, verdict: str, text: str) -> None:
    assert figure.verdict == verdict
    assert figure.text == text
