"""Files taken over from installations or a bundle that have them already, by their sha256."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from bundler.archive.stored_file import FrameCache, open_stored
from bundler.errors import DamagedError, MissingVolumeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bundler.archive.bundle import Bundle
    from bundler.archive.target import Target
    from bundler.archive.unpack_state import UnpackState
    from bundler.common.progress import Reporter
    from bundler.installation import Installation
    from bundler.manifest import Entry, Manifest

_SHOWN = 10


class Donor:
    """Installations that give their files, and a bundle that does."""

    def __init__(self, *installations: Installation, bundle: Bundle | None = None) -> None:
        """Know their files by what receipts and manifest say; of one content the first one's is taken.

        :param bundle: is asked for what the installations haven't.
        """
        self._files = {
            (file.sha256, file.size): (one.root, file)
            for one in reversed(installations)
            for file in one.receipt.files
        }
        self._stored = _stored_in(bundle) if bundle is not None else {}
        self._cache = FrameCache(bundle) if bundle is not None else None

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

    def stored(self, entry: Entry) -> Entry | None:
        """Return the entry of the bundle that has an entry's content."""
        return self._stored.get((entry.sha256, entry.size)) if entry.kind == "file" else None

    def has(self, entry: Entry) -> bool:
        """Say whether an entry's content is there."""
        return self.find(entry) is not None or self.stored(entry) is not None

    def lacks(self, manifest: Manifest) -> tuple[Entry, ...]:
        """Return the entries of a manifest whose content no file has: they take their room on the disk."""
        return tuple(entry for entry in manifest.tree if self.find(entry) is None)

    def give(self, entry: Entry, target: Target) -> int | None:
        """Put an entry's content in its place.

        :return: its modification time, in nanoseconds; ``None`` where it turned out to have other bytes.
        :raises DamagedError: the bundle is damaged there.
        """
        path, stored = self.find(entry), self.stored(entry)
        if path is not None:
            return target.take(entry, path)
        if stored is None or self._cache is None:
            return None
        with open_stored(self._cache, stored) as stream:
            return target.fill(entry, stream)


def _stored_in(bundle: Bundle) -> dict[tuple[str, int], Entry]:
    """Return the files whose every frame lies in volumes that are here, by sha256 and size."""
    names = [volume.name for volume in bundle.manifest.volumes]
    return {
        (entry.sha256, entry.size): entry
        for number, entry in enumerate(bundle.manifest.tree)
        if entry.kind == "file"
        and entry.size
        and entry.offset >= 0
        and all(
            names[bundle.layout.frame(one).volume] in bundle.volumes for one in bundle.layout.of_file(number)
        )
    }


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
            hint=f"unpack {manifest.base.name} there first, or name an installation or a bundle that has it: "
            "--from OLD",
        )


def take_over(
    donor: Donor, manifest: Manifest, target: Target, state: UnpackState, reporter: Reporter
) -> int:
    """Put what a donor has of a manifest's files in their places, and journal it; what is there stays.

    :returns: the bytes that needn't be unpacked.
    """
    found = [
        (number, entry)
        for number, entry in enumerate(manifest.tree)
        if donor.has(entry) and target.status(entry.path) is None
    ]
    if not found:
        return 0
    # A bundle is read from its beginning to its end.
    found.sort(key=lambda one: ((stored := donor.stored(one[1])) and stored.offset) or 0)
    total = sum(entry.size for _, entry in found)
    with reporter.phase("take over", total) as meter:
        for number, entry in found:
            try:
                modified = donor.give(entry, target)
            except DamagedError as problem:
                meter.say(f"not taken over: {entry.path}: {problem.what}")
                target.drop_partial(entry)
                modified = None
            if modified is not None:
                state.note_adopted(number, modified)
            meter.advance(entry.size)
    return total
