"""Fixtures for whole installations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import House, make_house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    yield make_house(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
