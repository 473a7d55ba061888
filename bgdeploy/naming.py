"""Names: one place decides what alias and databases are called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from bgdeploy.targets import describe_target

LONGEST_FOLDED = 40  # leaves room for "-<timestamp>-r<build>-f<fence>" in Neo4j's 63 characters
LONGEST_FILE = (
    230  # bytes of 255; beside an alias lies .<alias>.generation, written as .<alias>.generation.new
)
_LEGAL = re.compile(r"[a-z][a-z0-9-]{1,38}[a-z0-9]")
_SHORT = re.compile(
    r"[a-z][a-z0-9]?"
)  # too short for a name of its own, and no more with a timestamp behind it
_OF_SERVER = re.compile(r"[ -~]+")
_BUILT = re.compile(r"([1-9][0-9]{0,18})(?:-r([0-9]{1,9}))?(-f[0-9]+)?")


def alias_name(customer: str, target: str) -> str:
    """Return the alias of a customer: its own name wherever the target can carry it, else folded with a hash.

    A link carries any folder's name but the very longest. Neo4j makes no difference between upper and lower
    case, and keeps lower; it has reserved ``system...`` and ``_...``, and takes dots for a path. Decided by
    nothing but the name, so that a job table that was lost gives every customer its alias again.
    """
    if not describe_target(target).folds_case:
        short = len(customer.encode("utf-8", "surrogateescape")) <= LONGEST_FILE
        return customer if short else fold(customer)
    name = customer.lower()
    legal = _OF_SERVER.fullmatch(name) and not set(name) & set(".`") and name.strip() == name
    return name if legal and not name.startswith(("system", "_")) else fold(customer)


def known_alias(customer: str, target: str, there: Iterable[str]) -> str:
    """Return the alias of a customer at a target that has these: the one an earlier version gave, where it is there."""
    earlier = fold(customer)
    return earlier if earlier in there else alias_name(customer, target)


def may_be_folded(alias: str) -> bool:
    """True for what could be the folded name of another customer."""
    return re.fullmatch(r".*-[0-9a-f]{6}", alias) is not None


def fold(customer: str) -> str:
    """Return the name itself where it is legal everywhere, else a legal one with a hash; every alias was that once.

    Legal: 3 to 40 characters, a letter first, then lower-case ASCII letters, digits and dashes, no dash
    last, not beginning with ``system``.
    """
    if _LEGAL.fullmatch(customer) and not customer.startswith("system"):
        return customer
    folded = re.sub(r"[^a-z0-9]+", "-", customer.lower()).strip("-")
    if not folded[:1].isalpha() or folded.startswith("system"):
        folded = f"c-{folded}".rstrip("-")
    digest = hashlib.sha256(customer.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return f"{folded[: LONGEST_FOLDED - 7].rstrip('-')}-{digest}"


def database_name(customer: str, timestamp: int, build: int = 1, fence: int | None = None) -> str:
    """Return ``<customer>-<timestamp>``, folded, with ``-r<build>`` for a reload and ``-f<fence>`` for a fresh start."""
    name = f"{customer if _SHORT.fullmatch(customer) else fold(customer)}-{timestamp}"
    if build > 1:
        name += f"-r{build}"
    return name if fence is None else f"{name}-f{fence}"


def read_age(customer: str, database: str) -> tuple[int, int] | None:
    """Return (timestamp, build) in the name of a database of this customer, whoever gave it, else None; it proves no ownership."""
    for base in (customer, customer.lower(), fold(customer)):
        if database.startswith(f"{base}-") and (found := _BUILT.fullmatch(database.removeprefix(f"{base}-"))):
            return int(found[1]), int(found[2] or 1)
    return None
