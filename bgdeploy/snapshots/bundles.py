"""Bundles: neighbours taken together, as many as hold so many rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar


class HasRows(Protocol):
    """A file, or what stands for some rows of one."""

    @property
    def rows(self) -> int:
        """How many there are."""


Piece = TypeVar("Piece", bound=HasRows)


def bundle(pieces: Iterable[Piece], most: int) -> Iterator[list[Piece]]:
    """Yield neighbours together, up to ``most`` rows; a piece that has more stands alone."""
    some: list[Piece] = []
    held = 0
    for piece in pieces:
        if some and held + piece.rows > most:
            yield some
            some, held = [], 0
        some.append(piece)
        held += piece.rows
    if some:
        yield some
