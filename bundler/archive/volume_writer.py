"""Volumes as they are written: frames appended in order, made durable in batches, cut at frame borders."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from typing import TYPE_CHECKING

from bundler.archive.batches import Batches
from bundler.archive.media import PARTIAL_SUFFIX, refused
from bundler.archive.member import FileSource
from bundler.archive.pack_state import PackRecord
from bundler.archive.resume import OpenVolume, name_volume
from bundler.archive.validate import VOLUME_NAME
from bundler.common.disk_trouble import FULL
from bundler.common.durable import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bundler.archive.chain import Chains
    from bundler.archive.media import Media
    from bundler.archive.pack_state import Written


_MOST_UNNAMED = 8
"""Volumes that wait for their names at once."""


class OutOfSpaceError(Exception):
    """The disk of the volume under way is full."""

    def __init__(self, folder: Path) -> None:
        """Remember which folder it is."""
        super().__init__(str(folder))
        self.folder = folder


class VolumeWriter:
    """Appends frames to volumes. Used by one thread; hashing and syncing go on in others."""

    def __init__(self, written: Written, media: Media, volume: OpenVolume | None, chains: Chains) -> None:
        """Go on.

        :param volume: the volume under way, or ``None`` to begin a new one with the next frame.
        :param chains: for the volumes' digests.
        """
        self._written, self._media, self._chains = written, media, chains
        self._frames, self._next = len(written.stored), len(written.volume_spans())
        self._whole: deque[OpenVolume] = deque()
        """Volumes whose frames are durable, and whose digests are still being taken."""
        self._ended = 0
        """Volumes that were ended since all had their names."""
        self._batches = Batches(self._make_durable, "volume-sync")
        self._volume = volume
        if volume:
            self._open(volume, os.O_WRONLY | os.O_APPEND)

    def add(self, frame: bytes, digest: str, files: list[tuple[int, str]]) -> None:
        """Append a frame.

        :param digest: the frame's.
        :param files: number and sha256 of files that ended in it or before.
        :raises OutOfSpaceError: the disk is full.
        """
        if self._volume and self._volume.size + len(frame) > self._written.volume_size:
            self._end_volume()
        volume = self._volume or self._begin()
        with _space(volume.path.parent):
            _write_all(volume.file, frame)
        volume.size += len(frame)
        self._frames += 1
        link = volume.chain.add(frame)
        if not link.held:
            link.seen.set_result(digest)
        self._batches.add((volume, PackRecord(((len(frame), digest),), tuple(files))), len(frame))

    def finish(self, files: list[tuple[int, str]]) -> None:
        """Make all volumes whole: durable, under their own names, their digests known.

        :param files: number and sha256 of files that ended in the last frames.
        """
        if self._volume:
            self._batches.add((self._volume, PackRecord(files=tuple(files))), 0)
            self._end_volume()
        self._batches.flush()
        while self._whole:
            self._name(self._whole.popleft())

    def close(self) -> None:
        """End: what was appended is made durable if that is possible."""
        try:
            self._batches.close()
        finally:
            self._chains.close()
            for volume in [*self._whole, *([self._volume] if self._volume else [])]:
                os.close(volume.file)

    def _begin(self) -> OpenVolume:
        self._chains.settle()
        most = min(self._written.volume_size, self._written.room_needed(self._frames))
        name = VOLUME_NAME.format(self._next + 1) + PARTIAL_SUFFIX
        volume = OpenVolume(self._media.place(most) / name, self._next, 0, hashlib.sha256())
        with _space(volume.path.parent):
            self._open(volume, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        sync_folder(volume.path.parent)
        self._volume = volume
        self._next += 1
        return volume

    def _open(self, volume: OpenVolume, flags: int) -> None:
        volume.file = os.open(volume.path, flags | os.O_CLOEXEC, 0o644)
        volume.chain = self._chains.begin(FileSource(volume.path).open, volume.digest, volume.size)

    def _end_volume(self) -> None:
        """Let the volume under way be made whole while the next one is written."""
        assert self._volume is not None
        self._volume.chain.end()
        self._batches.add((self._volume, None), 0)
        self._volume = None
        self._ended += 1
        if self._ended == _MOST_UNNAMED:
            # Each is an open file until it has its name, and a process may have few of those.
            self._batches.flush()
            while self._whole:
                self._name(self._whole.popleft())
            self._ended = 0

    def _make_durable(self, steps: list[tuple[OpenVolume, PackRecord | None]]) -> None:
        """Sync the appended frames, journal them after that, and name volumes that are whole."""
        for volume in {id(volume): volume for volume, _ in steps}.values():
            with _space(volume.path.parent):
                os.fsync(volume.file)
        records = [record for _, record in steps if record]
        # The next disk may follow the volume's own only: there is no other place for the journal.
        with _space(steps[-1][0].path.parent):
            self._written.add(
                PackRecord(
                    tuple(frame for record in records for frame in record.frames),
                    tuple(file for record in records for file in record.files),
                )
            )
        self._whole += [volume for volume, record in steps if record is None]
        while self._whole and self._whole[0].chain.result.done():
            self._name(self._whole.popleft())

    def _name(self, volume: OpenVolume) -> None:
        digest = volume.chain.result.result()
        os.close(volume.file)
        name_volume(self._written, volume, digest)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


@contextlib.contextmanager
def _space(folder: Path) -> Iterator[None]:
    """Tell a full disk, which another may follow, from what else a disk refuses."""
    try:
        yield
    except OSError as problem:
        if problem.errno in FULL:
            raise OutOfSpaceError(folder) from problem
        raise refused(problem, folder) from problem
