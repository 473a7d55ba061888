"""Results: what the API answers with. Their fields are the keys that scripts find in every JSON answer.

Plain frozen dataclasses, so that a page, a script and the terminal read the same thing: ``to_json`` makes the JSON
document, ``json_schema`` describes it. Times are texts, ISO 8601 in UTC; ages and spans are seconds. A field that is
named like a word of Python ends with ``_``, and its key does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from bgdeploy.actions import Hint
from bgdeploy.finding import Finding as Finding
from bgdeploy.jobs.states import State
from bgdeploy.plain import NOT_SHOWN, plain

Mark = Literal["live", "standby", "bad", "pinned", "cancelled"]
Doing = Literal["working", "idle", "silent", "stopped"]
Counts = dict[str, dict[str, int]]  # {"labels": {name: rows}, "types": {name: rows}}


def to_json(value: Any) -> Any:
    """Return a result, or a list of them, as plain lists, dictionaries, texts and numbers."""
    return plain(value)


def json_schema(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of a type of this module, or of a list of it: ``json_schema(list[Job])``."""
    from pydantic import TypeAdapter  # late: the commands that look must not pay for it

    return TypeAdapter(kind).json_schema()


def _key(name: str) -> str:
    return name.removesuffix("_")


@dataclass(frozen=True, kw_only=True)
class _Result:
    """What all results share: no key beside those that are named here."""

    __pydantic_config__: ClassVar[dict[str, bool | Callable[[str], str]]] = {
        "extra": "forbid",  # type: ignore[dict-item]
        "alias_generator": _key,
    }


@dataclass(frozen=True, kw_only=True)
class Step(_Result):
    """Something a person may do next: a verb of the API or of the command line, its arguments, and the command that does it.

    An argument that is null is for the person to choose; in ``command`` it stands in angle brackets, a reason as ``"..."``.
    """

    verb: str
    arguments: dict[str, Any]
    command: str


@dataclass(frozen=True, kw_only=True)
class Advice(_Result):
    """What helps: the text, as errors and the terminal have it, and the actions that it names, in their order."""

    text: str
    actions: list[Step]


def advice(hint: str) -> Advice | None:
    """Return a hint as results hold it; None where nothing is said."""
    if not hint:
        return None
    actions = hint.actions if isinstance(hint, Hint) else ()
    return Advice(text=str(hint), actions=[Step(**action.shown()) for action in actions])


@dataclass(frozen=True, kw_only=True)
class JobRow(_Result):
    """One build of one snapshot, as its row in the job table has it; ``hint`` is what may be done about it in this state."""

    id: int
    customer: str
    timestamp: int
    build: int
    state: State
    database: str | None
    attempt: int
    interruptions: int
    rows_expected: int | None
    rows_confirmed: int
    bytes_expected: int | None
    blocked: bool
    requested: bool
    changed: bool
    step: str | None
    reason: str | None
    reason_code: str | None
    reason_fields: dict[str, Any] | None
    error: str | None
    error_code: str | None
    fence: int
    lease_owner: str | None
    lease_expires: str | None
    created_at: str
    updated_at: str
    queued_at: str | None
    loading_at: str | None
    loaded_at: str | None
    switched_at: str | None
    ended_at: str | None
    hint: Advice | None

    @property
    def title(self) -> str:
        """How people call it: customer/timestamp, with the build where it is not the first."""
        return f"{self.customer}/{self.timestamp}{f' build {self.build}' if self.build > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class Job(JobRow):
    """A job, when its snapshot is from, and what that is by now, as the job table has it: no target is asked."""

    snapshot_at: str
    marks: list[Mark]


@dataclass(frozen=True, kw_only=True)
class Progress(_Result):
    """How far one table of a load is; rate and time left are None while nobody can tell."""

    table: str
    rows: int
    expected: int
    rows_per_second: int | None
    seconds_left: float | None


@dataclass(frozen=True, kw_only=True)
class Group(_Result):
    """One line of a load's ledger: files that are committed at once. ``rows_seen`` counts those on their way too."""

    number: int
    kind: str
    name: str
    source_label: str | None
    target_label: str | None
    files: list[Any]
    rows_expected: int
    rows_confirmed: int
    rows_seen: int
    starts: int
    found: bool
    confirmed_fence: int | None
    started_at: str | None
    confirmed_at: str | None


