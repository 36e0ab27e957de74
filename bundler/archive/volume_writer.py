"""Volumes as they are written: frames appended in order, made durable in batches, cut at frame borders."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

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

BATCH_BYTES = 64 * 2**20
"""Bytes after which what is written is made durable."""
BATCH_SECONDS = 5.0
"""Seconds after which it is, whatever came."""

_BATCHES_AHEAD = 8
_HASHES_AHEAD = 4


class OutOfSpaceError(Exception):
    """The disk of the volume under way is full."""

    def __init__(self, folder: Path) -> None:
        """Remember which folder it is."""
        super().__init__(str(folder))
        self.folder = folder


class VolumeWriter:
    """Appends frames to volumes. Used by one thread; hashing and syncing go on in two of its own."""

    def __init__(self, written: Written, media: Media, volume: OpenVolume | None) -> None:
        """Go on.

        :param volume: the volume under way, or ``None`` to begin a new one with the next frame.
        """
        self._written, self._media, self._volume = written, media, volume
        self._next = volume.number + 1 if volume else len(written.volume_spans())
        self._file = os.open(volume.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC) if volume else -1
        self._hashing = ThreadPoolExecutor(1, "volume-digest")
        self._syncing = ThreadPoolExecutor(1, "volume-sync")
        self._hashed: deque[Future[None]] = deque()
        self._synced: Future[None] | None = None
        self._frames: list[tuple[int, str]] = []
        self._files: list[tuple[int, str]] = []
        self._bytes, self._since = 0, time.monotonic()
        self._broken = False

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
        self._frames.append((len(frame), digest))
        self._files += files
        self._bytes += len(frame)
        self._commit_when_due(volume)

    def finish_volume(self) -> None:
        """Make the volume under way whole: durable, under its own name, its digest known."""
        volume = self._volume
        if volume is None:
            return
        self._commit(volume)
        self._wait()
        while self._hashed:
            self._hashed.popleft().result()
        os.close(self._file)
        self._file, self._volume = -1, None
        volume.path.rename(volume.path.with_name(VOLUME_NAME.format(volume.number + 1)))
        sync_folder(volume.path.parent)
        with _space(volume.path.parent):
            self._written.add(PackRecord(volumes=((volume.number, volume.digest.hexdigest()),)))

    def close(self, *, keep: bool = True) -> None:
        """End: what was appended is made durable if that is possible.

        :param keep: ``False`` after an error of the disk itself.
        """
        try:
            if keep and self._volume and not self._broken:
                with contextlib.suppress(OSError, OutOfSpaceError):
                    self._commit(self._volume)
                    self._wait()
        finally:
            self._hashing.shutdown(cancel_futures=True)
            self._syncing.shutdown()
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
        self._since = time.monotonic()
        return self._volume

    def _commit_when_due(self, volume: OpenVolume) -> None:
        due = self._bytes >= BATCH_BYTES or time.monotonic() - self._since >= BATCH_SECONDS
        if not due:
            return
        if self._synced and not self._synced.done() and self._bytes < _BATCHES_AHEAD * BATCH_BYTES:
            return
        self._commit(volume)

    def _commit(self, volume: OpenVolume) -> None:
        """Have the appended frames synced, and journalled after that."""
        self._wait()
        record = PackRecord(tuple(self._frames), tuple(self._files))
        self._frames, self._files = [], []
        self._bytes, self._since = 0, time.monotonic()
        if record.frames:
            self._synced = self._syncing.submit(self._sync, self._file, record, volume.path.parent)

    def _sync(self, file: int, record: PackRecord, folder: Path) -> None:
        with _space(folder):
            os.fsync(file)
            self._written.add(record)

    def _wait(self) -> None:
        synced, self._synced = self._synced, None
        if synced:
            # Once a batch is lost, no later one may be journalled: frames are known by their order.
            self._broken = True
            synced.result()
            self._broken = False


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
