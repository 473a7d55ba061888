"""Tables: nothing is lost, everything fits, nothing in a cell can steer the terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgdeploy.cli.tables import fitted, plain

COLUMNS = ("id", "state", "why")
ROWS = [(1, "failed", "The ids of nodes/Entity repeat; see the file"), (2, "switched", None)]


def bare(line: str) -> str:
    return re.sub(r"\x1b\[\d*m", "", line)


def test_a_pipe_gets_a_line_for_each_row() -> None:
    assert plain(COLUMNS, [*ROWS, (3, "loaded", "two\nlines")]) == [
        "id  state     why",
        "1   failed    The ids of nodes/Entity repeat; see the file",
        "2   switched",
        "3   loaded    two lines",
    ]


def test_a_terminal_that_is_wide_enough_gets_one_too_with_states_in_colours() -> None:
    lines = fitted(COLUMNS, ROWS, 80)
    assert [bare(line).rstrip() for line in lines] == plain(COLUMNS, ROWS)
    assert lines[0].startswith("\x1b[1mid")
    assert "\x1b[31mfailed  \x1b[0m" in lines[1] and "\x1b[32mswitched\x1b[0m" in lines[2]


def test_what_is_too_wide_is_folded_at_its_words() -> None:
    assert [bare(line).rstrip() for line in fitted(COLUMNS, ROWS[:1], 34)] == [
        "id  state   why",
        "1   failed  The ids of",
        "            nodes/Entity repeat;",
        "            see the file",
    ]


def test_colours_are_left_out_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "".join(fitted(COLUMNS, ROWS, 80))


def test_wide_characters_take_two_places() -> None:
    lines = [bare(line) for line in fitted(("name", "x"), [("データ", 1), ("Größe", 2)], 80)]
    assert lines[1:] == ["データ  1", "Größe   2"]


CELL = st.text(st.characters(codec="utf-8"), max_size=60)


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=5), st.integers(30, 120))
def test_nothing_steers_the_terminal_and_nothing_is_lost(rows: list[tuple[str, str, str]], room: int) -> None:
    lines = [bare(line) for line in fitted(("a", "b", "c"), rows, room)]
    text = "".join(lines)
    assert text.isprintable()
    seen = sorted(char for char in text if not char.isspace())
    wanted = sorted(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for char in "abc" + "".join(cell for row in rows for cell in row)
        if char != "\n" and not (char.isspace() and char.isprintable())
    )
    assert seen == wanted


@given(
    st.lists(st.tuples(*[st.text("ab c-d", max_size=70)] * 4), min_size=1, max_size=5), st.integers(60, 120)
)
def test_every_line_fits(rows: list[tuple[str, ...]], room: int) -> None:
    assert all(len(bare(line)) <= room for line in fitted(("one", "two", "three", "four"), rows, room))
