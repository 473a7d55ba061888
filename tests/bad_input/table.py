"""Names, commands, job tables and configurations that are wrong, with what a user sees.

``{here}`` stands for the temporary folder and ``{n}`` for a number that varies; all else is exact.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa

from bgdeploy.actions import page
from tests.bad_input.snapshots import GOOD, Make, files, half, parquet
from tests.snapshots.folders import write

NONE_STARTED = f"  Nothing was started.\n  Every key is explained in {page('configuration.md')}.\n"
BASE = 1_700_000_000  # the timestamp of what is live

# Names of customers that are odd and allowed; with the alias that each of them gets on Neo4j; embedded it is the name itself.
ODD_NAMES = {
    'o\'brien "x"': 'o\'brien "x"',
    "two words": "two words",
    "a*[b]?": "a*[b]?",
    "n" * 200: "n" * 200,
    "Größe 日本 🎈": "gr-e-306398",
    "-rf": "-rf",
    "--json": "--json",
    "graph.lbug.wal": "graph-lbug-wal-194773",
    "system": "c-system-bbc5e6",
    "x..y": "x-y-c0e705",
    "$HOME;rm %41{x}": "$home;rm %41{x}",
    "back\\slash": "back\\slash",
    # two whose databases fold to one: the hash tells them apart
    "A_b": "a_b",
    "a-b": "a-b",
}


def inside(path: str) -> Make:
    """A good snapshot with a second file, beside the first, that is a link to what lies in the snapshot."""

    def make(folder: Path) -> None:
        write(folder, {**GOOD, path: {"id": ["p3"], "name": ["Cy"]}})
        (folder / path).rename(folder / ".aside")
        os.symlink(folder / ".aside", folder / path)

    return make


# customer -> a snapshot that looks wrong and is right, a question, the answer
RIGHT: dict[str, tuple[Make, str, list[dict[str, Any]]]] = {
    "nodes-only": (
        files({}, {"nodes/Person/a.parquet": {"id": ["p1"]}}),
        "MATCH (n) RETURN n.id AS id",
        [{"id": "p1"}],
    ),
    "no-text-at-all": (
        files({}, {"nodes/Person/a.parquet": {"id": ["", " ", "p\0", "p"], "name": ["a\0b", "", None, "\\"]}}),
        "MATCH (n) RETURN n.id AS id, n.name AS name",
        [
            {"id": "", "name": "a\0b"},
            {"id": " ", "name": ""},
            {"id": "p", "name": "\\"},
            {"id": "p\0", "name": None},
        ],
    ),
    "odd-labels": (
        files({}, {"nodes/O'Brien \"x\" `y` $1 日本/a.parquet": {"id": [1]}, f"nodes/{'L' * 200}/a.parquet": {"id": [2]}}),
        "MATCH (n) RETURN n.id AS id, label(n) AS label ORDER BY id",
        [{"id": 1, "label": "O'Brien \"x\" `y` $1 日本"}, {"id": 2, "label": "L" * 200}],
    ),
    "odd-files": (
        files({f"nodes/Person/{name}.parquet": {"id": [name], "name": ["x"]} for name in ("a*[b]?", "-rf", "x..y", "two words", "o'b\"", "日本", "f" * 200)}),
        "MATCH (n) RETURN count(*) AS n",
        [{"n": 9}],
    ),
    "left-out": (
        files({"nodes/Person/.hidden.parquet": b"no", "nodes/Person/_metadata": b"no", "nodes/Person/b.parquet.crc": b"no", "README": b"x"}),
        "MATCH (n) RETURN count(*) AS n",
        [{"n": 2}],
    ),
    "by-position": (
        files({}, {
            "nodes/Entity/e.parquet": {"ENTITY_KEY": ["E1", "E2"], "LABELS": ["Entity,Company", "Entity"]},
            "nodes/Address/a.parquet": {"ADDRESS_KEY": ["A1"], "LABELS": ["Address"], "CITY": ["Oslo"]},
            "relationships/HAS/r.parquet": {"E": ["E1", "E2"], "A": ["A1", "A1"], "REL": ["HAS", "HAS"], "SINCE": [1999, 2001]},
        }),
        "MATCH (e:Entity)-[r:HAS]->(a:Address) RETURN e.ENTITY_KEY AS e, e.labels AS labels, r.SINCE AS since, a.CITY AS city",
        [
            {"e": "E1", "labels": ["Entity", "Company"], "since": 1999, "city": "Oslo"},
            {"e": "E2", "labels": ["Entity"], "since": 2001, "city": "Oslo"},
        ],
    ),
    "hive-names": (
        files({"nodes/Person/000001_0": pa.table({"id": ["p3"], "name": ["Cy"]}), "nodes/Person/c.parq": {"id": ["p4"], "name": ["Di"]}}),
        "MATCH (n) RETURN count(*) AS n",
        [{"n": 4}],
    ),
    "linked-inside": (
        inside("nodes/Person/b.parquet"),
        "MATCH (n) RETURN count(*) AS n",
        [{"n": 3}],
    ),
}  # fmt: skip


def manifest(content: object) -> Make:
    """A good snapshot without a marker whose manifest says this."""

    def make(folder: Path) -> None:
        write(folder, GOOD, marker=False)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "manifest.json").write_text(text)

    return make


def bare(folder: Path) -> None:
    """Nothing yet."""
    folder.mkdir()


def unfinished(folder: Path) -> None:
    """A copy that goes on: no marker, and half a file."""
    write(folder, {**GOOD, "nodes/Person/b.parquet": half(parquet(id=["p3"]))}, marker=False)


def still(sign: str) -> Make:
    """A good snapshot with a marker, and a sign that its writer is not done."""

    def make(folder: Path) -> None:
        write(folder, {**GOOD, sign: b""})

    return make


# Snapshots that are not ready; with the reason that ``scan`` and ``jobs list`` show.
WAITING: dict[str, tuple[Make, str]] = {
    "nothing yet": (bare, "no data files yet"),
    "half a file and no marker": (
        unfinished,
        "nodes/Person/b.parquet does not open as a Parquet file: Parquet magic bytes not found in footer. Either "
        "the file is corrupted or this is not a parquet file. Nothing of the snapshot was loaded. Write it anew, or "
        "wait until it is copied whole.",
    ),
    "a writer that is not done": (
        still("nodes/Person/_temporary/0/x.parquet"),
        "not finished: nodes/Person/_temporary is still there; remove it when nothing writes any more",
    ),
    "a commit that is missing": (
        still("relationships/KNOWS/_started_77"),
        "not finished: relationships/KNOWS/_started_77 has no _committed_77; remove it when nothing writes any more",
    ),
    "a manifest that is none": (manifest("{"), "manifest.json is malformed: not JSON"),
    "a file that is missing": (
        manifest({"files": [{"path": "nodes/Person/z.parquet", "size": 3}]}),
        "manifest.json lists nodes/Person/z.parquet, which is missing",
    ),
    "a file that is still short": (
        manifest({"files": [{"path": "nodes/Person/a.parquet", "size": 99_999}]}),
        "manifest.json says 99999 bytes for nodes/Person/a.parquet, which has {n}",
    ),
    "a file too many": (manifest({"files": []}), "nodes/Person/a.parquet is not in manifest.json"),
    "a way out": (
        manifest({"files": [{"path": "../../x", "size": 3}]}),
        "manifest.json is malformed: file 1 has no path relative to the snapshot",
    ),
}

NO_NUMBER = "the name is not a number of seconds since 1970"
ZERO = "the number begins with a zero; the name must be plain seconds since 1970"
OUT = "this is a link that leads out of the base folder; copy the folder instead"
# Names below the base folder that are no snapshots; with the reason that ``scan`` shows. ``->`` makes a link.
SKIPPED = {
    "acme/4102444800": "lies in the future (2100-01-01T00:00:00Z); a snapshot may not be later than tomorrow",
    "acme/1700000000000": "looks like milliseconds; seconds are expected",
    "acme/1700000000000000": "looks like microseconds; seconds are expected",
    "acme/1700000000000000000": "looks like nanoseconds; seconds are expected",
    "acme/01700000000": ZERO,
    "acme/0": ZERO,
    f"acme/{'9' * 40}": "lies in the future; a snapshot may not be later than tomorrow",
    "acme/-5": NO_NUMBER,
    "acme/1e9": NO_NUMBER,
    "acme/١٧٠٠٠٠٠٠٠٠": NO_NUMBER,
    "acme/1700000002 ": NO_NUMBER,
    "acme/1700000001.tmp": NO_NUMBER,
    "acme/latest": NO_NUMBER,
    "acme/1700000900 -> /etc": OUT,
    "acme/1700000901 -> gone": "this is a link that does not lead to a folder",
    "acme/1700000902 =": "this is a file; a snapshot is a folder",
    "out -> /etc": OUT,
    "dangling -> gone": "this is a link that does not lead to a folder",
    "tab\tname": "the name holds characters that cannot be printed; rename the folder",
    # Names that another customer's alias or database has.
    "a-b-08eb65/1700000000": "Its alias 'a-b-08eb65' is in use by customer 'A_b'. Nothing of it was loaded. Rename the folder.",
    "acme-1700000000/1700000000": "Its alias 'acme-1700000000' is in use by customer 'acme'. Nothing of it was loaded. Rename the folder.",
}


def place(data: Path, name: str) -> str:
    """Make what a line of SKIPPED names; return the name as ``scan`` shows it."""
    if name.endswith(" ="):
        name = name.removesuffix(" =")
        (data / name).touch()
    elif " -> " in name:
        name, _, goal = name.partition(" -> ")
        os.symlink(goal, data / name)
    else:
        (data / name).mkdir(parents=True)
    shown = name.encode("unicode_escape").decode() if not name.isprintable() else name
    return shown.removesuffix("/1700000000") if "acme/" not in shown else shown


NO_JOB = "bgdeploy: There is no job 999999.\n  See: bgdeploy jobs list\n"
HUGE = "9" * 20
NOBODY = "bgdeploy: There is no customer 'nobody'.\n  See: bgdeploy customers\n"
FOLDER = "  Take a plain name that does not begin with '.' or '_'.\n"


def usage(command: str, said: str, takes: str = "[OPTIONS]") -> str:
    """What stands round a fault of the command line."""
    return f"Usage: bgdeploy {command} {takes}\nTry 'bgdeploy {command} -h' for help.\n\nError: {said}\n"


# Commands that cannot be done; exit code, and the whole of what they write to stderr. ``two`` has a standby and
# a blocked candidate, ``none`` has one failed job (1), ``acme`` has one database, which is live.
COMMANDS: list[tuple[list[str], int, str]] = [
    (["retry", "999999"], 4, NO_JOB),
    (["retry", HUGE], 4, NO_JOB.replace("999999", HUGE)),
    (["jobs", "show", HUGE], 4, NO_JOB.replace("999999", HUGE)),
    (["jobs", "log", "999999"], 4, NO_JOB),
    (["jobs", "cancel", "999999"], 4, NO_JOB),
    (["jobs", "offenders", "999999"], 4, NO_JOB),
    (["retry", "seven"], 2, usage("retry", "Invalid value for 'job': Input should be a valid integer, unable to parse string as an integer", "[OPTIONS] [job]...")),
    (["retry"], 2, usage("retry", "Invalid value for JOB: give ids of jobs, or --all-failed", "[OPTIONS] [job]...")),
    (["retry", "{live}"], 5, "bgdeploy: Job {n} (acme/1700000000) is switched, not failed.\n  Nothing was changed.\n  To load it once more: bgdeploy retry {n} --reload\n"),
    (["retry", "{failed}", "--reload"], 5, "bgdeploy: Job {n} (none/1700000000) is failed; only a loaded, switched or cleaned one is reloaded.\n  Nothing was changed.\n  To load it from zero: bgdeploy retry {n}\n"),
    (["jobs", "cancel", "{live}"], 5, 'bgdeploy: Job {n} (acme/1700000000) is switched: there is nothing left to cancel.\n  Nothing was changed.\n  To leave it: bgdeploy rollback acme --reason "..."\n'),
    (["rollback", "acme", "--reason", "x"], 5, "bgdeploy: acme has nothing to go back to.\n  acme-1700000000 stays live.\n  See: bgdeploy customers\n"),
    (["rollback", "none", "--reason", "x"], 5, "bgdeploy: none has nothing to go back to.\n  Nothing is live yet.\n  See: bgdeploy customers\n"),
    (["rollback", "nobody", "--reason", "x"], 4, NOBODY),
    (["rollback", "acme"], 2, usage("rollback", 'Invalid value for --reason: say why, for the history: bgdeploy rollback acme --reason "wrong prices"', "[OPTIONS] {customer}")),
    (["rollback", "two", "--to", "two-1700000001", "--reason", "x"], 5, "bgdeploy: two has nothing to go back to: two-1700000001 is live already.\n  two-1700000001 stays live.\n  By hand it can be moved to:\n    bgdeploy switch two --to two-1700000002  (waits to go live)\n{more}"),
    (["rollback", "two", "--to", "acme-1700000000", "--reason", "x"], 5, "bgdeploy: acme-1700000000 belongs to customer acme.\n  Nothing was changed.\n  What belongs to whom: bgdeploy customers --customer two\n"),
    (["rollback", "two", "--to", "../../etc", "--reason", "x"], 4, "bgdeploy: There is no database '../../etc' of bgdeploy's.\n  By hand it can be moved to:\n    bgdeploy switch two --to two-1700000002  (waits to go live)\n{more}"),
    (["switch", "acme"], 4, "bgdeploy: acme has no loaded database that waits.\n  See: bgdeploy customers\n"),
    # Where live had relationships, nodes alone are loaded, and wait.
    (["switch", "two"], 5, "bgdeploy: two-1700000002: fewer rows than live: KNOWS 1 -> 0 (-100 %, at most 50 %). If right: bgdeploy switch two --to two-1700000002; else: drop a newer snapshot, or mend its folder and: bgdeploy retry {n} --reload\n  The alias stays where it is.\n  Its whole story: bgdeploy jobs show {n}\n"),
    (["wait", "two", "1700000002", "--timeout", "0"], 1, "bgdeploy: two/1700000002 is loaded, and a person has to decide: fewer rows than live: KNOWS 1 -> 0 (-100 %, at most 50 %). If right: bgdeploy switch two --to two-1700000002; else: drop a newer snapshot, or mend its folder and: bgdeploy retry {n} --reload\n  two-1700000001 stays live.\n  See: bgdeploy jobs show {n}\n"),
    (["wait", "nobody", "1700000000", "--timeout", "0"], 1, "bgdeploy: Not live after 0 s: There is no snapshot {here}/data/nobody/1700000000 yet, and no customer nobody so far.\n  Nothing is live yet.\n  Is the name right? Customers there are: bgdeploy customers. Snapshots are looked for in {here}/data\n"),
    (["wait", "acme", "1700000000000", "--timeout", "0"], 2, usage("wait", "Invalid value for TIMESTAMP: 1700000000000 is later than tomorrow; seconds since 1970 are expected", "[OPTIONS] {customer} {timestamp}")),
    (["pin", "none"], 5, "bgdeploy: none has nothing live to pin.\n  Nothing was changed.\n  Name one: bgdeploy pin none --database <name>, as bgdeploy customers shows it\n"),
    (["unpin", "acme"], 5, "bgdeploy: acme-1700000000 is not pinned.\n  Nothing was changed.\n  No database of acme is pinned. See: bgdeploy customers\n"),
    (["customers", "remove", "nobody"], 4, NOBODY),
    (["resume", "nobody"], 4, NOBODY),
    (["query", "none", "RETURN 1"], 4, "bgdeploy: Nothing is live under the alias 'none'.\n  See what is: bgdeploy customers\n"),
    (["query", "acme", "CREATE (:Person {id: 'x'})"], 1, "bgdeploy: A statement that begins with CREATE is not run: what is live is only read.\n  Nothing was changed.\n  Begin with MATCH, OPTIONAL MATCH, UNWIND, WITH, CALL or RETURN; EXPLAIN or PROFILE may stand before it. Data changes by a new snapshot.\n"),
    (["query", "acme", "CHECKPOINT"], 1, "bgdeploy: A statement that begins with CHECKPOINT is not run: what is live is only read.\n{more}"),
    (["query", "acme", "EXPORT DATABASE '{here}/out'"], 1, "bgdeploy: A statement that begins with EXPORT is not run: what is live is only read.\n{more}"),
    (["query", "acme", "MATCH (n) DETACH DELETE n"], 1, "bgdeploy: Connection exception: Cannot execute write operations in a read-only database!\n  Nothing was changed.\n  What is live is only read. Its data changes by a new snapshot of acme.\n"),
    (["query", "acme", "RETURN 1; CHECKPOINT"], 1, "bgdeploy: Several statements in one are not run.\n  Nothing was changed.\n  Ask them one by one.\n"),
    (["query", "acme", "MATCH (n) LOAD FROM '/etc/passwd' RETURN *"], 1, "bgdeploy: A query reads what is live, and no files (LOAD FROM, CALL READ_...).\n  Nothing was changed.\n  Leave that part out. What is in files becomes live by a new snapshot.\n"),
    (["query", "acme", "CALL threads=1"], 1, "bgdeploy: A query changes no setting of the engine (CALL name = value).\n  Nothing was changed.\n  Memory and threads are in the configuration: ladybug.buffer_pool_mb, ladybug.threads.\n"),
    (["query", "acme", "RETURN 1 AS"], 1, "bgdeploy: Parser exception: {more}"),
    (["query", "acme", "MATCH (n:Nope) RETURN n"], 1, "bgdeploy: Binder exception: Table Nope does not exist.\n  Nothing was changed.\n  There are the labels Person; the types KNOWS.\n"),
    (["query", "-rf", "RETURN 1"], 2, usage("query", "No such option: -r", "[OPTIONS] {customer} {cypher}")),
    (["query", "--", "-rf", "MATCH (n:Person) RETURN count(*) AS n"], 0, ""),
    (["simulate", "--customer", "../etc"], 5, f"bgdeploy: '../etc' cannot be a customer's folder.\n{FOLDER}"),
    (["simulate", "--customer", ""], 5, f"bgdeploy: '' cannot be a customer's folder.\n{FOLDER}"),
    (["simulate", "--customer", "x", "--timestamp", "1700000000000"], 5, "bgdeploy: A snapshot named 1700000000000 would be skipped: looks like milliseconds; seconds are expected.\n  Take seconds since 1970, not later than tomorrow.\n"),
    (["jobs", "list", "--state", "loadign"], 2, usage("jobs list", "Invalid value for --state: no state 'loadign'; there are: discovered, queued, loading, loaded, switched, cleaned, failed")),
    (["simulate", "--customer", "a\nb"], 5, f"bgdeploy: 'a\\nb' cannot be a customer's folder.\n{FOLDER}"),
    (["run", "--timeout", "nan"], 2, usage("run", "Invalid value for '--timeout': Input should be less than or equal to 31536000")),
    (["run", "--timeout", "-1"], 2, usage("run", "Invalid value for '--timeout': Input should be greater than or equal to 0")),
    (["wait", "acme", "1700000000", "--timeout", "nan"], 2, usage("wait", "Invalid value for '--timeout': Input should be less than or equal to 31536000", "[OPTIONS] {customer} {timestamp}")),
    (["pin", "acme", "--database", ""], 2, usage("pin", "Invalid value for '--database': it is empty; give a name, or leave the option out", "[OPTIONS] {customer}")),
    (["switch", "two", "--to", ""], 2, usage("switch", "Invalid value for '--to': it is empty; give a name, or leave the option out", "[OPTIONS] {customer}")),
    (["rollback", "two", "--to", "", "--reason", "x"], 2, usage("rollback", "Invalid value for '--to': it is empty; give a name, or leave the option out", "[OPTIONS] {customer}")),
    (["jobs", "list", "--limit", HUGE], 2, usage("jobs list", "Invalid value for '--limit': Input should be less than or equal to 1000000")),
    (["jobs", "list", "--before", HUGE], 2, usage("jobs list", "Invalid value for '--before': Input should be less than or equal to 9223372036854775807")),
    (["jobs", "log", "--limit", HUGE], 2, usage("jobs log", "Invalid value for '--limit': Input should be less than or equal to 1000000", "[OPTIONS] [job]")),
    (["--set", "a=[unclosed", "customers"], 2, usage("", "Invalid value for --set: the value of a, '[unclosed', is no YAML; quote it: --set 'KEY=\"...\"'", "[OPTIONS] COMMAND [ARGS]...").replace("bgdeploy  ", "bgdeploy ")),
    (["serve", "--workers", "0"], 2, usage("serve", "Invalid value for '--workers' / '-w': Input should be greater than or equal to 1")),
    # the configuration: all faults at once, each with its place
    (["--set", "nonsense=1", "customers"], 3, "bgdeploy: option nonsense: unknown key\n" + NONE_STARTED),
    (["--set", "ladybug.buffer_pool_mb=1", "--set", "orchestrator.num_worker=2", "customers"], 3, "bgdeploy: option ladybug.buffer_pool_mb: '1' is too small, it must be at least 16\noption orchestrator.num_worker: unknown key, did you mean orchestrator.num_workers?\n" + NONE_STARTED),
]  # fmt: skip
