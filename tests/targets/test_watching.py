"""What the engine prints about a COPY, and what is made of it."""

from __future__ import annotations

import os
import threading

import pytest

from bgdeploy.targets.ladybug import build
from bgdeploy.targets.ladybug.build import watched

FIRST = b"Pipelines Finished: 0/1\nCurrent Pipeline Progress: 66%\n"
SECOND = b"\x1b[1A\x1b[2KPipelines Finished: 1/1\nCurrent Pipeline Progress: 0%\n"


@pytest.mark.parametrize(
    ("said", "share"),
    [
        (b"", 0.0),
        (b"Pipelines Finished: 0/1\nCurrent Pipeline Progress: 0%\n", 0.0),
        (FIRST, 0.66),
        (FIRST + b"\x1b[1ACurrent Pipeline Progress: 100%\n", 1.0),
        (FIRST + SECOND, 1.0),
        (FIRST + SECOND + b"Current Pipeline Progress: 15%\n", 1.0),
        (b"something else entirely", 0.0),
    ],
)
def test_the_share_that_was_read_never_falls_while_the_index_is_built(said: bytes, share: float) -> None:
    assert build._share(said) == share


def test_what_is_printed_is_told_and_standard_output_is_given_back(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "_EVERY", 0.01)
    told, heard = [0.0], threading.Event()

    def tell(share: float) -> None:
        told.append(share)
        if share == 0.66:
            heard.set()

    before = len(os.listdir("/proc/self/fd"))
    with watched(tell):
        os.write(1, FIRST)
        assert heard.wait(30)
    os.write(1, b"after")
    assert capfd.readouterr().out == "after"
    assert len(os.listdir("/proc/self/fd")) == before
