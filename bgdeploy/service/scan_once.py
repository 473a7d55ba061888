"""One scan for cron: looks twice where half a second decides."""

from __future__ import annotations

import time

from bgdeploy.pipeline.notes import Report
from bgdeploy.pipeline.scan import scan
from bgdeploy.site import Site

SECOND_LOOK = 0.55  # seconds; a marker counts when two looks half a second apart agree


def scan_once(site: Site) -> Report:
    """Scan, and look again at once where a marker was seen for the first time."""
    report = scan(site)
    if not report.look_again:
        return report
    time.sleep(SECOND_LOOK)
    second = scan(site)
    second.discovered = report.discovered + second.discovered
    second.queued = report.queued + second.queued
    second.failed = report.failed + second.failed
    return second
