"""Offenders, the half that reads: every row whose id or end does not fit is found and written down, in a child."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bgdeploy.errors import BadInput, TargetError
from bgdeploy.snapshots.findings import count_more, headline, name
from bgdeploy.snapshots.index import Place, opened_index
from bgdeploy.snapshots.offenders import Finding, Offender, find_all
from bgdeploy.snapshots.readiness import fingerprint
from bgdeploy.snapshots.source import Snapshot

COLUMNS = ("kind", "table", "problem", "id", "file", "row")
Write = Callable[[Finding], None]


def search(
    snapshot: Snapshot, ticket: Mapping[str, Any], tell: Callable[[str, int], None]
) -> list[dict[str, Any]]:
    """Write all offenders to the ticket's ``output``; return each finding with the lines that tell of it.

    ``tell`` hears where it looks. Raises NoRoom and BadInput, and TargetError where it cannot be written.
    """
    output = None if ticket["output"] is None else Path(ticket["output"])
    found = []
    try:
        with (
            opened_index(snapshot, snapshot.tables, Path(ticket["folder"], "index")) as index,
            _writing(output) as write,
        ):
            for finding in find_all(index, across=ticket["across"], tell=tell):
                write(finding)
                more = count_more(finding, len(finding.first))
                lines = [*map(name, finding.first), *([more] if more else [])]
                found.append({"said": headline(finding), "lines": lines, "finding": _show_finding(finding)})
            if fingerprint(snapshot.path).text != snapshot.fingerprint:
                raise BadInput(
                    f"{snapshot.path} changed while it was looked through.", kept="Nothing was written."
                )
    except OSError as error:
        if error.errno is None:
            raise  # Arrow's own, which speaks of a file
        raise TargetError(
            f"{error.filename or output}: {error.strerror or error}.", kept="Nothing was changed."
        ) from error
    return found


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


def _show_finding(finding: Finding) -> dict[str, Any]:
    about = {"kind": finding.about.kind, "table": finding.about.table, "problem": finding.problem}
    first = [_show_offender(offender) for offender in finding.first]
    return {**about, "rows": finding.rows, "ids": finding.ids, "first": first}


def _show_offender(offender: Offender) -> dict[str, Any]:
    places = [_show_place(place) for place in offender.places]
    return {"id": offender.id, "places": places, "more": offender.more}


def _show_place(place: Place) -> dict[str, Any]:
    return {"file": place.file, "row": place.row}
