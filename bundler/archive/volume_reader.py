"""Where a bundle's bytes come from: volumes, which are files on disks."""

from __future__ import annotations

import errno
import os
import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import psutil

from bundler.common.disk_trouble import DYING
from bundler.common.durable import open_plain
from bundler.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_OPEN = 24
"""Volumes that are open at once where more aren't being read: a bundle has thousands, a process 64 files."""


class _OpenFiles:
    """The descriptors of the volumes that were read last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[FileVolume, int] = OrderedDict()
        self._users: dict[FileVolume, int] = {}

    @contextmanager
    def lent(self, volume: FileVolume) -> Iterator[int]:
        """Lend a volume's descriptor, which stays open that long."""
        with self._lock:
            if volume not in self._files:
                self._make_room()
                self._files[volume] = open_plain(volume.path)
            self._files.move_to_end(volume)
            self._users[volume] = self._users.get(volume, 0) + 1
            file = self._files[volume]
        try:
            yield file
        finally:
            with self._lock:
                self._users[volume] -= 1

    def close(self, volume: FileVolume) -> None:
        """Close a volume that nobody reads any more."""
        with self._lock:
            self._users.pop(volume, None)
            file = self._files.pop(volume, None)
        if file is not None:
            os.close(file)

    def _make_room(self) -> None:
        idle = [one for one in self._files if not self._users.get(one)]
        for one in idle[: max(0, len(self._files) + 1 - MOST_OPEN)]:
            os.close(self._files.pop(one))


_open_files = _OpenFiles()


def crowds(size: int) -> bool:
    """Tell whether reading so many bytes would put others out of the kernel's cache.

    What is read once isn't needed again soon, and a serving host's weights are.
    """
    return size > psutil.virtual_memory().available // 2


class VolumeReader(Protocol):
    """What a bundle's bytes are read from."""

    @property
    def path(self) -> object:
        """Where it is, for messages."""

    def size(self) -> int:
        """Return how many bytes there are."""

    def read_at(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from an offset."""

    def forget(self, offset: int, size: int) -> None:
        """Let a part that was read go out of caches."""

    def close(self) -> None:
        """Close it."""


class FileVolume:
    """A volume that can be read anywhere, by several threads at once. It is open only while it is used."""

    def __init__(self, path: Path) -> None:
        """Try whether the file can be opened.

        :raises OSError: it can't, or isn't a plain file.
        """
        self.path = path
        with _open_files.lent(self):
            pass

    def size(self) -> int:
        """Return the file's size."""
        with _open_files.lent(self) as file:
            return os.fstat(file).st_size

    def read_at(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from an offset.

        :raises DamagedError: the medium can't be read there, or it ends before.
        """
        done = 0
        while done < len(buffer):
            try:
                with _open_files.lent(self) as file:
                    count = os.preadv(file, [buffer[done:]], offset + done)
            except OSError as problem:
                raise DamagedError(
                    f"{self.path.name} can't be read at byte {offset + done}: {problem.strerror}"
                    + (f" ({DYING})" if problem.errno == errno.EIO else ""),
                    where=self.path,
                ) from problem
            if not count:
                raise DamagedError(f"{self.path.name} ends at byte {offset + done}", where=self.path)
            done += count

    def forget(self, offset: int, size: int) -> None:
        """Let the kernel drop a part that was read from its cache."""
        with _open_files.lent(self) as file:
            os.posix_fadvise(file, offset, size, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file."""
        _open_files.close(self)
