"""Offenders: every row whose id or end does not fit, found from the files alone, and told in one short sentence.

Four faults: an id or end that is null, an id that is there twice, an end that no node has, an end that nodes of several
labels have. ``find_in_labels`` and ``find_in_ends`` yield what they find; ``refuse`` makes one error of it, the cure first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Literal

from bgdeploy.actions import Action, Hint
from bgdeploy.errors import BadInput
from bgdeploy.snapshots.keys import Keys, Place, Source, candidates, ids_of, is_whole
from bgdeploy.snapshots.source import ENDS, Kind, Role, Snapshot, Table

Problem = Literal[
    "null id", "double id", "null source", "null target",
    "dangling source", "dangling target", "shared source", "shared target",
]  # fmt: skip
Id = str | int | None
Tell = Callable[[str, int], None]
_End = tuple[Table, Role, tuple[str, ...]]  # and the labels it may join
_About = tuple[Kind, str, str, tuple[str, ...]]  # the first fields of a finding
FIRST = 10  # offenders named one by one
_PLACES = 3  # places named of each
_SPOKEN = 8192  # rows turned into Python's own objects at a time
_LONG = 1500  # letters for all findings of one error
_ID, _PATH, _FOLDER, _LABELS = 60, 120, 80, 60  # letters for one of each


class BadKeys(BadInput):
    """Ids or ends that do not fit: the first are named, all of them can be listed."""

    def listed_by(self, command: Action) -> BadKeys:
        """The same with the command that lists them all."""
        return BadKeys(self.what, kept=self.kept, cure=Hint("All of them: ", command))


@dataclass(frozen=True)
class Offender:
    """One id that does not fit, None for none at all, with the first places where it stands."""

    id: Id
    places: tuple[Place, ...]
    more: int  # places beside these


@dataclass(frozen=True)
class Finding:
    """All rows of one label, or of one end of a relationship table, with one problem.

    ``rows`` counts those to be changed: of a double id all but one. ``ids`` are distinct. ``first`` is in the order of
    the files. ``labels`` are where the ids were looked for. ``lines`` yields every row, each place of a double id among
    them, in the order of the files, until the next finding is asked for.
    """

    kind: Kind
    table: str
    folder: str
    labels: tuple[str, ...]
    problem: Problem
    rows: int
    ids: int
    first: tuple[Offender, ...]
    lines: Callable[[], Iterator[tuple[Id, Place]]] = field(
        default=lambda: iter(()), compare=False, repr=False
    )


def find_in_labels(keys: Keys, *, across: bool, tell: Tell = lambda folder, rows: None) -> Iterator[Finding]:
    """Yield the rows of nodes without an id, and those that repeat one; ``tell`` hears each folder and its rows.

    ``across``: an id must be unique among all nodes that carry the label, whatever folder they are in.
    """
    for label in dict.fromkeys(table.name for table in keys.snapshot.nodes):
        mine = [table for table in keys.snapshot.nodes if table.name == label]
        folder = f"nodes/{label}"
        tell(folder, sum(table.rows for table in mine))
        own = ids_of(keys.snapshot, [label])
        nulls = f"SELECT id, place FROM ({keys.read(own)}) WHERE id IS NULL"
        yield from _found(keys, ("node", label, folder, (label,)), "null id", nulls)
        sources = _carriers(keys.snapshot, label) if across else own
        if {source.table.name for source in sources} <= {label}:
            sources = own
        for whole in (False, True):  # 1 and '1' are two ids
            if some := [source for source in sources if is_whole(source.table.key("id")) == whole]:
                keys.collect("doubles", partial(_doubles, keys, some))
                names = tuple(dict.fromkeys(source.table.name for source in some))
                yield from _found(keys, ("node", label, folder, names), "double id", "FROM doubles")


def _doubles(keys: Keys, sources: Sequence[Source], part: int) -> str:
    ids = keys.read(sources, part)
    again = f"SELECT id FROM ({ids}) WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1"
    return f"SELECT id, place FROM ({ids}) SEMI JOIN ({again}) USING (id)"


def _carriers(snapshot: Snapshot, label: str) -> list[Source]:
    """All files with nodes that carry a label, and keep their id under the name that its own folders use."""
    name = next(table.key("id").name for table in snapshot.nodes if table.name == label)
    found: list[Source] = []
    for table in snapshot.nodes:
        if table.key("id").name != name:
            continue
        if label in table.labels:
            found += [Source(table, file, "id") for file in table.files]
        else:
            found += [Source(table, file, "id", 0, label) for file, _ in table.own("labels")]
    return found


def find_in_ends(
    keys: Keys, tables: Sequence[Table], *, tell: Tell = lambda folder, rows: None
) -> Iterator[Finding]:
    """Yield the rows of relationships with an end that is null, that no node has, or that several labels share."""
    ends: list[_End] = []
    for table in tables:
        tell(_folder_of(table), table.rows)
        ends += [
            (table, role, tuple(candidates(keys.snapshot, table, role, table.declared(role))))
            for role in ENDS
        ]
    wrong: dict[tuple[int, str], str] = {}
    for at, among in enumerate(dict.fromkeys(labels for _, _, labels in ends)):
        wrong |= _look_up(keys, ends, among, at)
    for number, (table, role, labels) in enumerate(ends):
        about: _About = ("relationship", table.name, _folder_of(table), labels)
        for fault in ("null", "dangling", "shared"):
            if (number, fault) in wrong:
                yield from _found(keys, about, f"{fault} {role}", wrong[number, fault])  # type: ignore[arg-type]


def _look_up(keys: Keys, ends: Sequence[_End], among: tuple[str, ...], at: int) -> dict[tuple[int, str], str]:
    """Look ends up that may join the same labels; return a query for the rows of each with a fault."""
    ids = ids_of(keys.snapshot, among)
    looked = [
        Source(table, file, role, number)
        for number, (table, role, labels) in enumerate(ends)
        if labels == among
        for file in table.files
    ]

    def lost(part: int) -> str:
        return f"SELECT mark, id, place FROM ({keys.read(looked, part)}) ANTI JOIN ({keys.read(ids, part)}) USING (id)"

    def shared(part: int) -> str:
        several = f"SELECT id FROM ({keys.read(ids, part)}) GROUP BY id HAVING min(mark) < max(mark)"
        return f"SELECT mark, id, place FROM ({keys.read(looked, part)}) SEMI JOIN ({several}) USING (id)"

    keys.collect(f"lost_{at}", lost)
    faults = {f"lost_{at} WHERE id IS NULL": "null", f"lost_{at} WHERE id IS NOT NULL": "dangling"}
    if len(among) > 1:
        keys.collect(f"shared_{at}", shared)
        faults[f"shared_{at} WHERE id IS NOT NULL"] = "shared"
    return {
        (mark, fault): f"SELECT id, place FROM {rows} AND mark = {mark}"
        for rows, fault in faults.items()
        for (mark,) in keys.run(f"SELECT DISTINCT mark FROM {rows}")
    }


def _found(keys: Keys, about: _About, problem: Problem, rows: str) -> Iterator[Finding]:
    """Yield what is to be said of rows with ``id`` and ``place``, unless there are none."""
    ((count,),) = keys.run(f"SELECT count(*) FROM ({rows})")
    if not count:
        return
    fault, _ = _fault_of(problem)
    if fault == "null":
        ((places,),) = keys.run(f"SELECT min(place, {FIRST}) FROM ({rows})")
        ids, found = 1, [(None, count, places)]
    else:
        each = f"SELECT id, min(place) AS first, count(*) AS rows FROM ({rows}) GROUP BY id"
        ((ids,),) = keys.run(f"SELECT count(*) FROM ({each})")
        found = keys.run(
            f"SELECT id, rows, min(place, {_PLACES}) FROM ({each} ORDER BY first LIMIT {FIRST}) "
            f"JOIN ({rows}) USING (id) GROUP BY id, rows, first ORDER BY first"
        )
    first = tuple(
        Offender(id_, tuple(map(keys.at, places)), times - len(places)) for id_, times, places in found
    )

    def lines() -> Iterator[tuple[Id, Place]]:
        for id_, place in keys.stream(f"SELECT id, place FROM ({rows}) ORDER BY place", _SPOKEN):
            yield id_, keys.at(place)

    yield Finding(*about, problem, count - ids if fault == "double" else count, ids, first, lines)


def _fault_of(problem: Problem) -> tuple[str, str]:
    """What a problem consists of: the fault (null, double, dangling, shared) and whose (id, source, target)."""
    fault, _, role = problem.partition(" ")
    return fault, role


def _folder_of(table: Table) -> str:
    """The folder a table's files are in, without those that are columns of it."""
    parts = table.files[0].path.split("/")[:-1]
    ends = [part for part in parts[2:] if part.startswith(("from=", "to=")) and table.kind == "relationship"]
    return "/".join([*parts[:2], *ends])


