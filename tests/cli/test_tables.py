"""Tables: nothing is lost, everything fits, nothing in a cell can steer the terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgdeploy.cli.render import Shape, aligned, fitted

COLUMNS = ("id", "state", "why")
ROWS = [(1, "failed", "The ids of nodes/Entity repeat; see the file"), (2, "switched", None)]


def bare(line: str) -> str:
    return re.sub(r"\x1b\[\d*m", "", line)


def test_a_pipe_gets_a_line_for_each_row() -> None:
    assert aligned(COLUMNS, [*ROWS, (3, "loaded", "two\nlines")]) == [
        "id  state     why",
        "1   failed    The ids of nodes/Entity repeat; see the file",
        "2   switched",
        "3   loaded    two lines",
    ]


def test_a_terminal_that_is_wide_enough_gets_one_too_with_states_in_colours() -> None:
    lines = fitted(COLUMNS, ROWS, 80)
    assert [bare(line).rstrip() for line in lines] == aligned(COLUMNS, ROWS)
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


SHAPE = Shape(text=("why",), spare=("rows", "snapshot"))
JOBS = ("id", "snapshot", "database", "rows", "why")
NAMES = (13, 1767741427, "borealis-1767741427", "1,000,000 / 2,000,000")


def shaped(room: int, why: str = "It has 96% fewer rows; a person decides by switch") -> list[str]:
    return [bare(line).rstrip() for line in fitted(JOBS, [(*NAMES, why)], room, SHAPE)]


def test_a_text_has_two_lines_of_its_column_where_there_is_room() -> None:
    assert shaped(100) == [
        "id  snapshot    database             rows                   why",
        "13  1767741427  borealis-1767741427  1,000,000 / 2,000,000  It has 96% fewer rows; a person decides",
        "                                                            by switch",
    ]


def test_a_spare_column_goes_before_the_text_moves_below_its_row() -> None:
    assert shaped(80)[0] == "id  snapshot    database             why"
    assert shaped(60) == [
        "id  snapshot    database             rows",
        "    why",
        "13  1767741427  borealis-1767741427  1,000,000 / 2,000,000",
        "    It has 96% fewer rows; a person decides by switch",
    ]
    assert shaped(60, "")[0] == "id  snapshot    database             why"


def test_a_text_is_cut_behind_a_word_and_a_name_is_never_broken() -> None:
    assert shaped(30, "word " * 30) == [
        "id  database",
        "    why",
        "13  borealis-1767741427",
        "    word word word word word",
        "    word word word word word …",
    ]
    assert shaped(10)[2] == "13  borealis-1767741427", "too wide is better than broken"


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
