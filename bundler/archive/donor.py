"""Files taken over from an installation that has them already, by their sha256."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.archive.target import Target
    from bundler.archive.unpack_state import UnpackState
    from bundler.common.progress import Reporter
    from bundler.installation import Installation
    from bundler.manifest import Entry, Manifest


class Donor:
    """An installation that gives its files."""

    def __init__(self, installation: Installation) -> None:
        """Know its files by what its receipt says of them."""
        self._root = installation.root
        self._files = {(file.sha256, file.size): file for file in installation.receipt.files}

    def find(self, entry: Entry) -> Path | None:
        """Return where it has an entry's content, in a file that nobody changed since it was unpacked."""
        seen = self._files.get((entry.sha256, entry.size)) if entry.kind == "file" else None
        if seen is None:
            return None
        path = self._root / seen.path
        try:
            status = path.lstat()
        except OSError:
            return None
        same = (status.st_size, status.st_mtime_ns) == (seen.size, seen.mtime_ns)
        return path if same and stat.S_ISREG(status.st_mode) else None

    def lacks(self, manifest: Manifest) -> tuple[Entry, ...]:
        """Return the entries of a manifest whose content it can't give."""
        return tuple(entry for entry in manifest.tree if self.find(entry) is None)


def take_over(
    donor: Donor, manifest: Manifest, target: Target, state: UnpackState, reporter: Reporter
) -> int:
    """Put what a donor has of a manifest's files in their places, and journal it; what is there stays.

    :returns: the bytes that needn't be unpacked.
    """
    found = []
    for number, entry in enumerate(manifest.tree):
        path = donor.find(entry)
        if path is not None and target.status(entry.path) is None:
            found.append((number, entry, path))
    total = sum(entry.size for _, entry, _ in found)
    if not found:
        return 0
    with reporter.phase("take over", total) as meter:
        for number, entry, path in found:
            modified = target.take(entry, path)
            if modified is not None:
                state.note_adopted(number, modified)
            meter.advance(entry.size)
    return total
