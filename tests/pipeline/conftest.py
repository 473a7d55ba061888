"""An installation for each test, with the options it asks for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.place import Place


@pytest.fixture
def make_place(tmp_path: Path, migrated: Path) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(**options: Any) -> Place:
        (tmp_path / "state").mkdir()
        shutil.copy(migrated, tmp_path / "state" / "jobs.db")
        made.append(Place(tmp_path, {key.replace("__", "."): value for key, value in options.items()}))
        return made[-1]

    yield make
    for place in made:
        place.site.store.close()
