"""Reasons: why a job stands where it stands, as a code with fields; the sentence of each is made here and nowhere else."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bgdeploy.plain import LONGEST, storable, tidy


class Code(StrEnum):
    """Stable, for scripts and for logic; stored with the job as ``reason_code``."""

    # discovered: what its folder lacks
    FOLDER_GONE = "folder-gone"
    UNLISTED = "unlisted"
    NOT_FINISHED = "not-finished"
    NO_FILES = "no-files"
    MANIFEST_UNREAD = "manifest-unread"
    MANIFEST_DIFFERS = "manifest-differs"
    MARKED = "marked"  # it says that it is complete, and is looked at once more
    SETTLING = "settling"
    CHANGED = "changed"
    JUDGED_AGAIN = "judged-again"
    BEING_READ = "being-read"
    NOT_READABLE = "not-readable"
    COMPLETE = "complete"
    # queued or loading: what it waits for, or what was asked of it
    TARGET_UNHEALTHY = "target-unhealthy"
    NO_ROOM = "no-room"
    UNAVAILABLE = "unavailable"  # target, disk, job table or configuration: ``error`` is the error's code
    RETRY_AFTER = "retry-after"
    GIVEN_BACK = "given-back"
    LEASE_EXPIRED = "lease-expired"
    HOLDER_LOST = "holder-lost"
    ASKED_FOR = "asked-for"
    CANCEL_ASKED = "cancel-asked"
    CUSTOMER_REMOVED = "customer-removed"
    PAUSED = "paused"
    # loaded: why it is not live
    BEING_DROPPED = "being-dropped"
    NOT_NEWER = "not-newer"
    SHRUNK = "shrunk"
    HELD_FOR_SWITCH = "held-for-switch"
    SWITCH_FAILED = "switch-failed"
    # with a database that goes, or over
    DROP_WAITS = "drop-waits"
    OVERTAKEN = "overtaken"
    RETIRED = "retired"


@dataclass(frozen=True)
class Reason:
    """A code with its fields; two are the same when both are. ``str`` makes the sentence, which only people read.

    Fields are as JSON holds them, so that one that was stored equals the one it was made of. ``because`` makes one.
    """

    code: Code
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        wording = _WORDINGS[self.code]
        if not isinstance(wording, str):
            return wording(self.fields)
        return wording.format(**{name: _shown(value) for name, value in self.fields.items()})


def because(code: Code | str, **fields: Any) -> Reason:
    """Return the reason with fields that may be kept and shown. ValueError for a code there is none of."""
    return Reason(Code(code), {name: storable(value) for name, value in fields.items()})


def read(row: Mapping[Any, Any]) -> Reason | None:
    """Return why a job is not further, None where nothing is said.

    None too where a version with other codes said so, or one with none: it is judged again then.
    """
    code = row["reason_code"]
    return Reason(Code(code), row["reason_fields"] or {}) if code in _CODES else None


def columns(reason: Reason | None) -> dict[str, Any]:
    """Return what of a job's row says why: the code, its fields, and the sentence for people and older readers."""
    if reason is None:
        return dict.fromkeys(("reason", "reason_code", "reason_fields"))
    text = tidy(str(reason), LONGEST)
    return {"reason": text, "reason_code": str(reason.code), "reason_fields": dict(reason.fields)}


def _shown(value: Any) -> Any:
    return "; ".join(map(str, value)) if isinstance(value, list) else value


def _settling(of: Mapping[str, Any]) -> str:
    older = f"{of['marker']} is older than {of['newest']}; " if of["marker"] else ""
    steady = "it just changed" if of["since"] is None else f"unchanged since {of['since']}"
    return f"{older}settling: {steady}, ready when unchanged for {of['settle_seconds']:g} s"


def _paused(of: Mapping[str, Any]) -> str:
    why, name = f" ({of['why']})" if of.get("why") else "", of["customer"]
    return f"{name} is paused{why}; go on with: bgdeploy resume {shlex.quote(name)}"


def _by_hand(of: Mapping[str, Any]) -> str:
    return f"bgdeploy switch {of['customer']} --to {of['database']}"


def _shrunk(of: Mapping[str, Any]) -> str:
    lost = "; ".join(
        f"{one['name']} {one['before']:,} -> {one['after']:,} (-{100 * (one['before'] - one['after']) / one['before']:.0f} %, "
        f"at most {of['max_percent']:g} %)"
        for one in of["lost"]
    )
    again = f"drop a newer snapshot, or mend its folder and: bgdeploy retry {of['job']} --reload"
    return f"fewer rows than live: {lost}. If right: {_by_hand(of)}; else: {again}"


# The fields in braces are the reason's; where a sentence takes more than that, a function makes it.
_WORDINGS: dict[Code, str | Callable[[Mapping[str, Any]], str]] = {
    Code.FOLDER_GONE: "folder gone",
    Code.UNLISTED: "the folder {folder} cannot be listed",
    Code.NOT_FINISHED: "not finished: {sign}; remove it when nothing writes any more",
    Code.NO_FILES: "no data files yet",
    Code.MANIFEST_UNREAD: "the manifest is not compared with the files yet",
    Code.MANIFEST_DIFFERS: "{fault}",
    Code.MARKED: "{marker} is there; looking once more",
    Code.SETTLING: _settling,
    Code.CHANGED: "changed, settling",
    Code.JUDGED_AGAIN: "looked at anew",
    Code.BEING_READ: "its files are being read",
    Code.NOT_READABLE: "{said}",
    Code.COMPLETE: "complete",
    Code.TARGET_UNHEALTHY: "the target is not well: {reasons}",
    Code.NO_ROOM: "waits for room: {short}",
    Code.UNAVAILABLE: "{said}",
    Code.RETRY_AFTER: "tries again after: {said}",
    Code.GIVEN_BACK: "{said}",
    Code.LEASE_EXPIRED: "resumes after {holder} could not prolong its lease",
    Code.HOLDER_LOST: "resumes after {holder} was lost",
    Code.ASKED_FOR: "asked for by {by}",
    Code.CANCEL_ASKED: "{by} asked to cancel it",
    Code.CUSTOMER_REMOVED: "{by} removed its customer",
    Code.PAUSED: _paused,
    Code.BEING_DROPPED: "it is being dropped ({why})",
    Code.NOT_NEWER: lambda of: (
        f"not newer than what was live already; to use it all the same: {_by_hand(of)}"
    ),
    Code.SHRUNK: _shrunk,
    Code.HELD_FOR_SWITCH: "waits for: bgdeploy switch {customer}",
    Code.SWITCH_FAILED: "{said}",
    Code.DROP_WAITS: "{database} is not dropped yet: {why}",
    Code.OVERTAKEN: "{timestamp} went live, and older ones never follow by themselves",
    Code.RETIRED: "{why}",
}
_CODES = frozenset(map(str, Code))
