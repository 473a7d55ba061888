"""Follow one snapshot from scan to cleaned, through every process, and count the files and functions it passes.

    python tools/way.py [--list]

A small snapshot goes live and is retired by two newer ones, on the embedded target, in a temporary folder. Every function
of the package that runs meanwhile is noted by the interpreter's own profile hook. The command line and the configuration
are left out, since no snapshot passes there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOOK = """
import os, sys, threading
_root, _notes = os.environ["WAY_ROOT"] + os.sep, os.environ["WAY_NOTES"]
_seen = set()
def _note(frame, event, arg):
    code = frame.f_code
    if event == "call" and code not in _seen and code.co_filename.startswith(_root):
        _seen.add(code)
        if code.co_flags & 1 and not code.co_name.startswith("<"):  # no class, module, lambda or comprehension
            with open(_notes, "a", encoding="utf-8") as notes:
                notes.write(f"{code.co_filename[len(_root):]}\\t{code.co_qualname}\\n")
sys.setprofile(_note)
threading.setprofile(_note)
"""
BESIDE = ("cli/", "config.py", "config_file.py", "__main__.py", "__init__.py")


def main() -> int:
    """Run the way and print what it passed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(HOOK)
        (folder / "config.yaml").write_text(
            "orchestrator: {drop_grace_seconds: 0, keep_databases: 1}\ndataset: {settle_seconds: 0}\n"
        )
        notes = folder / "notes"
        notes.touch()
        env = os.environ | {
            "WAY_ROOT": str(ROOT / "bgdeploy"), "WAY_NOTES": str(notes),
            "PYTHONPATH": os.pathsep.join([str(folder / "hook"), str(ROOT)]),
        }  # fmt: skip
        for timestamp in (1_700_000_001, 1_700_000_002, 1_700_000_003):
            _run(
                folder, None, "simulate", "--customer", "acme", "--timestamp", str(timestamp), "--rows", "100"
            )
            _run(folder, env, "run", "--timeout", "60")
        passed = [line.split("\t") for line in dict.fromkeys(notes.read_text(encoding="utf-8").splitlines())]
    way = [(file, function) for file, function in passed if not file.startswith(BESIDE)]
    files = Counter(file for file, _ in way)
    for file, functions in files.items():
        print(f"{functions:4} functions  {file}")
        if "--list" in sys.argv:
            print("".join(f"{'':16}{function}\n" for one, function in way if one == file), end="")
    print(
        f"{len(way)} functions in {len(files)} files; with the command line and the configuration {len(passed)}"
    )
    return 0


def _run(folder: Path, env: dict[str, str] | None, *words: str) -> None:
    command = [sys.executable, "-m", "bgdeploy", "--config", str(folder / "config.yaml"), *words]
    env = env or os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


if __name__ == "__main__":
    sys.exit(main())
