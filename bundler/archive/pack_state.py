"""What a pack has written durably: frames, and the digests of files and volumes, by its journal."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from bundler.archive.journal import Journal
    from bundler.archive.recipe import StreamPlan


class PackRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step of a pack, durable once it is in the journal."""

    frames: tuple[tuple[int, str], ...] = ()
    """Stored size and digest of each frame that became durable."""
    files: tuple[tuple[int, str], ...] = ()
    """Number and sha256 of each file that ended in them."""
    volumes: tuple[tuple[int, str], ...] = ()
    """Number, from 0, and sha256 of each volume that became whole."""
    cut: int | None = None
    """Forget the frames from this number on, before the rest of the record."""


class Written:
    """The durable part of a bundle under way."""

    def __init__(self, plan: StreamPlan, volume_size: int, journal: Journal[PackRecord]) -> None:
        """Read what the journal knows."""
        self.stored: list[int] = []
        self.digests: list[str] = []
        self.files: dict[int, str] = {}
        self.volumes: dict[int, str] = {}
        self._plan, self._volume_size, self._journal = plan, volume_size, journal
        for record in journal.records:
            self._apply(record)
        self.unread = {*self.volumes}
        """Volumes that an earlier run finished, and this one hasn't read."""

    def add(self, record: PackRecord) -> None:
        """Make a step durable."""
        self._journal.append(record)
        self._apply(record)

    @property
    def volume_size(self) -> int:
        """The most bytes of a volume."""
        return self._volume_size

    @property
    def position(self) -> int:
        """Where the stream goes on."""
        return self._plan.frames[len(self.stored)]

    def room_needed(self, frame: int | None = None) -> int:
        """Return the most bytes that the stream may take from a frame on, or from where it goes on."""
        left = self._plan.size - self._plan.frames[len(self.stored) if frame is None else frame]
        return left + left // 1024 + 2**16

    @property
    def complete(self) -> bool:
        """Whether the whole stream is written."""
        return len(self.stored) == len(self._plan.frames) - 1

    def cut(self, frame: int) -> None:
        """Forget the frames from a number on; their bytes are dropped when the pack goes on."""
        if frame < len(self.stored):
            self.add(PackRecord(cut=frame))

    def volume_spans(self) -> list[tuple[int, int]]:
        """Return each volume's frames, the first and the one after the last: they follow from the sizes."""
        firsts: list[int] = []
        room = 0
        for number, stored in enumerate(self.stored):
            room -= stored
            if not firsts or room < 0:
                firsts.append(number)
                room = self._volume_size - stored
        return list(pairwise([*firsts, len(self.stored)]))

    def _apply(self, record: PackRecord) -> None:
        if record.cut is not None:
            self._forget(record.cut)
        self.stored += [stored for stored, _ in record.frames]
        self.digests += [digest for _, digest in record.frames]
        self.files.update(record.files)
        self.volumes.update(record.volumes)

    def _forget(self, frame: int) -> None:
        del self.stored[frame:], self.digests[frame:]
        end = self._plan.frames[frame]
        places, members = self._plan.places, self._plan.members
        self.files = {
            number: digest
            for number, digest in self.files.items()
            if places[number].content + members[number].size <= end
        }
        # The last volume that keeps a frame isn't whole any more: what followed made it so.
        whole = max(len(self.volume_spans()) - 1, 0)
        self.volumes = {number: digest for number, digest in self.volumes.items() if number < whole}
