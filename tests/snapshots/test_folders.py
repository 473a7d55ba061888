"""Which folders are customers and snapshots, and the reason for each that is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bgdeploy.errors import NotReadable
from bgdeploy.snapshots.folders import Found, list_customers, list_timestamps

NOW = 1_800_000_000.0


def taken(customer: Path) -> frozenset[int]:
    return list_timestamps(customer, now=NOW).timestamps


def skipped(customer: Path) -> tuple[Found, ...]:
    return list_timestamps(customer, now=NOW).skipped


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("01767741427", "begins with a zero"),
        ("0", "begins with a zero"),
        ("1767741427000", "looks like milliseconds"),
        ("1767741427000000", "looks like microseconds"),
        ("1767741427000000000", "looks like nanoseconds"),
        (str(int(NOW) + 90_000), "lies in the future"),
        ("9" * 200, "lies in the future"),
        ("2026-01-07", "is not a number of seconds"),
        ("latest", "is not a number of seconds"),
        ("-5", "is not a number of seconds"),
        ("1767741427 ", "is not a number of seconds"),
        ("１７６７７４１４２７", "is not a number of seconds"),
        ("17677\n41427", "cannot be printed"),
    ],
)
def test_a_name_that_is_no_timestamp_is_skipped_with_its_reason(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).mkdir()
    (found,) = skipped(tmp_path)
    assert found.timestamp is None and not taken(tmp_path)
    assert said in (found.skipped or "")
    assert found.name.isprintable()


@pytest.mark.parametrize("name", ["1", "1767741427", str(int(NOW)), str(int(NOW) + 86_400)])
def test_plain_seconds_up_to_tomorrow_are_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert taken(tmp_path) == {int(name)}


def test_hidden_and_bookkeeping_names_are_passed_over(tmp_path: Path) -> None:
    for name in (".1767741427.writing", "_temporary", "_SUCCESS", ".DS_Store"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    assert not taken(tmp_path) and not skipped(tmp_path)


def test_a_file_in_a_snapshots_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "1700000001").touch()
    assert skipped(tmp_path)[0].skipped == "this is a file; a snapshot is a folder"


@pytest.mark.parametrize(
    ("goal", "said"), [("/etc", "leads out"), ("/nowhere", "leads out"), ("gone", "does not lead")]
)
def test_a_link_may_not_leave_the_base_folder(tmp_path: Path, goal: str, said: str) -> None:
    base = tmp_path / "data"
    (base / "acme").mkdir(parents=True)
    os.symlink(goal, base / "acme/1700000001")
    os.symlink(goal, base / "other")
    assert said in (skipped(base / "acme")[0].skipped or "")
    assert said in (list_customers(base)[-1].skipped or "")


def test_a_link_inside_the_base_folder_is_followed(tmp_path: Path) -> None:
    base = tmp_path / "data"
    (base / "acme/1700000001").mkdir(parents=True)
    os.symlink("1700000001", base / "acme/1700000002")
    assert taken(base / "acme") == {1700000001, 1700000002}


def test_customers_are_folders_with_names_that_can_be_printed(tmp_path: Path) -> None:
    for name in ("acme", "Größe", "a\nb", ".hidden", "_tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    found = {one.name: one.skipped for one in list_customers(tmp_path)}
    assert found["acme"] is found["Größe"] is None
    assert "cannot be printed" in (found["a\\nb"] or "")
    assert len(found) == 3


def test_what_cannot_be_listed_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(NotReadable, match="cannot be listed"):
        list_customers(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(NotReadable, match="file"):
        list_timestamps(tmp_path / "file", now=NOW)
