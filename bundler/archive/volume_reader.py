"""Where a bundle's bytes come from: volumes, which are files on disks."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from bundler.common.disk_trouble import DYING
from bundler.common.durable import open_plain
from bundler.errors import DamagedError

if TYPE_CHECKING:
    from pathlib import Path


class FileVolume:
    """A volume that can be read anywhere, by several threads at once."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self.path = path
        self._file = open_plain(path)

    def size(self) -> int:
        """Return the file's size."""
        return os.fstat(self._file).st_size

    def read_at(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from an offset.

        :raises DamagedError: the medium can't be read there, or it ends before.
        """
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._file, [buffer[done:]], offset + done)
            except OSError as problem:
                raise DamagedError(
                    f"{self.path.name} can't be read at byte {offset + done}: {problem.strerror}"
                    + (f" ({DYING})" if problem.errno == errno.EIO else ""),
                    where=self.path,
                ) from problem
            if not count:
                raise DamagedError(f"{self.path.name} ends at byte {offset + done}", where=self.path)
            done += count

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
