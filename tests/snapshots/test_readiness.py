"""When a folder is complete: by marker, by manifest, or by settling."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bgdeploy.errors import NotReadable
from bgdeploy.jobs.reasons import because
from bgdeploy.snapshots.layout import read_layout
from bgdeploy.snapshots.readiness import Readiness, compare_manifest, find_rewritten, fingerprint, judge
from bgdeploy.worker import inspecting
from tests.snapshots.folders import KNOWS, PEOPLE, write

NOW = 1_800_000_000.0


def look(folder: Path, *, now: float = NOW, seen: str | None = None, at: float | None = None) -> Readiness:
    """The verdict on one look, with the manifest compared as an inspector does it."""
    found = fingerprint(folder)
    if found.manifest is not None and not found.manifest.read:
        assert judge(found, now=now, seen=seen, seen_at=at, settle_seconds=30).unread or found.unfinished
        fault = compare_manifest(str(folder), lambda file: None)
        found = replace(found, manifest=replace(found.manifest, fault=fault, read=True))
    return judge(found, now=now, seen=seen, seen_at=at, settle_seconds=30)


def twice(folder: Path, pause: float) -> Readiness:
    """The verdict of a second look, ``pause`` seconds after a first that saw the same."""
    return look(folder, now=NOW + pause, seen=fingerprint(folder).text, at=NOW)


def why(verdict: Readiness) -> str:
    return str(because(verdict.code, **verdict.fields))


def manifest(folder: Path, **changes: Any) -> None:
    """Write a manifest of what is there, with one entry changed."""
    files = []
    for path in sorted(folder.rglob("*.parquet")):
        entry = {"path": str(path.relative_to(folder)), "size": path.stat().st_size}
        entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append({**entry, **changes} if not files else entry)
    (folder / "manifest.json").write_text(json.dumps({"files": files}))


def test_a_marker_counts_at_the_second_look_half_a_second_later(tmp_path: Path) -> None:
    write(tmp_path, PEOPLE)
    first = look(tmp_path)
    assert (first.state, first.marker, first.first) == ("settling", True, True)
    assert twice(tmp_path, 0.4).state == "settling"
    assert twice(tmp_path, 0.5).state == "ready"


def test_a_marker_older_than_the_data_is_only_a_folder_that_settles(tmp_path: Path) -> None:
    write(tmp_path, PEOPLE)
    os.utime(tmp_path / "_SUCCESS", (1, 1))
    assert "_SUCCESS is older than nodes/Person/a.parquet" in why(twice(tmp_path, 1))
    assert twice(tmp_path, 30).state == "ready"


def test_without_a_marker_it_settles(tmp_path: Path) -> None:
    write(tmp_path, PEOPLE, marker=False)
    assert look(tmp_path).state == "settling"
    assert twice(tmp_path, 29.9).state == "settling"
    verdict = twice(tmp_path, 30)
    assert (verdict.state, verdict.marker) == ("ready", False)


def test_a_type_that_nobody_reads_keeps_no_manifest_waiting(tmp_path: Path) -> None:
    odd = Path(__file__).parents[1] / "targets/polars_int128.parquet"
    write(tmp_path, {"nodes/T/a.parquet": odd.read_bytes()}, marker=False)
    manifest(tmp_path, rows=1)
    assert look(tmp_path).state == "ready"


@pytest.mark.parametrize("change", ["rewritten", "grown", "added", "removed", "renamed"])
def test_any_change_starts_the_waiting_anew(tmp_path: Path, change: str) -> None:
    write(tmp_path, {**PEOPLE, **KNOWS}, marker=False)
    seen = fingerprint(tmp_path).text
    file = tmp_path / "nodes/Person/a.parquet"
    if change == "rewritten":
        content, times = file.read_bytes(), file.stat()
        file.unlink()
        file.with_name("other").write_bytes(b"takes the inode")
        file.write_bytes(content)
        file.with_name("other").unlink()
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "grown":
        os.truncate(file, file.stat().st_size + 1)
    elif change == "added":
        write(tmp_path, {"nodes/Person/b.parquet": {"id": ["p3"]}}, marker=False)
    elif change == "removed":
        (tmp_path / "relationships/KNOWS/a.parquet").unlink()
    else:
        file.rename(file.with_name("b.parquet"))
    assert look(tmp_path, now=NOW + 99, seen=seen, at=NOW).first


@pytest.mark.parametrize(
    "name", [".part.parquet.swp", "_metadata", "_committed_7", ".a.parquet.crc", ".old/a.parquet"]
)
def test_what_is_never_data_does_not_disturb(tmp_path: Path, name: str) -> None:
    write(tmp_path, PEOPLE, marker=False)
    seen = fingerprint(tmp_path).text
    write(tmp_path, {f"nodes/Person/{name}": b"x"}, marker=False)
    assert fingerprint(tmp_path).text == seen


def test_a_clock_that_went_back_starts_anew_and_an_empty_folder_waits(tmp_path: Path) -> None:
    write(tmp_path, PEOPLE)
    assert look(tmp_path, now=NOW - 3600, seen=fingerprint(tmp_path).text, at=NOW).first
    (tmp_path / "empty").mkdir()
    assert why(look(tmp_path / "empty")) == "no data files yet"


def test_a_manifest_that_matches_is_complete_at_once(tmp_path: Path) -> None:
    write(tmp_path, {**PEOPLE, **KNOWS}, marker=False)
    manifest(tmp_path, rows=2)
    assert look(tmp_path).state == "ready"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": 1}, "says 1 bytes"),
        ({"rows": 99}, "says 99 rows"),
        ({"sha256": "0" * 64}, "has another sha256"),
        ({"path": "nodes/Person/c.parquet"}, "which is missing"),
        ({"path": "../x.parquet"}, "no path relative to the snapshot"),
        ({"path": "/etc/passwd"}, "no path relative to the snapshot"),
        ({"size": "big"}, "has no size in bytes"),
        ({"size": True}, "has no size in bytes"),
        ({"rows": -1}, "rows that are no number"),
        ({"sha256": "xyz"}, "not 64 hexadecimal digits"),
        ({"path": "relationships/KNOWS/a.parquet"}, "twice"),
    ],
)
def test_a_manifest_that_does_not_match_waits_and_says_why_and_fails_where_a_marker_says_that_all_is_there(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    write(tmp_path, {**PEOPLE, **KNOWS}, marker=False)
    manifest(tmp_path, **changes)
    verdict = twice(tmp_path, 99)
    assert verdict.state == "waiting"
    assert said in why(verdict)
    (tmp_path / "_SUCCESS").touch()
    assert [twice(tmp_path, pause).state for pause in (0.5, 29, 30)] == ["waiting", "waiting", "contradicted"]
    assert said in why(twice(tmp_path, 30))


def test_a_manifest_that_was_just_written_again_has_its_time_to_match(tmp_path: Path) -> None:
    write(tmp_path, PEOPLE)
    manifest(tmp_path, size=1)
    seen = fingerprint(tmp_path).text
    os.utime(tmp_path / "manifest.json", (NOW, NOW))
    assert look(tmp_path, now=NOW + 29, seen=seen, at=NOW - 99).state == "waiting"
    assert look(tmp_path, now=NOW + 30, seen=seen, at=NOW - 99).state == "contradicted"


@pytest.mark.parametrize(
    "name",
    [
        "_temporary/0/attempt_0/a.parquet", "a.parquet.tmp", "a.parquet.inprogress", ".part-0.inprogress.12ab", "a.parquet._COPYING_",
        "a.parquet.filepart", ".a.parquet.Xy12Zz", ".hive-staging_hive_1/0", "_started_77", "__magic_job-1/x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("says_it_is_complete", ["marker", "manifest", "nothing"])
def test_what_is_not_finished_waits_and_says_so_whatever_else_is_there(
    tmp_path: Path, name: str, says_it_is_complete: str
) -> None:
    write(tmp_path, PEOPLE, marker=says_it_is_complete == "marker")
    if says_it_is_complete == "manifest":
        manifest(tmp_path)
    write(tmp_path, {f"nodes/Person/{name}": b""}, marker=False)
    verdict = twice(tmp_path, 99)
    sign = f"nodes/Person/{name.split('/')[0]}"
    assert verdict.state == "waiting"
    assert why(verdict).startswith(f"not finished: {sign} ")
    with pytest.raises(NotReadable, match="is not finished"):
        read_layout(tmp_path)
    if name == "_started_77":
        assert why(verdict).startswith(f"not finished: {sign} has no _committed_77;")
        (tmp_path / "nodes/Person/_committed_77").touch()
    else:
        shutil.rmtree(tmp_path / sign) if (tmp_path / sign).is_dir() else (tmp_path / sign).unlink()
    assert twice(tmp_path, 99).state == "ready"
    assert len(read_layout(tmp_path)) == 1


def test_a_folder_of_files_without_an_ending_is_no_empty_one(tmp_path: Path) -> None:
    write(tmp_path, {"nodes/Person/000000_0": pa.table({"id": [1]})})
    assert twice(tmp_path, 1).state == "ready"


def test_a_file_that_was_written_to_with_its_old_size_and_time_is_told_from_one_that_was_touched(
    tmp_path: Path,
) -> None:
    write(tmp_path, {**PEOPLE, **KNOWS})
    file = tmp_path / "nodes/Person/a.parquet"
    before, content = file.stat(), file.read_bytes()
    seen = fingerprint(tmp_path)
    file.chmod(0o600)
    os.link(tmp_path / "relationships/KNOWS/a.parquet", tmp_path / "copy")
    assert find_rewritten(seen, fingerprint(tmp_path)) is None
    seen = fingerprint(tmp_path)
    with open(file, "r+b") as there:
        there.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = fingerprint(tmp_path)
    assert now.text == seen.text
    assert find_rewritten(seen, now) == "nodes/Person/a.parquet"


def test_a_disk_that_did_not_answer_once_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> int:
        raise OSError(errno.EIO, "Input/output error", path)

    write(tmp_path, PEOPLE, marker=False)
    manifest(tmp_path, rows=2)
    seen = fingerprint(tmp_path).manifest
    assert seen is not None
    request = {"path": str(tmp_path), "digest": seen.digest}
    with monkeypatch.context() as broken:
        broken.setattr("pyarrow.parquet.read_metadata", fail)
        answer = inspecting._compare(request, lambda file: None)
        assert "Input/output error" in answer["fault"]
        assert answer["again"], "what a disk could not say is not remembered"
    assert inspecting._compare(request, lambda file: None) == {"fault": None, "again": False}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"files": [3]}', "[" * 100_000, "\xff"])
def test_a_manifest_that_is_none_waits_and_says_so(tmp_path: Path, text: str) -> None:
    write(tmp_path, PEOPLE)
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    assert "manifest.json is malformed" in why(look(tmp_path))


def test_a_manifest_that_is_a_pipe_or_a_folder_never_blocks(tmp_path: Path) -> None:
    write(tmp_path, PEOPLE)
    os.mkfifo(tmp_path / "manifest.json")
    assert why(look(tmp_path)) == "manifest.json is not a file"


def test_a_log_of_another_format_is_for_the_layout_to_refuse_and_not_for_the_manifest(tmp_path: Path) -> None:
    write(tmp_path, {**PEOPLE, "nodes/Person/_delta_log/0.json": b"{}"})
    manifest(tmp_path)
    assert look(tmp_path).state == "ready"


def test_a_file_that_the_manifest_does_not_know_waits(tmp_path: Path) -> None:
    write(tmp_path, PEOPLE)
    manifest(tmp_path)
    write(tmp_path, KNOWS)
    assert "relationships/KNOWS/a.parquet is not in manifest.json" in why(look(tmp_path))


def test_a_manifest_that_is_huge_is_refused_by_name_and_never_opened(tmp_path: Path) -> None:
    write(tmp_path, PEOPLE)
    with open(tmp_path / "manifest.json", "wb") as file:
        file.truncate(1 << 30)
    verdict = look(tmp_path)
    assert (verdict.state, why(verdict)) == (
        "waiting",
        "manifest.json has 1,024 MiB; at most 64 MiB of it are read",
    )
    assert compare_manifest(str(tmp_path), lambda file: None) is not None
