"""Offenders of a job: its snapshot is read again, and every row whose id or end does not fit is written down."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bgdeploy.errors import Refused
from bgdeploy.jobs.rows import Row, get_job, title
from bgdeploy.pipeline.admit import folder_of, is_as_it_was, look_at
from bgdeploy.site import Site
from bgdeploy.snapshots.index import Place, opened_index
from bgdeploy.snapshots.offenders import Finding, Offender, find_all
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.snapshots.source import Snapshot

COLUMNS = ("kind", "table", "problem", "id", "file", "row")
Write = Callable[[Finding], None]


@dataclass(frozen=True)
class Report:
    """What was found in the snapshot of one job; ``folder`` is what the files' names are relative to."""

    job: Row
    folder: Path
    findings: tuple[Finding, ...]

    @property
    def rows(self) -> int:
        """Rows to be changed, in all."""
        return sum(finding.rows for finding in self.findings)


def list_offenders(site: Site, job_id: int, output: Path | None, tell: Callable[[str, int], None]) -> Report:
    """Find all offenders of a job's snapshot and write them to ``output``; ``tell`` hears where it looks.

    Raises NotFound, Refused when the folder is not what the job saw, NotReadable, BadInput, and NoRoom.
    """
    with site.store.read() as connection:
        job = get_job(connection, job_id)
    snapshot = _open(site, job)
    findings: list[Finding] = []
    with (
        tempfile.TemporaryDirectory(prefix="offenders-", dir=site.settings.state_dir) as folder,
        opened_index(snapshot, snapshot.tables, Path(folder, "index")) as index,
        _writing(output) as write,
    ):
        for finding in find_all(index, across=site.target.keys_cross_folders, tell=tell):
            write(finding)
            findings.append(finding)
        _check(site, job)
    return Report(job, snapshot.path, tuple(findings))


def _open(site: Site, job: Row) -> Snapshot:
    """The snapshot as its load sees it."""
    found = _check(site, job)
    columns = (job["settings"] or {}).get("columns") or site.settings.dataset.columns.model_dump()
    place = folder_of(site, job)
    return open_snapshot(job["customer"], job["timestamp"], place, columns, found, site.target.refuses)


def _check(site: Site, job: Row) -> str:
    """Return the folder's fingerprint; refuse when it is not the one the job was made from."""
    found = look_at(site, job)
    if found is not None and is_as_it_was(job, found):
        return found.text
    happened = f"changed since job {job['id']} saw it" if found else "is gone"
    what = f"The folder of {title(job)} {happened}: {folder_of(site, job)}"
    cure = "Look at it anew with: bgdeploy scan --once" if found else "Put it back to look into it."
    raise Refused(what, kept="Nothing was written.", cure=cure)


@contextmanager
def _writing(output: Path | None) -> Iterator[Write]:
    """Write findings as CSV or JSON lines; the file appears when it is whole."""
    if output is None:
        yield lambda finding: None
        return
    aside = output.with_name(f"{output.name}.part")
    try:
        with open(aside, "w", encoding="utf-8", newline="") as file:
            yield (_csv(file) if output.suffix == ".csv" else _json(file))
        os.replace(aside, output)
    finally:
        aside.unlink(missing_ok=True)


def _csv(file: IO[str]) -> Write:
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    return lambda finding: writer.writerows(_lines(finding))


def _json(file: IO[str]) -> Write:
    def write(finding: Finding) -> None:
        for line in _lines(finding):
            file.write(json.dumps(dict(zip(COLUMNS, line, strict=True)), ensure_ascii=False) + "\n")

    return write


def _lines(finding: Finding) -> Iterator[tuple[Any, ...]]:
    about = finding.about
    for id_, place in finding.lines():
        yield about.kind, about.table, finding.problem, id_, place.file, place.row


def show_report(report: Report) -> dict[str, Any]:
    """Return a report with the keys that scripts rely on."""
    of_job = {
        "job": report.job["id"],
        "customer": report.job["customer"],
        "timestamp": report.job["timestamp"],
    }
    found = [_show_finding(finding) for finding in report.findings]
    return {**of_job, "folder": str(report.folder), "rows": report.rows, "findings": found}


def _show_finding(finding: Finding) -> dict[str, Any]:
    about = {"kind": finding.about.kind, "table": finding.about.table, "problem": finding.problem}
    first = [_show_offender(offender) for offender in finding.first]
    return {**about, "rows": finding.rows, "ids": finding.ids, "first": first}


def _show_offender(offender: Offender) -> dict[str, Any]:
    places = [_show_place(place) for place in offender.places]
    return {"id": offender.id, "places": places, "more": offender.more}


def _show_place(place: Place) -> dict[str, Any]:
    return {"file": place.file, "row": place.row}
