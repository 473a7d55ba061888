"""A fresh job table on a real file for every test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bgdeploy.jobs.store import Store, open_store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path, migrated: Path) -> Iterator[Store]:
    shutil.copy(migrated, path)
    opened = open_store(path)
    yield opened
    opened.close()
