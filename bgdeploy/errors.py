"""Every error a user can meet: what failed, what was left as it is, and what helps."""

from __future__ import annotations

from enum import IntEnum

from bgdeploy.actions import Hint, do
from bgdeploy.plain import tidy


class ExitCode(IntEnum):
    """How every command ends, for scripts; ``meaning`` is for people."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        """Return the number with its meaning beside it."""
        one = int.__new__(cls, code)
        one._value_, one.meaning = code, meaning
        return one

    OK = 0, "done"
    FAILED = 1, "done, and the answer is no: a job failed, a wait ran out, a folder could not be listed"
    USAGE = 2, "the command line cannot be understood"
    CONFIG = 3, "the configuration has faults; all of them are listed"
    NOT_FOUND = 4, "there is no such job, customer or database"
    REFUSED = 5, "refused: it would break a promise; nothing was done"
    UNAVAILABLE = 6, "the job table or the target cannot be reached or used now"
    INTERRUPTED = 130, "stopped by Ctrl+C; `serve` and `work` end with 0: that is how they are stopped"


# What ``error_code`` of a job may be, to filter by: the codes below, those of the engines, and how a load ended.
CODES = (
    "bad-input", "build-locked", "cancelled", "config", "contradicted", "edition", "error", "folder-away", "interrupted",
    "job-table", "job-table-full", "job-table-lost", "lease-lost", "name-taken", "not-found", "not-ours", "not-readable", "pool",
    "query", "refused", "stale-generation", "stopped", "target", "target-away", "target-full", "usage", "verify",
)  # fmt: skip


class BgdeployError(Exception):
    """A failure with a cure.

    ``what`` says what failed and on which job, database or file; ``kept`` what was left as it is;
    ``cure`` the command or change that helps, with its actions beside the text. ``code`` is stable and meant for scripts and logs.
    """

    code = "error"
    exit_code = ExitCode.FAILED

    def __init__(self, what: str, *, kept: str = "", cure: str | Hint = "") -> None:
        super().__init__(what)
        self.what, self.kept, self.cure = tidy(what), tidy(kept), Hint(cure)

    def __str__(self) -> str:
        parts = [part for part in (self.what, self.kept, self.cure) if part]
        return " ".join([*map(_end, parts[:-1]), *parts[-1:]])


def _end(sentence: str) -> str:
    # What an engine or a library said may lack its full stop; a table has none.
    return sentence if sentence[-1] in ".!?:" or "\n" in sentence else f"{sentence}."


class ConfigError(BgdeployError):
    """The configuration has faults; ``what`` lists all of them, a line each."""

    code, exit_code = "config", ExitCode.CONFIG


class BadWords(BgdeployError):
    """The command line, or a variable, holds what is no text."""

    code, exit_code = "usage", ExitCode.USAGE


class NotFound(BgdeployError):
    """The job, customer or database that was named does not exist."""

    code, exit_code = "not-found", ExitCode.NOT_FOUND


class Refused(BgdeployError):
    """What was asked for would break a promise, so nothing was done."""

    code, exit_code = "refused", ExitCode.REFUSED


def other_place(there: str, here: str) -> Refused:
    """The job table speaks of databases that lie elsewhere."""
    return Refused(
        f"The job table belongs to another set-up (place: {there!r} there, {here!r} here).",
        kept="Nothing was changed.",
        cure=Hint("Use another state_dir, or move it on purpose with: ", do("init", rebind=True)),
    )


class StoreError(BgdeployError):
    """The job table cannot be used: locked too long, corrupt, another version, or someone else's."""

    code, exit_code = "job-table", ExitCode.UNAVAILABLE


class StoreFull(StoreError):
    """The disk under the job table is full; waiting is the only thing that helps."""

    code = "job-table-full"


class StoreLost(StoreError):
    """The file was deleted, replaced or moved under this process, which must end: there may be another by now."""

    code = "job-table-lost"


class TargetError(BgdeployError):
    """The target did not do what was asked; trying again may help (counts as an attempt)."""

    code, exit_code = "target", ExitCode.UNAVAILABLE


class TargetFull(TargetError):
    """The target ran out of room; the job waits and no attempt is used."""

    code = "target-full"


class TargetAway(TargetError):
    """The target cannot be reached, or is busy; the job waits and no attempt is used."""

    code = "target-away"


class NeedsReload(TargetError):
    """A database cannot be used, and loading its snapshot again helps; whoever knows its job names it with ``of_job``.

    ``alias``: readers are led there, so going back helps first.
    """

    def __init__(self, what: str, *, kept: str = "", cure: str | Hint = "", alias: str = "") -> None:
        super().__init__(what, kept=kept, cure=cure or _reload(alias, None))
        self.alias = alias

    def of_job(self, job: object, *, kept: str = "", customer: str = "") -> NeedsReload:
        """Return the same with its cure for this job, and for the customer that the alias is of."""
        cure = _reload(self.alias and (customer or self.alias), job)
        return NeedsReload(self.what, kept=kept or self.kept, cure=cure, alias=self.alias)


def _reload(back: str, job: object) -> Hint:
    first = ("Go back: ", do("rollback", customer=back, why=None), ", or l") if back else ("L",)
    return Hint(*first, "oad its snapshot again: ", do("reload", job_id=job))


class VerifyFailed(TargetError):
    """The database does not hold what its snapshot says; it is never resumed, only built anew."""

    code = "verify"


class StaleGeneration(TargetError):
    """Somebody moved this alias with a newer generation; this move is void."""

    code = "stale-generation"


class BuildLocked(TargetError):
    """A living process holds the build; start again under another name."""

    code = "build-locked"


class NameTaken(BuildLocked):
    """The name belongs to something bgdeploy did not make: it is left alone and never dropped."""

    code = "name-taken"


class NotOurs(Refused):
    """A database of ours is gone, and another that somebody made has its name: it is left alone."""

    code = "not-ours"


class BadInput(BgdeployError):
    """The snapshot cannot be loaded as it is; trying again cannot help until its folder changes."""

    code = "bad-input"


class SnapshotChanged(BadInput):
    """The snapshot changed or went away under its load; whatever lies there next is looked at anew."""


class NotReadable(BgdeployError):
    """A file of the snapshot cannot be read yet: half-written, or no rights."""

    code = "not-readable"


class FolderAway(NotReadable):
    """Nothing can be said of a snapshot: its disk is lost or fails; the job waits and no attempt is used."""

    code = "folder-away"


class LeaseLost(BgdeployError):
    """Someone else owns this row now; the caller must stop at once and write nothing."""

    code = "lease-lost"
