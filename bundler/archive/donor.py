"""Files taken over from an installation that has them already, by their sha256."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from bundler.errors import MissingVolumeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.archive.target import Target
    from bundler.archive.unpack_state import UnpackState
    from bundler.common.progress import Reporter
    from bundler.installation import Installation
    from bundler.manifest import Entry, Manifest

_SHOWN = 10


class Donor:
    """Installations that give their files."""

    def __init__(self, *installations: Installation) -> None:
        """Know their files by what the receipts say of them; of one content the first one's is taken."""
        self._files = {
            (file.sha256, file.size): (one.root, file)
            for one in reversed(installations)
            for file in one.receipt.files
        }

    def find(self, entry: Entry) -> Path | None:
        """Return where an entry's content is, in a file that nobody changed since it was unpacked."""
        known = self._files.get((entry.sha256, entry.size)) if entry.kind == "file" else None
        if known is None:
            return None
        root, seen = known
        path = root / seen.path
        try:
            status = path.lstat()
        except OSError:
            return None
        same = (status.st_size, status.st_mtime_ns) == (seen.size, seen.mtime_ns)
        return path if same and stat.S_ISREG(status.st_mode) else None

    def lacks(self, manifest: Manifest) -> tuple[Entry, ...]:
        """Return the entries of a manifest whose content isn't there."""
        return tuple(entry for entry in manifest.tree if self.find(entry) is None)


def refuse_lacking(manifest: Manifest, lacking: Sequence[Entry], where: object) -> None:
    """Refuse a delta of whose base something isn't here.

    :param lacking: the files that the stream doesn't carry, and nobody has.
    :raises MissingVolumeError: there are any.
    """
    if lacking and manifest.base is not None:
        more = [f"and {len(lacking) - _SHOWN} more"] if len(lacking) > _SHOWN else []
        raise MissingVolumeError(
            f"{manifest.name} is a delta: {len(lacking)} files of its base {manifest.base.name} aren't here",
            where=where,
            findings=[*(entry.path for entry in lacking[:_SHOWN]), *more],
            hint=f"unpack {manifest.base.name} there first, or name an installation that has it: --from DEST",
        )


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
