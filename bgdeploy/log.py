"""The wording of every event, in one place, and how it reaches people and machines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from bgdeploy.clock import iso
from bgdeploy.plain import LONGEST, plain, tidy

_LOGGER = logging.getLogger("bgdeploy")

# name: (level, wording). The fields in braces are the event's data; "job" is customer/timestamp, and what begins
# with _ is for the sentence alone: machines get the number it was made of.
EVENTS: dict[str, tuple[int, str]] = {
    # service
    "service.started": (
        logging.INFO,
        "bgdeploy {version} is up: {workers} load(s) at a time, a whole scan every {interval:g} s, {place}",
    ),
    "service.target": (
        logging.INFO,
        "the target is {target}, since {setting} names a server and no target is written down; to keep the "
        "embedded database: target: ladybug",
    ),
    "service.stopping": (
        logging.INFO,
        "stopping: nothing new is begun; {running} running load(s) may take up to {timeout:g} s (a second signal ends them at once)",
    ),
    "service.stopped": (logging.INFO, "stopped; every job that was held is free again"),
    "service.hurried": (
        logging.WARNING,
        "stopping at once: running loads are given back and resume at the next start",
    ),
    "service.abandoned": (
        logging.ERROR,
        "{threads} did not end and is left behind (a disk that hangs?); what ran resumes at the next start",
    ),
    "service.trouble": (logging.ERROR, "{what} failed and will be tried again: {error}"),
    # scan
    "scan.discovered": (logging.INFO, "discovered {job}: {reason}"),
    "scan.waits": (logging.INFO, "{job} is not ready: {reason}"),
    "scan.queued": (logging.INFO, "queued {job}: {tables} tables, {rows:,} rows, {_size}"),
    "scan.by_position": (
        logging.INFO,
        "{job}: columns taken by their position, since no name matches: {columns}",
    ),
    "scan.unsettled": (logging.WARNING, "{job} goes back to discovered: {reason}"),
    "scan.overtaken": (logging.INFO, "{job} is overtaken: {reason}"),
    "scan.changed": (logging.WARNING, "{job} changed after it was loaded; what is live stays. {cure}"),
    "scan.again": (logging.INFO, "{job} has changed since it failed and is looked at anew"),
    "scan.skipped": (logging.WARNING, "skipped {folder}: {reason}"),
    "scan.removed": (logging.INFO, "nothing of {customer} is loaded: {reason}"),
    "scan.unreadable": (logging.ERROR, "cannot list {folder}: {reason}; no job was changed"),
    "inspector.ended": (
        logging.WARNING,
        "the process that read the files of {place} {how}; another one goes on, and no other snapshot is held up",
    ),
    "scan.late": (
        logging.ERROR,
        "no scan has succeeded for {seconds:.0f} s, though there should be one every {interval:g} s",
    ),
    "customer.added": (logging.INFO, "new customer {customer}, its alias will be {alias}"),
    # load
    "load.claimed": (
        logging.INFO,
        "loading {job} into {database} (run {fence}; runs that failed without progress: {attempt}, that the service died under: {interruptions})",
    ),
    "load.chosen": (logging.INFO, "{job} is loaded by {loader}: {why}"),
    "load.planned": (logging.INFO, "{job}: {rows:,} rows to load, in {groups} group(s) of files"),
    "load.resumed": (
        logging.INFO,
        "{job} resumes: {done} of {groups} groups of files are in already, {rows:,} rows",
    ),
    "load.restarted": (logging.WARNING, "what was built of {job} is deleted: {reason}"),
    "load.progress": (
        logging.INFO,
        "{job}: {rows:,} of {expected:,} rows ({share:.0%}), {_rate}, {_left}; {table} {table_rows:,} of {table_expected:,}",
    ),
    "load.step": (logging.INFO, "{job}, step done: {step}"),
    "load.note": (logging.INFO, "{job}: {doing}"),
    "load.loaded": (
        logging.INFO,
        "loaded {job}: {compared} of {rows:,} rows compared with the files, in {database}, {took:.1f} s",
    ),
    "load.retry": (
        logging.WARNING,
        "{job} is tried again in {delay:.1f} s (failed {attempt} of at most {limit} times without progress): {reason}",
    ),
    "load.silent": (
        logging.WARNING,
        "{job}: nothing was heard of its loading process for {minutes:g} min; if it hangs: bgdeploy jobs cancel {id}",
    ),
    "load.cancelled": (logging.INFO, "{job} is cancelled; what it built will be dropped"),
    "load.failed": (logging.ERROR, "{job} failed: {reason}"),
    "load.waits": (logging.WARNING, "{job} waits: {reason}"),
    "load.returned": (logging.INFO, "{job} was given back unfinished and will resume: {reason}"),
    "load.renamed": (logging.WARNING, "{job}: building {new} instead of {old}: {why}"),
    "rescue.returned": (
        logging.WARNING,
        "rescued {job}: {holder} is gone; it resumes in {rest:.0f} s (death {deaths} of {limit} in a row without progress)",
    ),
    "rescue.late": (
        logging.WARNING,
        "{job} is free again: {holder} lives, but did not prolong its lease in time; nothing is counted",
    ),
    "rescue.failed": (
        logging.ERROR,
        "{job} failed: the service died {limit} times in a row while it was loaded, without progress (last step: {step})",
    ),
    "rescue.released": (logging.WARNING, "{job} is free again: {holder}, which held it, is gone"),
    "health.fine": (logging.INFO, "looked at before {job}: the target is well and has room; {reason}"),
    "health.unknown": (logging.WARNING, "{job} starts although the server does not tell a figure: {figure}"),
    # switch
    "switch.moved": (
        logging.INFO,
        "live: {alias} -> {database}, before: {source} ({kind}, {took:.1f} ms): {why}",
    ),
    "switch.ahead": (
        logging.ERROR,
        "the alias {alias} points at {database}, newer than {live}, live by the job table (an old copy of it?); nothing older follows",
    ),
    "switch.found": (
        logging.WARNING,
        "{alias} points at {database}, not at {expected}: moved by someone else",
    ),
    "switch.blocked": (logging.WARNING, "{job} is loaded and does not go live: {reason}"),
    "switch.finished": (
        logging.WARNING,
        "recorded that {alias} was moved to {database}: who moved it had not done so",
    ),
    "switch.failed": (
        logging.ERROR,
        "{alias} could not be moved to {database} and stays where it was: {reason}",
    ),
    "switch.written": (
        logging.WARNING,
        "{database} is not as it was verified, somebody wrote to it while it was live, and {customer} goes back "
        "to that: {changed} rows",
    ),
    "customer.paused": (logging.WARNING, "{customer} is paused by {by}: {why}"),
    "customer.resumed": (logging.INFO, "{customer} is resumed by {by}"),
    "customer.removed": (
        logging.WARNING,
        "{customer} was removed by {by}: {why}; its jobs end, its databases go",
    ),
    "customer.retired": (
        logging.WARNING,
        "the alias {alias} of {customer} is gone; it pointed at {database}",
    ),
    "database.bad": (logging.WARNING, "{database} is marked bad by {by}: {why}"),
    "database.cleared": (logging.INFO, "{database} is no longer marked bad"),
    "database.unreadable": (
        logging.ERROR,
        "what {alias} points at cannot be read, and readers get errors: {reason}",
    ),
    "database.healed": (
        logging.WARNING,
        "{database} runs again; after a crash of its server it could not start while it was read-only: {said}",
    ),
    "database.half_down": (
        logging.WARNING,
        "{database} is read-only and does not start on some members; it is left as it is, since others serve it: {said}",
    ),
    "database.pinned": (
        logging.INFO,
        "{database} is pinned by {by}: it is never dropped until it is unpinned",
    ),
    "database.unpinned": (logging.INFO, "{database} is unpinned by {by}"),
    # clean
    "clean.intended": (logging.INFO, "{database} will be dropped: {why}"),
    "clean.dropped": (logging.INFO, "dropped {database}"),
    "clean.foreign": (
        logging.WARNING,
        "{database} of ours is gone, and what has its name is left alone: {reason}",
    ),
    "clean.waits": (logging.WARNING, "{database} is not dropped yet: {reason}"),
    "clean.retired": (logging.INFO, "cleaned {job}: {why}"),
    "clean.orphan": (
        logging.WARNING,
        "{database} belongs to no job and is left alone; remove it by hand when you know what it is",
    ),
    # history
    "history.events": (logging.INFO, "forgot {count:,} events from before {before}"),
    "history.ledgers": (
        logging.INFO,
        "forgot which files were loaded how by jobs that were over before {before}: {count:,} groups",
    ),
    "history.jobs": (
        logging.INFO,
        "forgot {count:,} job(s) of {customer} that were over before {before}, and all that was written about them",
    ),
    "expire.removed": (
        logging.INFO,
        "removed the folder of {job}: older than {days} days, and nothing of it is kept",
    ),
    "expire.left": (logging.WARNING, "{folder} stays, although dataset.expire_days is set: {reason}"),
    # operator
    "operator.retry": (logging.INFO, "{job} is queued again by {by}"),
    "operator.cancel": (logging.INFO, "{by} asks to cancel {job}"),
    "operator.reload": (logging.INFO, "{job} will be loaded once more as build {build}, asked for by {by}"),
    # job table
    "store.migrated": (
        logging.INFO,
        "job table moved from revision {old} to {new}; the old file is kept as {backup}",
    ),
    "store.anew": (
        logging.WARNING,
        "{path} held no job table and was made anew, though there are {count} aliases: the old one is lost. "
        "What is live stays live, and the newest snapshots are loaded again",
    ),
    "store.lost": (
        logging.ERROR,
        "the job table {path} was deleted, replaced or moved under this process, which ends; running loads were ended",
    ),
    "store.log_grows": (
        logging.ERROR,
        "the write-ahead log of the job table has {size} MiB and cannot be folded in; look for a long reader",
    ),
    "store.shared_disk": (
        logging.ERROR,
        "the job table {path} lies on {kind}, where SQLite's write-ahead log is not safe; put it on a disk "
        "of this host: database_url or state_dir",
    ),
    "store.full": (
        logging.ERROR,
        "the disk under the job table is full; the reserve was freed, please make room",
    ),
}


class Title(str):
    """How people call a job; ``about`` is what machines want of it: ``job`` (its id), ``customer``, ``timestamp``, ``build``."""

    about: Mapping[str, Any]

    def __new__(cls, text: str, about: Mapping[str, Any] | None = None) -> Title:
        """Return the text with what it is about beside it; copying makes one without and fills it in."""
        one = str.__new__(cls, text)
        one.about = about or {}
        return one


def word(name: str, **fields: Any) -> str:
    """Return the sentence of an event; an unknown name is a KeyError, which a test finds."""
    fit = {key: _fit(value) for key, value in fields.items()}
    return EVENTS[name][1].format(**fit)


def _fit(value: Any) -> Any:
    """Whatever is not a number as text that may be logged."""
    return value if value is None or isinstance(value, bool | int | float) else tidy(str(value), LONGEST)


def emit(name: str, **fields: Any) -> None:
    """Send one event to whoever listens: readable text, or JSON with all its fields."""
    level = EVENTS[name][0]
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, word(name, **fields), extra={"event": name, "fields": fields})


def configure(form: str, *, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Write events to ``stream`` (stderr) as ``text`` or ``json`` lines, or ``bare``: what happened, without when."""
    handler = logging.StreamHandler(stream or sys.stderr)
    colours = form == "text" and handler.stream.isatty()
    forms = {"json": _JsonLines, "bare": _Bare}
    handler.setFormatter(forms[form]() if form in forms else _Readable(colours=colours))
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(level)
    _LOGGER.propagate = False


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": iso(record.created),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "message": tidy(record.getMessage()),
        }
        for name, value in getattr(record, "fields", {}).items():
            if isinstance(value, Title):
                line |= value.about
            elif not name.startswith("_"):
                line[name] = plain(_fit(value))
        return json.dumps(line, ensure_ascii=False)


class _Bare(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return tidy(record.getMessage())


class _Readable(logging.Formatter):
    _COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.DEBUG: "\x1b[2m"}

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        text = f"{iso(record.created)} {record.levelname.lower():<7} {tidy(record.getMessage())}"
        colour = self._COLOURS.get(record.levelno, "") if self._colours else ""
        return f"{colour}{text}\x1b[0m" if colour else text
