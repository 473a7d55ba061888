"""Write what the docs take from the code; ``--check`` only says whether they are up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from bgdeploy.jobs.states import TRANSITIONS, draw

PAGE = Path(__file__).parent / "state-machine.md"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def render(page: str) -> str:
    """Return the page with its generated part made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n```mermaid\n{draw()}```\n\n{_table()}\n{END}{after}"


def _table() -> str:
    lines = ["| from | to | who | what makes it true |", "|---|---|---|---|"]
    for move in TRANSITIONS:
        who = ", ".join(sorted(move.actors))
        lines.append(f"| {move.source or '-'} | {move.target} | {who} | {move.truth} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Render the page, or check it."""
    found = PAGE.read_text(encoding="utf-8")
    wanted = render(found)
    if "--check" in sys.argv:
        if found != wanted:
            print(f"{PAGE.name} is stale; run: python docs/render.py")
        return int(found != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
