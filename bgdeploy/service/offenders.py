"""Offenders of a job: its snapshot is read again, and every row whose id or end does not fit is written down."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgdeploy.errors import Refused
from bgdeploy.jobs.rows import Row, get_job, title
from bgdeploy.pipeline.admit import folder_of, look_at
from bgdeploy.service import child as children
from bgdeploy.site import Site


@dataclass(frozen=True)
class Report:
    """What was found in the snapshot of one job; ``folder`` is what the files' names are relative to.

    Each of ``found`` has ``said`` and ``lines`` for people, and the ``finding`` for scripts.
    """

    job: Row
    folder: Path
    found: Sequence[dict[str, Any]]

    @property
    def rows(self) -> int:
        """Rows to be changed, in all."""
        return sum(one["finding"]["rows"] for one in self.found)


def list_offenders(site: Site, job_id: int, output: Path | None, tell: Callable[[str, int], None]) -> Report:
    """Find all offenders of a job's snapshot and write them to ``output``; ``tell`` hears where it looks.

    The files are read by a process of their own. Raises NotFound, Refused when the folder is not what the job
    saw, BadInput, and TargetError, TargetFull among them.
    """
    with site.store.read() as connection:
        job = get_job(connection, job_id)
    found: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="offenders-", dir=site.settings.state_dir) as folder,
        children.started() as child,
    ):
        child.send(
            {**_ticket(site, job), "folder": folder, "output": None if output is None else str(output)}
        )
        for message in child.messages():
            if "looking" in message:
                tell(message["looking"], message["rows"])
            elif "error" in message:
                _check(site, job)  # what was changed or taken away meanwhile looks damaged
                raise children.as_error(message["error"])
            else:
                found = message["done"]["found"]
                break
        else:
            raise child.died()
    return Report(job, folder_of(site, job), found)


def _ticket(site: Site, job: Row) -> dict[str, Any]:
    """The snapshot as its load sees it."""
    path, seen = str(folder_of(site, job)), _check(site, job)
    columns = (job["settings"] or {}).get("columns") or site.settings.dataset.columns.model_dump()
    return {
        "stage": "offenders",
        "target": site.target.kind,
        "settings": {**site.settings.target_settings(), "columns": columns},
        "access": site.settings.target_access(),
        "place": "",
        "snapshot": {
            "customer": job["customer"],
            "timestamp": job["timestamp"],
            "path": path,
            "fingerprint": seen,
        },
        "inspection": job["inspection"],
        "across": site.target.keys_cross_folders,
    }


def _check(site: Site, job: Row) -> str:
    """Return the folder's fingerprint; refuse when it is not the one the job was made from."""
    found = look_at(site, job)
    if found is not None and found.text == job["fingerprint"]:
        return found.text
    happened = f"changed since job {job['id']} saw it" if found else "is gone"
    what = f"The folder of {title(job)} {happened}: {folder_of(site, job)}"
    cure = "Look at it anew with: bgdeploy scan --once" if found else "Put it back to look into it."
    raise Refused(what, kept="Nothing was written.", cure=cure)


def show_report(report: Report) -> dict[str, Any]:
    """Return a report with the keys that scripts rely on."""
    of_job = {
        "job": report.job["id"],
        "customer": report.job["customer"],
        "timestamp": report.job["timestamp"],
    }
    found = [one["finding"] for one in report.found]
    return {**of_job, "folder": str(report.folder), "rows": report.rows, "findings": found}