@dataclass(frozen=True, kw_only=True)
class Span(_Result):
    """One stretch of a job's life; ``to`` is None while it lasts."""

    name: str
    kind: Literal["work", "waiting"]
    from_: str
    to: str | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Event(_Result):
    """Something that happened; ``source`` and ``target`` are states where a job went from one to another."""

    id: int
    job_id: int | None
    customer: str | None
    kind: str
    source: str | None
    target: str | None
    actor: str
    fence: int | None
    message: str
    at: str
    by: str | None


@dataclass(frozen=True, kw_only=True)
class Story(Job):
    """A job with all that is known of it: how far it is, its ledger, what was proven, where its time went, its history."""

    by_position: list[Any]
    progress: list[Progress]
    tables: list[Group]
    proof: dict[str, Any] | None
    timeline: list[Span]
    events: list[Event]


@dataclass(frozen=True, kw_only=True)
class Queued(_Result):
    """A job that waits for a worker because a person asked; ``held_back`` says what keeps it, and ``hint`` what helps, where something does."""

    job: int
    customer: str
    timestamp: int
    build: int
    held_back: str | None
    hint: Advice | None

    @property
    def title(self) -> str:
        """How people call it: customer/timestamp, with the build where it is not the first."""
        return f"{self.customer}/{self.timestamp}{f' build {self.build}' if self.build > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class Refusal(_Result):
    """Why nothing was done about one of many jobs; ``exit_code`` is what the command for it alone would end with.

    ``hint`` is ``cure`` with its actions.
    """

    job: int
    code: str
    exit_code: int
    what: str
    kept: str
    cure: str
    hint: Advice | None


@dataclass(frozen=True, kw_only=True)
class Move(_Result):
    """One move of an alias, from ``source`` to ``target``: a database, or None where there was, or is, none."""

    id: int
    customer: str
    at: str
    source: str | None
    target: str | None
    kind: str
    by: str
    why: str
    generation: int
    took_ms: float | None
    job_id: int | None


@dataclass(frozen=True, kw_only=True)
class Failure(_Result):
    """Why a customer's newest snapshot is not served, and what helps."""

    job: int
    timestamp: int
    error_code: str | None
    error: str | None
    hint: Advice | None


@dataclass(frozen=True, kw_only=True)
class Customer(_Result):
    """A customer: its databases by their names, what waits for a person, and what keeps readers from what is live.

    ``undecided`` is the job of the database that waits for a decision, ``trouble`` what the target says otherwise than
    the job table; it begins with ``unknown`` where the target cannot be asked.
    """

    customer: str
    alias: str
    live: str | None
    standby: str | None
    candidate: str | None
    undecided: int | None
    rolled_back: list[str]
    paused: bool
    removed: bool
    pinned: list[str]
    live_since: str | None
    snapshot_timestamp: int | None
    snapshot_age_seconds: int | None
    counts: Counts | None
    failed: Failure | None
    trouble: str | None
    trouble_code: str | None


@dataclass(frozen=True, kw_only=True)
class Held(_Result):
    """A job that a process holds; its lease ends at ``lease_expires`` unless it is renewed."""

    job: int
    customer: str
    timestamp: int
    build: int
    state: State
    lease_expires: str

    @property
    def title(self) -> str:
        """How people call it: customer/timestamp, with the build where it is not the first."""
        return f"{self.customer}/{self.timestamp}{f' build {self.build}' if self.build > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class Process(_Result):
    """A process that works, or did: what runs there, what it does, and when it last gave a sign of life.

    ``state``: working (it holds ``jobs``), idle, silent (three signs of life are missing: it hangs, is frozen, or ended
    where nobody here can see; its jobs are its own until their leases end), stopped (``last_words`` say how).
    ``alive`` is what this host sees of it, None where it cannot: another host or container, or hidden from this user.
    """

    id: int
    host: str
    pid: int
    role: Literal["serve", "work", "run"]
    version: str
    workers: int
    state: Doing
    alive: bool | None
    jobs: list[Held]
    started_at: str
    seen_at: str
    silent_seconds: int | None
    stopped_at: str | None
    last_words: str | None


@dataclass(frozen=True, kw_only=True)
class Database(_Result):
    """A database that bgdeploy owns, or has dropped, as the job table has it: no target is asked.

    ``dropping`` says why it is to be dropped, where it is; ``bad`` why a person called it bad, where one did.
    """

    name: str
    customer: str
    job: int
    timestamp: int
    build: int
    created_at: str
    verified_at: str | None
    left_at: str | None
    live: bool
    standby: bool
    candidate: bool
    pinned: bool
    bad: str | None
    dropping: str | None
    dropped_at: str | None
    counts: Counts | None


