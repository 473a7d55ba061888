"""The keeper: a process between the loader and the import tool that ends the tool's whole family with itself.

``neo4j-admin`` starts a Java process of its own, which the death of its parent does not end. So the
tool runs in the keeper's process group, and the keeper kills that group when its standard input
ends, which it does however the loading process goes. Started as ``python -m <this> <command>...``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the command to its end and return its code, or end with it when nobody listens any more."""
    tool = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_await_end, daemon=True).start()
    code = tool.wait()
    return code if code >= 0 else 128 - code


def _await_end() -> None:
    while os.read(0, 1):
        continue
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
