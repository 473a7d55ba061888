"""Names: one place decides what alias and databases are called."""

from __future__ import annotations

import hashlib
import re

LONGEST_ALIAS = 40  # leaves room for "-<timestamp>-r<build>-f<fence>" in Neo4j's 63 characters
_LEGAL = re.compile(r"[a-z][a-z0-9-]{1,38}[a-z0-9]")
_DATABASE = re.compile(r"([1-9][0-9]{0,18})(?:-r([0-9]{1,9}))?(-f[0-9]+)?")


def alias_name(customer: str) -> str:
    """Return the alias of a customer: the name itself where it is legal, else folded with a hash.

    Legal on both targets: 3 to 40 characters, a letter first, then lower-case ASCII letters,
    digits and dashes, no dash last, not beginning with ``system``.
    """
    if _LEGAL.fullmatch(customer) and not customer.startswith("system"):
        return customer
    folded = re.sub(r"[^a-z0-9]+", "-", customer.lower()).strip("-")
    if not folded[:1].isalpha() or folded.startswith("system"):
        folded = f"c-{folded}".rstrip("-")
    digest = hashlib.sha256(customer.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return f"{folded[: LONGEST_ALIAS - 7].rstrip('-')}-{digest}"


def database_name(alias: str, timestamp: int, build: int = 1, fence: int | None = None) -> str:
    """Return ``<alias>-<timestamp>``, with ``-r<build>`` for a reload and ``-f<fence>`` for a fresh start."""
    name = f"{alias}-{timestamp}"
    if build > 1:
        name += f"-r{build}"
    return name if fence is None else f"{name}-f{fence}"


def read_age(alias: str, database: str) -> tuple[int, int] | None:
    """Return (timestamp, build) of a name that ``database_name`` could have given, else None; it proves no ownership."""
    found = _DATABASE.fullmatch(database.removeprefix(f"{alias}-"))
    return (int(found[1]), int(found[2] or 1)) if found and database.startswith(f"{alias}-") else None