@dataclass(frozen=True, kw_only=True)
class Switched(_Result):
    """Where an alias points now. ``moved`` is False where it did before; ``way_back`` is None where there is none."""

    customer: str
    database: str
    moved: bool
    way_back: str | None


@dataclass(frozen=True, kw_only=True)
class RolledBack(_Result):
    """Where an alias was moved back to, and what it left, which is marked bad."""

    customer: str
    database: str
    left: str | None
    paused: bool


@dataclass(frozen=True, kw_only=True)
class Hold(_Result):
    """Whether a customer is paused now."""

    customer: str
    paused: bool


@dataclass(frozen=True, kw_only=True)
class Pinned(_Result):
    """Whether a database is pinned now."""

    customer: str
    database: str
    pinned: bool


@dataclass(frozen=True, kw_only=True)
class Leaving(_Result):
    """What goes with a customer that is removed, and what stays. ``done`` is False where it was only looked at.

    ``live`` is the database readers use, ``jobs`` counts those that are not over, ``removed`` is True where somebody
    had removed it before. Databases are dropped ``grace_seconds`` later; the snapshots in ``folder`` stay.
    """

    customer: str
    alias: str
    live: str | None
    databases: list[str]
    jobs: int
    removed: bool
    done: bool
    folder: str
    grace_seconds: float


@dataclass(frozen=True, kw_only=True)
class Named(_Result):
    """A folder, and why it is where it is."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ScanReport(_Result):
    """What one scan saw and did, each list in the order it happened; ``again`` failed before and has changed since."""

    customers: int
    discovered: list[str]
    again: list[str]
    queued: list[str]
    waiting: list[Named]
    skipped: list[Named]
    failed: list[Named]
    errors: list[Named]


@dataclass(frozen=True, kw_only=True)
class Place(_Result):
    """A row of a file; the first has number 1."""

    file: str
    row: int


@dataclass(frozen=True, kw_only=True)
class Offender(_Result):
    """One id that does not fit, None for none at all, the first places where it stands, and how many more there are."""

    id: str | int | None
    places: list[Place]
    more: int


@dataclass(frozen=True, kw_only=True)
class Misfit(_Result):
    """All rows of one label, or of one end of a relationship table, with one problem.

    ``rows`` counts those to be changed, ``ids`` are distinct. For people, and in no JSON answer: ``said`` is the
    sentence, ``told`` a line for each of the first ids and one that counts the rest.
    """

    kind: str
    table: str
    problem: str
    rows: int
    ids: int
    first: list[Offender]
    said: str = field(default="", metadata=NOT_SHOWN)
    told: tuple[str, ...] = field(default=(), metadata=NOT_SHOWN)


@dataclass(frozen=True, kw_only=True)
class Offenders(_Result):
    """What does not fit in a job's snapshot; ``folder`` is what the files' names are relative to."""

    job: int
    customer: str
    timestamp: int
    folder: str
    rows: int
    findings: list[Misfit]
    output: str | None


@dataclass(frozen=True, kw_only=True)
class Waiting(_Result):
    """One look at a snapshot that is waited for. ``share`` of its rows is loaded, from 0 to 1, while it loads.

    ``warning`` is said once: that there is no job table yet, that nobody works, or who was last seen in the middle of a load.
    ``hint`` is what decides or starts it, or shows more; what helps against the warning comes first.
    """

    waited_seconds: float
    why: str
    share: float | None
    warning: str | None
    hint: Advice | None


@dataclass(frozen=True, kw_only=True)
class Waited(_Result):
    """What became of a snapshot that was waited for; ``next`` is the command that decides, starts or shows more, ``hint`` the same with its actions."""

    customer: str
    timestamp: int
    waited_seconds: float
    verdict: Literal["live", "waits", "failed", "cancelled", "blocked", "never", "timeout"]
    live: str | None
    why: str
    next: str
    hint: Advice | None
    job: JobRow | None


@dataclass(frozen=True, kw_only=True)
class Answer(_Result):
    """The rows of a query, keyed by column; ``warning`` says what was wrong while it could be answered all the same, ``hint`` what helps."""

    rows: list[dict[str, Any]]
    warning: str | None
    hint: Advice | None


@dataclass(frozen=True, kw_only=True)
class Revision(_Result):
    """Where the job table lies, its revision (None before it is made), and the newest this version knows."""

    path: str
    found: str | None
    newest: str
