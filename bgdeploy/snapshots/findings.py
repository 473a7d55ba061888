"""Findings in words: which rows do not fit and what helps, short enough to be kept with a job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.index import Place
from bgdeploy.snapshots.offenders import Finding, Offender

_LONG = 1500  # letters for all findings of one error
_ID, _PATH, _FOLDER, _LABELS = 60, 120, 80, 60  # letters for one of each


class BadKeys(BadInput):
    """Ids or ends that do not fit: the first are named, all of them can be listed."""

    def listed_by(self, command: str) -> BadKeys:
        """The same with the command that lists them all."""
        return BadKeys(self.what, kept=self.kept, cure=f"{self.cure} All of them: {command}")


def refuse(findings: Sequence[Finding], kept: str) -> BadKeys:
    """Return the error for a load that met these."""
    room = _LONG // len(findings)
    what = " ".join(tell(finding, room) for finding in findings)
    return BadKeys(what, kept=kept, cure=" ".join(dict.fromkeys(map(_cure, findings))))


def tell(finding: Finding, room: int = _LONG) -> str:
    """Return a sentence with as many of the first offenders as fit into about ``room`` letters."""
    said = headline(finding)
    shown: list[str] = []
    for one in map(name, finding.first):
        if len(said) + sum(map(len, shown)) + len(one) > room:
            break
        shown.append(one)
    if shown and (more := count_more(finding, len(shown))):
        shown.append(more)
    return f"{said}: {'; '.join(shown)}." if shown else f"{said}."


def headline(finding: Finding) -> str:
    """Return whose rows have which fault, and how many."""
    return f"{_shorten(finding.about.folder, _FOLDER)}: {finding.rows:,} {_fault(finding)}"


def count_more(finding: Finding, shown: int) -> str:
    """Return how many ids there are beside those shown; nothing where these are all."""
    rest = finding.ids - shown
    return f"and {rest:,} more {'id' if rest == 1 else 'ids'}" if rest else ""


def _fault(finding: Finding) -> str:
    """What the rows have that they should not, in the right number."""
    fault, role = finding.problem.split()
    word = role if role == "id" else f"{role} id"
    row, has = ("row", "has") if finding.rows == 1 else ("rows", "have")
    labels = _shorten(", ".join(finding.about.labels), _LABELS)
    match fault:
        case "null":
            return f"{row} {has} no {word}"
        case "double":
            return f"{row} {'repeats' if finding.rows == 1 else 'repeat'} an id"
        case "dangling":
            return f"{row} {has} a {word} that no node has (looked in {labels})"
        case _:
            return f"{row} {has} a {word} that several labels share ({labels})"


def _cure(finding: Finding) -> str:
    match finding.problem.split()[0]:
        case "null":
            return "Leave such rows out."
        case "double" if len(finding.about.labels) > 1:
            return "Write every node once; nodes of other folders that carry the label count too."
        case "double":
            return "Write every node once."
        case "dangling":
            return "Write those nodes, or leave the relationships out."
        case _:
            folder = _shorten(f"relationships/{finding.about.table}", _FOLDER)
            return f"Declare the ends ({folder}/from=<Label>/to=<Label>/*.parquet)."


def name(offender: Offender) -> str:
    """Return an id with the first places where it stands."""
    places = [_tell_rows(file, rows) for file, rows in groupby(offender.places, key=attrgetter("file"))]
    if offender.more:
        places.append(f"{offender.more:,} more {'row' if offender.more == 1 else 'rows'}")
    told = _join(places)
    return told if offender.id is None else f"{_shorten(repr(offender.id), _ID)} in {told}"


def _tell_rows(file: str, places: Iterable[Place]) -> str:
    rows = [str(place.row) for place in places]
    return f"{_shorten(file, _PATH)} {'row' if len(rows) == 1 else 'rows'} {_join(rows)}"


def _join(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _shorten(text: str, most: int) -> str:
    """Cut the middle out of a long text: files and ids differ at both ends."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2 - 3]}...{text[-(most // 2) :]}"
