"""Offenders of a job: its snapshot is read again, and every row whose id or end does not fit is written down.

The command starts a process that reads the files and may die of them; it gets a ticket as a loading process does.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgdeploy.actions import Hint, do
from bgdeploy.errors import BgdeployError, Refused
from bgdeploy.jobs.transitions import Row, get_job, title
from bgdeploy.pipeline.admit import folder_of, is_as_it_was, look_at
from bgdeploy.service import results
from bgdeploy.site import Site
from bgdeploy.snapshots.keys import Place
from bgdeploy.snapshots.offenders import (
    Finding,
    Offender,
    count_more,
    headline,
    name,
)
from bgdeploy.worker import child as children


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

    Raises NotFound, Refused when the folder is not what the job saw, BadInput, and TargetFull where the disk has no room for the search.
    """
    with site.store.read() as connection:
        job = get_job(connection, job_id)
    found = _check(site, job)
    with (
        tempfile.TemporaryDirectory(prefix="offenders-", dir=site.settings.state_dir) as folder,
        _aside(output) as aside,
        children.started() as child,
    ):
        child.send(_ticket(site, job, found, Path(folder, "keys"), aside))
        findings = tuple(_listen(child, tell))
        _check(site, job)
    return Report(job, folder_of(site, job), findings)


def _check(site: Site, job: Row) -> str:
    """Return the folder's fingerprint; refuse when it is not the one the job was made from."""
    found = look_at(site, job)
    if found is not None and is_as_it_was(job, found):
        return found.text
    happened = f"changed since job {job['id']} saw it" if found else "is gone"
    what = f"The folder of {title(job)} {happened}: {folder_of(site, job)}"
    again = Hint("Look at it anew with: ", do("scan"))
    raise Refused(what, kept="Nothing was written.", cure=again if found else "Put it back to look into it.")


def _ticket(site: Site, job: Row, found: str, folder: Path, aside: Path | None) -> dict[str, Any]:
    # The columns that its load uses; before that, those it would use.
    settings = {**site.settings.target_settings(), **(job["settings"] or {})}
    snapshot = {"customer": job["customer"], "timestamp": job["timestamp"], "path": str(folder_of(site, job))}
    return {
        "stage": "offenders",
        "target": site.target.kind,
        "settings": {**settings, "state_dir": str(site.settings.state_dir)},
        "access": site.settings.target_access(),
        "place": "",
        "snapshot": {**snapshot, "fingerprint": found},
        "inspection": None,  # the files are read once more: what is wrong in them may not be what was found
        "folder": str(folder.absolute()),
        "output": aside and str(aside.absolute()),
        "table": aside is not None and ".csv" in aside.suffixes,
    }


def _listen(child: children.Child, tell: Callable[[str, int], None]) -> Iterator[Finding]:
    for message in child.messages():
        if "error" in message:
            raise children.as_error(message["error"])
        if "done" in message:
            return
        if "found" in message:
            yield _as_finding(message["found"])
        else:
            tell(message["folder"], message["rows"])
    raise BgdeployError(f"The process that reads the snapshot {child.how()}.", kept="Nothing was written.")


def _as_finding(told: Mapping[str, Any]) -> Finding:
    first = (
        Offender(one["id"], tuple(Place(*place) for place in one["places"]), one["more"])
        for one in told["first"]
    )
    return Finding(**{**told, "labels": tuple(told["labels"]), "first": tuple(first)})


@contextmanager
def _aside(output: Path | None) -> Iterator[Path | None]:
    """Yield the file to write to, which takes the output's name when the block ends well."""
    if output is None:
        yield None
        return
    aside = output.with_name(f"{output.name}.part")
    try:
        aside.write_bytes(b"")
        yield aside
        os.replace(aside, output)
    finally:
        aside.unlink(missing_ok=True)


def show_report(report: Report, output: Path | None) -> results.Offenders:
    """Return a report as it is shown."""
    return results.Offenders(
        job=report.job["id"],
        customer=report.job["customer"],
        timestamp=report.job["timestamp"],
        folder=str(report.folder),
        rows=report.rows,
        findings=[_show_finding(finding) for finding in report.findings],
        output=None if output is None else str(output),
    )


def _show_finding(finding: Finding) -> results.Misfit:
    told = filter(None, (*map(name, finding.first), count_more(finding, len(finding.first))))
    return results.Misfit(
        kind=finding.kind,
        table=finding.table,
        problem=finding.problem,
        rows=finding.rows,
        ids=finding.ids,
        first=[
            results.Offender(
                id=one.id,
                places=[results.Place(file=place.file, row=place.row) for place in one.places],
                more=one.more,
            )
            for one in finding.first
        ],
        said=headline(finding),
        told=tuple(told),
    )
