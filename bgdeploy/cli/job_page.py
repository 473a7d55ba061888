"""One job as people read it: what is true of it, where its time went, its tables, its history."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from bgdeploy.cli.render import GAP, Shape, Table, print_table, show_age
from bgdeploy.jobs.states import State
from bgdeploy.service.results import Group, Span, Story
from bgdeploy.snapshots.source import tell_positions

WIDTH = 40  # characters of the drawing
_APART = ("tables", "events", "timeline", "progress", "proof", "by_position", "hint")


def print_job(job: Story) -> None:
    """Print a job and the command that may come next."""
    for key, value in ((one.name, getattr(job, one.name)) for one in fields(job)):
        if key not in _APART and value not in (None, False, []):
            print(f"{key:<16} {', '.join(value) if isinstance(value, list) else value}")
    if job.proof is not None:
        print(f"{'proof':<16} {tell_proof(job.proof)}")
    if job.by_position:
        print(f"{'by position':<16} {tell_positions(job.by_position)}")
    print()
    _print_timeline(job.timeline)
    if job.state == State.LOADING:
        columns = ("table", "rows", "of", "share", "rows/s", "left")
        rows = [
            (
                one.table,
                f"{one.rows:,}",
                f"{one.expected:,}",
                f"{one.rows / (one.expected or 1):.0%}",
                "" if one.rows_per_second is None else f"{one.rows_per_second:,}",
                "" if one.seconds_left is None else f"{one.seconds_left:.0f} s",
            )
            for one in job.progress
        ]
        print_table(Table(columns, rows))
        print()
    narrow = Shape(text=("joins",), spare=("starts", "files", "group"))
    columns_ = ("group", "table", "joins", "files", "expected", "confirmed", "starts", "run")
    groups = [_group_row(group) for group in job.tables]
    print_table(Table(columns_, groups, empty="Nothing is planned yet.", shape=narrow))
    print()
    for event in job.events:
        said = event.message
        # A long reason is read once.
        print(f"{event.at}  {said.replace(job.error, 'see error') if job.error else said}")
    if job.hint is not None:
        print(f"\n{job.hint.text}")


def tell_proof(proof: dict[str, Any]) -> str:
    """Say how a database was compared with its files."""
    # A version whose proofs had the words alone is revision 0008 of the job table.
    if proof.get("complete", proof["compared"] == "every value"):
        return f"every value of {proof['rows']:,} rows compared with the files"
    return f"counts and samples of {proof['rows']:,} rows compared with the files, not every value"


def _print_timeline(spans: Sequence[Span]) -> None:
    if not spans:
        return
    columns = ("time", "since", "took", "░ waiting  █ work")
    cells = [(span.name, span.from_, _took(span)) for span in spans]
    width = WIDTH
    if sys.stdout.isatty():  # what is left beside these columns: a bar that is folded says something else
        used = sum(max(map(len, one)) + len(GAP) for one in zip(columns[:-1], *cells, strict=True))
        width = min(WIDTH, shutil.get_terminal_size().columns - used)
    bars = draw([(span.seconds, span.kind == "work") for span in spans], max(len(columns[-1]), width))
    rows = [(*row, bar) for row, bar in zip(cells, bars, strict=True)]
    print_table(Table(columns, rows, shape=Shape(spare=("since",))))
    print()


def _took(span: Span) -> str:
    shown = show_age(span.seconds) if span.seconds >= 60 else f"{span.seconds:.1f} s"
    return shown if span.to else f"{shown} so far"


def draw(lengths: Sequence[tuple[float, bool]], width: int = WIDTH) -> list[str]:
    """Return a bar for each (seconds, work) in turn, on one scale: hollow for waiting, solid for work, never none."""
    whole = max(sum(seconds for seconds, _ in lengths), 0.001)
    bars, start = [], 0.0
    for seconds, work in lengths:
        before = min(width - 1, round(start * width / whole))
        size = min(width - before, max(1, round(seconds * width / whole)))
        bars.append(" " * before + ("█" if work else "░") * size)
        start += seconds
    return bars


def _group_row(group: Group) -> tuple[Any, ...]:
    joins = f"{group.source_label} -> {group.target_label}" if group.kind == "relationship" else ""
    confirmed = f"{group.rows_confirmed:,}" if group.confirmed_at else ""
    run = f"{group.confirmed_fence}{' found' if group.found else ''}" if group.confirmed_at else ""
    what = (group.number, group.name, joins, len(group.files))
    return *what, f"{group.rows_expected:,}", confirmed, group.starts, run
