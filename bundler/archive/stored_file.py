"""A file inside a bundle, read where it lies: only the frames that hold what is asked for."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from typing import TYPE_CHECKING

from bundler.errors import DamagedError, MissingVolumeError

if TYPE_CHECKING:
    from bundler.archive.bundle import Bundle
    from bundler.manifest import Entry

KEPT_FRAMES = 4
"""Decompressed frames that are kept: at most 16 MiB each."""


class FrameCache:
    """Reads frames of a bundle, each compared with its digest before it is decompressed."""

    def __init__(self, bundle: Bundle) -> None:
        """Hold the bundle, which stays open as long as this is used."""
        self.bundle = bundle
        self._kept: OrderedDict[int, memoryview] = OrderedDict()

    def content(self, number: int) -> memoryview:
        """Return a frame's content.

        :raises MissingVolumeError: its volume isn't here.
        :raises DamagedError: its bytes aren't those that the manifest names.
        """
        if number not in self._kept:
            self._kept[number] = self._read(number)
            while len(self._kept) > KEPT_FRAMES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]

    def _read(self, number: int) -> memoryview:
        frame = self.bundle.layout.frame(number)
        name = self.bundle.manifest.volumes[frame.volume].name
        if name not in self.bundle.volumes:
            raise MissingVolumeError(f"{name} is not here", hint="name the folder that holds it, too")
        try:
            return self.bundle.content(number)
        except DamagedError as problem:
            what = f"{name} is damaged at byte {frame.offset}: {problem.what}"
            raise DamagedError(what, hint="copy the volume again") from problem


def open_stored(cache: FrameCache, entry: Entry) -> io.BufferedReader:
    """Open a file of the tree: a read gives all that was asked for, over the borders of frames."""
    return io.BufferedReader(StoredFile(cache, entry))


class StoredFile(io.RawIOBase):
    """A file of the tree as a seekable stream."""

    def __init__(self, cache: FrameCache, entry: Entry) -> None:
        """Open it.

        :param entry: a file whose content the stream carries.
        """
        self._cache = cache
        self._entry = entry
        self._at = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be read anywhere."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, and return the new place."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._entry.size}[whence]
        if base + offset < 0:
            raise OSError("a place before the file's beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read what one frame holds from here on, or nothing at the end.

        :raises MissingVolumeError: the volume isn't here.
        :raises DamagedError: the bytes aren't those that the manifest names.
        """
        wanted = min(len(buffer), self._entry.size - self._at)
        if wanted <= 0:
            return 0
        start = self._entry.offset + self._at
        number = self._cache.bundle.layout.within(start, start + 1)[0]
        begin = start - self._cache.bundle.layout.frame(number).start
        piece = self._cache.content(number)[begin : begin + wanted]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
