"""Store: all that is asked of the place where snapshots lie, in three verbs: list, look, fetch.

A scan lists and looks, a claim looks again, a load fetches; nothing else touches that place until files are parsed, in a child
process. Here it is a folder of folders, ``<base>/<customer>/<timestamp>/``; another place would be another class with these methods.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from bgdeploy.errors import NotReadable
from bgdeploy.snapshots import folders
from bgdeploy.snapshots.readiness import Fingerprint, fingerprint


@dataclass(frozen=True)
class FolderStore:
    """Snapshots in folders of a file system, which are read where they lie."""

    base: Path

    def list_customers(self) -> list[folders.Found]:
        """Return all customers by name, each with the reason why it is skipped, or None.

        Raises NotReadable where they cannot be listed: that says nothing of any of them.
        """
        return folders.list_customers(self.base)

    def list_snapshots(self, customer: str, *, now: float, known: Set[str] = frozenset()) -> folders.Listing:
        """Return a customer's snapshots by timestamp, and the names that are skipped with their reasons.

        ``now`` is seconds since 1970. Names in ``known`` were judged before; they are only looked for.
        Raises NotReadable where they cannot be listed.
        """
        return folders.list_timestamps(self.base / customer, now=now, known=known)

    def look(self, customer: str, timestamp: int) -> Fingerprint | None:
        """Return what tells one version of a snapshot from another, without opening a file of it.

        None where it is gone, or a link that leads elsewhere by now; whether a disk was lost is told by ``list_snapshots``.
        Raises OSError where the disk does not answer.
        """
        folder = self._folder(customer, timestamp)
        try:
            return None if folders.leads_astray(folder) else fingerprint(folder)
        except FileNotFoundError:
            return None

    def fetch(self, customer: str, timestamp: int) -> Path:
        """Return a folder of this machine in which the snapshot's files can be opened until the load is over.

        Raises NotReadable where it is gone, or a link that leads elsewhere by now.
        """
        folder = self._folder(customer, timestamp)
        why = folders.leads_astray(folder) or (None if folder.is_dir() else "it is gone")
        if why is not None:
            raise NotReadable(
                f"The snapshot {folder} cannot be read: {why}.", kept="Nothing of it was loaded."
            )
        return folder

    def _folder(self, customer: str, timestamp: int) -> Path:
        return self.base / customer / str(timestamp)
