"""Fixtures for whole installations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import House, make_house, make_removable


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    yield make_house(tmp_path)
    make_removable(tmp_path)
