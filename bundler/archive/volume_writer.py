"""Volumes as they are written: frames appended in order, made durable in batches, cut at frame borders."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from bundler.archive.batches import Batches
from bundler.archive.media import PARTIAL_SUFFIX, refused
from bundler.archive.pack_state import PackRecord
from bundler.archive.resume import OpenVolume
from bundler.archive.validate import VOLUME_NAME
from bundler.common.durable import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bundler.archive.media import Media
    from bundler.archive.pack_state import Written

_HASHES_AHEAD = 4


class OutOfSpaceError(Exception):
    """The disk of the volume under way is full."""

    def __init__(self, folder: Path) -> None:
        """Remember which folder it is."""
        super().__init__(str(folder))
        self.folder = folder


class VolumeWriter:
    """Appends frames to volumes. Used by one thread; hashing and syncing go on in two others."""

    def __init__(self, written: Written, media: Media, volume: OpenVolume | None) -> None:
        """Go on.

        :param volume: the volume under way, or ``None`` to begin a new one with the next frame.
        """
        self._written, self._media, self._volume = written, media, volume
        self._next = volume.number + 1 if volume else len(written.volume_spans())
        self._file = os.open(volume.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC) if volume else -1
        self._hashing = ThreadPoolExecutor(1, "volume-digest")
        self._hashed: deque[Future[None]] = deque()
        self._batches = Batches(self._make_durable, "volume-sync")

    def add(self, frame: bytes, digest: str, files: list[tuple[int, str]]) -> None:
        """Append a frame.

        :param digest: the frame's.
        :param files: number and sha256 of the files that end in it.
        :raises OutOfSpaceError: the disk is full.
        """
        if self._volume and self._volume.size + len(frame) > self._written.volume_size:
            self.finish_volume()
        volume = self._volume or self._begin()
        with _space(volume.path.parent):
            _write_all(self._file, frame)
        volume.size += len(frame)
        self._hashed.append(self._hashing.submit(volume.digest.update, frame))
        while len(self._hashed) > _HASHES_AHEAD:
            self._hashed.popleft().result()
        self._batches.add(PackRecord(((len(frame), digest),), tuple(files)), len(frame))

    def finish_volume(self) -> None:
        """Make the volume under way whole: durable, under its own name, its digest known."""
        volume = self._volume
        if volume is None:
            return
        self._batches.flush()
        while self._hashed:
            self._hashed.popleft().result()
        os.close(self._file)
        self._file, self._volume = -1, None
        volume.path.rename(volume.path.with_name(VOLUME_NAME.format(volume.number + 1)))
        sync_folder(volume.path.parent)
        with _space(volume.path.parent):
            self._written.add(PackRecord(volumes=((volume.number, volume.digest.hexdigest()),)))

    def close(self) -> None:
        """End: what was appended is made durable if that is possible."""
        try:
            self._batches.close()
        finally:
            self._hashing.shutdown(cancel_futures=True)
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _begin(self) -> OpenVolume:
        most = min(self._written.volume_size, self._written.room_needed)
        name = VOLUME_NAME.format(self._next + 1) + PARTIAL_SUFFIX
        path = self._media.place(most) / name
        with _space(path.parent):
            self._file = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644
            )
        sync_folder(path.parent)
        self._volume = OpenVolume(path, self._next, 0, hashlib.sha256())
        self._next += 1
        return self._volume

    def _make_durable(self, records: list[PackRecord]) -> None:
        """Sync the appended frames, which lie in the volume under way, and journal them after that."""
        assert self._volume is not None  # it is finished only when its frames are durable
        with _space(self._volume.path.parent):
            os.fsync(self._file)
            self._written.add(
                PackRecord(
                    tuple(frame for record in records for frame in record.frames),
                    tuple(file for record in records for file in record.files),
                )
            )


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
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpaceError(folder) from problem
        raise refused(problem, folder) from problem
