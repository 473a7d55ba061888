"""The law: the seven states and every move between them, as data.

A state says what is true of a snapshot, not what a worker is busy with. The guards in SQL, the
tests and the drawing in the docs all come from ``TRANSITIONS``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What is true of a snapshot."""

    DISCOVERED = "discovered"
    QUEUED = "queued"
    LOADING = "loading"
    LOADED = "loaded"
    SWITCHED = "switched"
    CLEANED = "cleaned"
    FAILED = "failed"


class Actor(StrEnum):
    """Who may make a move."""

    SCAN = "scan"
    WORKER = "worker"
    RESCUE = "rescue"
    CLEANER = "cleaner"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Transition:
    """One legal move; ``source`` is None for a new row."""

    source: State | None
    target: State
    actors: frozenset[Actor]
    truth: str


def _move(source: State | None, target: State, actors: str, truth: str) -> Transition:
    return Transition(source, target, frozenset(map(Actor, actors.split())), truth)


D, Q, L, LD, S, C, F = State

TRANSITIONS: tuple[Transition, ...] = (
    _move(None, D, "scan", "the folder exists and is named by a number"),
    _move(None, Q, "operator", "a reload was asked for: a new job, build + 1"),
    _move(D, Q, "scan", "ready, layout valid, footers read"),
    _move(Q, D, "scan", "the folder changed or is gone before it was claimed"),
    _move(D, F, "scan operator", "the layout can never become valid, or cancelled"),
    _move(Q, F, "scan operator", "the layout can never become valid, or cancelled"),
    _move(D, C, "scan", "overtaken: not above the floor any more"),
    _move(Q, C, "scan", "overtaken: not above the floor any more"),
    _move(Q, L, "worker", "claimed"),
    _move(L, LD, "worker", "every table's confirmed rows equal the rows expected"),
    _move(L, Q, "worker rescue", "retryable error, lease lost, or target not healthy"),
    _move(L, F, "worker rescue operator", "tries used up, error that no retry mends, or cancelled"),
    _move(LD, S, "worker operator", "the alias was moved here and read back"),
    _move(LD, F, "operator", "cancelled"),
    _move(LD, C, "cleaner", "a newer verified one waits or is live; its database is gone"),
    _move(S, C, "cleaner", "not live, not kept, grace over; its database is gone"),
    _move(F, Q, "operator", "a retry was asked for: starts from zero"),
    _move(F, D, "scan", "it failed for bad input and its folder has changed since"),
)

_BY_EDGE = {(move.source, move.target): move for move in TRANSITIONS}


def find(source: State | None, target: State, actor: Actor) -> Transition:
    """Return the move, or raise ValueError where the law has none for this actor."""
    move = _BY_EDGE.get((source, target))
    if move is None or actor not in move.actors:
        raise ValueError(f"no transition {source or 'nothing'} -> {target} by {actor}")
    return move


def draw() -> str:
    """Return the state diagram as Mermaid text, a line per move."""
    lines = ["stateDiagram-v2"]
    for move in TRANSITIONS:
        source = move.source or "[*]"
        who = ", ".join(sorted(move.actors))
        lines.append(
            f"    {source} --> {move.target}: {who} / {move.truth.replace(':', ' -').replace(';', ',')}"
        )
    return "\n".join(lines) + "\n"
