"""The doctor: looks at everything an installation rests on, changes nothing, and names what helps.

It is a list of functions marked ``@check``, in three files by what they look at: ``host``, ``table`` and ``data``.
``examine`` runs them; what can be looked at on a target, the target itself says (``Target.checks``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from bgdeploy.finding import Check, Finding
from bgdeploy.site import Site
from bgdeploy.targets import describe_target


@dataclass
class Visit:
    """One look at an installation, and what a check found out that those after it read."""

    site: Site
    snapshots: dict[str, frozenset[int]] = field(default_factory=dict)  # customer -> timestamps
    skipped: list[tuple[str, str]] = field(default_factory=list)  # name in the base folder, reason
    workers: int = 0  # of the processes that run on this host; 0 where nobody knows


Look = Callable[[Visit], Iterable[Finding]]
# The subjects in the order in which they are told; those of the target come before "aliases".
CHECKS: dict[str, list[Callable[[Visit], list[Check]]]] = {
    subject: []
    for subject in (
        "configuration", "job table", "state folder", "base folder", "clock", "aliases", "workers", "jobs", "limits",
    )
}  # fmt: skip


def check(
    subject: str,
    title: str,
    *,
    embedded: bool | None = None,
    needs: tuple[str, ...] = (),
    opens: str = "",
    limit: float = 10.0,
) -> Callable[[Look], Look]:
    """List a function as a check of its subject, behind those above it; the words are those of ``Check``.

    ``embedded``: it is about targets whose engine runs in this process, or about all others; None: about any.
    """

    def add(look: Look) -> Look:
        def make(visit: Visit) -> list[Check]:
            is_about = embedded in (None, describe_target(visit.site.target.kind).embedded)
            return [Check(subject, title, partial(look, visit), needs, opens, limit)] if is_about else []

        CHECKS[subject].append(make)
        return look

    return add