def refuse(findings: Sequence[Finding], kept: str, unseen: str = "") -> BadKeys:
    """Return the error for a load that met these: what to do, then whose rows; ``unseen`` says what was not searched."""
    some = findings[:FIRST]
    cures = _join(list(dict.fromkeys(map(_cure, some))))
    told = [tell(one, FIRST // len(some), _LONG // len(some)) for one in some]
    if len(findings) > len(some):
        told.append(f"{len(findings) - len(some)} more faults of this kind")
    return BadKeys(f"{cures[0].upper()}{cures[1:]}: {_join(told)}.{unseen and ' '}{unseen}", kept=kept)


def tell(finding: Finding, most: int = FIRST, room: int = _LONG) -> str:
    """Return whose rows have which fault, with up to ``most`` of the first offenders, as fit into ``room`` letters."""
    said = headline(finding)
    shown: list[str] = []
    for one in map(name, finding.first[:most]):
        if len(said) + sum(map(len, shown)) + len(one) > room:
            break
        shown.append(one)
    if shown and (more := count_more(finding, len(shown))):
        shown.append(more)
    return f"{said} ({'; '.join(shown)})" if shown else said


def headline(finding: Finding) -> str:
    """Return how many rows of whom have which fault."""
    fault, role = _fault_of(finding.problem)
    word = role if role == "id" else f"{role} id"
    one = finding.rows == 1
    has, labels = "has" if one else "have", _shorten(", ".join(finding.labels), _LABELS)
    match fault:
        case "null":
            said = f"{has} no {word}"
        case "double":
            said = "repeats an id" if one else "repeat an id"
        case "dangling":
            said = f"{has} a {word} that no node has, of {labels}"
        case _:
            said = f"{has} a {word} that several labels share, of {labels}"
    return f"{finding.rows:,} {'row' if one else 'rows'} of {_shorten(finding.folder, _FOLDER)} {said}"


def count_more(finding: Finding, shown: int) -> str:
    """Return how many ids there are beside those shown; nothing where these are all."""
    rest = finding.ids - shown
    return f"and {rest:,} more {'id' if rest == 1 else 'ids'}" if rest else ""


def _cure(finding: Finding) -> str:
    match _fault_of(finding.problem)[0]:
        case "null":
            return "leave out rows without an id"
        case "double" if len(finding.labels) > 1:
            return "write every node once (nodes of other folders that carry the label count too)"
        case "double":
            return "write every node once"
        case "dangling":
            return "write the missing nodes or leave their relationships out"
        case _:
            return f"declare the ends ({_shorten(f'relationships/{finding.table}', _FOLDER)}/from=<Label>/to=<Label>/*.parquet)"


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
