"""Live: bars under the log while loads run, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bgdeploy.errors import BgdeployError

if TYPE_CHECKING:
    from bgdeploy.jobs.ledger import Progress
    from bgdeploy.site import Site

_TABLES = 6  # lines below each load; what is over and what has not begun gives way
_EVERY = 2  # pictures a second


@contextmanager
def live_loads(site: Site) -> Iterator[None]:
    """Draw running loads below whatever is logged meanwhile; on anything but a terminal do nothing."""
    if site.settings.log_format != "text" or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live

    from bgdeploy import log

    console = Console(stderr=True)
    with Live(
        console=console, get_renderable=lambda: _picture(site), refresh_per_second=_EVERY, transient=True
    ):
        log.configure(site.settings.log_format)  # standard error is the picture's now
        yield
    log.configure(site.settings.log_format)


def _picture(site: Site) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from bgdeploy.service.timeline import running_loads

    table = Table.grid(padding=(0, 2))

    def add(name: str, progress: Progress, style: str) -> None:
        bar = ProgressBar(total=max(1, progress.expected), completed=progress.rows, width=24)
        rows = f"{progress.rows:,} / {progress.expected:,}"
        rate = f"{progress.rate:,.0f} rows/s" if progress.rate else ""
        left = f"{progress.left:,.0f} s left" if progress.left is not None else ""
        table.add_row(Text(name, style=style), bar, f"{progress.share:.0%}", rows, rate, left)

    try:
        loads = running_loads(site)
    except BgdeployError:
        return table  # the log says what is wrong; the next picture may be fine
    for load in loads:
        add(f"{load.title} ({load.step or 'begun'})", load.whole, "bold")
        open_ones = [one for one in load.tables if one.rows < one.expected]
        for one in sorted(open_ones, key=lambda one: not one.running)[:_TABLES]:
            add(f"  {one.name}", one, "" if one.running else "dim")
    return table
