"""A worker: rescues, decides whether the next job may start, claims it and runs it."""

from __future__ import annotations

from dataclasses import replace

from bgdeploy import log
from bgdeploy.errors import BadInput, FolderAway, LeaseLost, NotReadable, TargetAway, TargetFull
from bgdeploy.failpoints import reach
from bgdeploy.jobs.reasons import Code, Reason, because, read
from bgdeploy.jobs.rescue import rescue
from bgdeploy.jobs.rows import Row, title, write
from bgdeploy.jobs.states import Actor
from bgdeploy.pipeline import admit
from bgdeploy.pipeline.alias import settle
from bgdeploy.pipeline.claim import Rules, claim, peek
from bgdeploy.pipeline.room import find_needs
from bgdeploy.service.heartbeat import may_claim
from bgdeploy.service.running import run_job
from bgdeploy.service.shutdown import Stop
from bgdeploy.site import Site
from bgdeploy.targets.base import Health


def work_once(site: Site, stop: Stop, only: int | None = None) -> bool:
    """Rescue, claim and load one job, the next one or ``only`` that; False when there is nothing to do now."""
    orchestrator = site.settings.orchestrator
    most, base = orchestrator.max_service_deaths, orchestrator.retry_backoff_base
    rescue(site.store, now=site.clock(), owner=site.owner, most=most, base=base)
    if not may_claim():
        return False
    rules = claim_rules(site)
    next_one = peek(site.store, rules, now=site.clock(), only=only)
    health = None if next_one is None or stop.asked.is_set() else _may_start(site, next_one)
    if next_one is None or health is None:
        return False
    settings = site.settings.target_settings()
    job = claim(
        site.store,
        rules,
        job_id=next_one["id"],
        owner=site.owner,
        now=site.clock(),
        lease_seconds=orchestrator.lease_seconds,
        settings=settings,
        existing={found.name for found in site.target.databases()},
    )
    if job is not None:
        log.emit("health.fine", job=title(job), reason="; ".join(health.figures))
        for figure in health.untold:
            log.emit("health.unknown", job=title(job), figure=figure)
        reach("claim.done")
        run_job(site, job, stop)
    return True


def claim_rules(site: Site) -> Rules:
    """What the configuration says about taking work."""
    orchestrator = site.settings.orchestrator
    return Rules(
        keep_databases=orchestrator.keep_databases,
        latest_only=orchestrator.backlog == "latest",
        settle_seconds=site.settings.dataset.settle_seconds,
        max_concurrent_loads=orchestrator.max_concurrent_loads,
    )


def _may_start(site: Site, job: Row) -> Health | None:
    """Return what was found to be enough, or None: the row then says what is missing."""
    health, missing, code = _look_for_room(site, job)
    if missing is not None:
        _wait(site, job, missing, code)
    return health


def _look_for_room(site: Site, job: Row) -> tuple[Health | None, Reason | None, str]:
    """The target is well, the folder is as it was, and there is room: every figure; else why not, and the error's code."""
    health = site.target.health()
    if health.state != "ok":
        return None, because(Code.TARGET_UNHEALTHY, reasons=health.reasons), TargetAway.code
    try:
        settle(site, job["customer"])  # what the alias leads to may forbid this load: the claim sees it
        if not admit.recheck(site, job):
            return None, None, ""
        snapshot = admit.open_folder(site, job, job["fingerprint"])
    except LeaseLost:
        return None, None, ""
    except (NotReadable, TargetAway) as error:
        return None, because(Code.UNAVAILABLE, error=error.code, said=str(error)), error.code
    except OSError as error:  # a disk that fails under this folder keeps no other from being loaded
        why = f"{error.filename or admit.folder_of(site, job)}: {error.strerror or error}"
        return None, because(Code.UNAVAILABLE, error=FolderAway.code, said=why), FolderAway.code
    except BadInput as error:  # as it was when it was queued, and not acceptable any more
        admit.refuse(site, job, error)
        return None, None, ""
    needs = find_needs(site, job, snapshot)
    shown = [need.sum for need in needs]
    short = [need.sum for need in needs if not need.met]
    if short:
        return None, because(Code.NO_ROOM, short=short), TargetFull.code
    return replace(health, figures=(*health.figures, *shown)), None, ""


def _wait(site: Site, job: Row, reason: Reason, code: str) -> None:
    """Put a queued job off without using an attempt; visible in the row and in the log."""
    pause = min(10.0, site.settings.orchestrator.health_check_retry_delay)
    try:
        with site.transaction(Actor.WORKER) as tx:
            write(tx, job, reason=reason, error_code=code, not_before=tx.now + pause)
            if reason != read(job):
                tx.say_seldom("load.waits", job, reason=reason)
    except LeaseLost:
        return  # another worker took it
