"""Where a bundle's bytes come from: one small interface, and files on disks behind it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from bundler.errors import DamagedError

if TYPE_CHECKING:
    from pathlib import Path


class VolumeReader(Protocol):
    """A volume that can be read anywhere, by several threads at once."""

    @property
    def name(self) -> str:
        """The volume's name, as the manifest spells it."""

    @property
    def where(self) -> str:
        """The place as messages show it: a path or an address."""

    def size(self) -> int:
        """Return its bytes."""

    def read_at(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from an offset.

        :raises DamagedError: the medium can't be read there, or it ends before.
        """

    def close(self) -> None:
        """Let go of it."""


class FileVolume:
    """A volume that is a file."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def where(self) -> str:
        """The file's path."""
        return str(self.path)

    def size(self) -> int:
        """Return the file's size."""
        return os.fstat(self._file).st_size

    def read_at(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from an offset."""
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._file, [buffer[done:]], offset + done)
            except OSError as problem:
                raise DamagedError(
                    f"{self.name} can't be read at byte {offset + done}: {problem.strerror}", where=self.path
                ) from problem
            if not count:
                raise DamagedError(f"{self.name} ends at byte {offset + done}", where=self.path)
            done += count

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
