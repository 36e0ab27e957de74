"""The work on one stripe: pieces read into memory, parity made of them, lost ones made again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import zfec

from bundler.archive.parity import digest_of_piece
from bundler.common.threads import MOST_THREADS, default_threads
from bundler.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bundler.archive.frames import Buffer
    from bundler.archive.parity import ParityGroup
    from bundler.archive.volume_reader import FileVolume

MEMORY = 256 * 2**20
"""Bytes of pieces that are in memory together, but for one stripe, which always may be."""

_local = threading.local()


def threads_for(group: ParityGroup, threads: int | None, *, made: int = 0) -> int:
    """Return how many threads may work on stripes at once, so that memory stays within bounds.

    :param made: pieces that come of a stripe; those of twice as many stripes as threads wait to be written.
    """
    each = group.stripe * (group.pieces + 2 * made)
    return max(1, min(threads or default_threads(), MOST_THREADS, MEMORY // each))


class Pieces:
    """A stripe's pieces of data, in memory that a thread uses again and again."""

    def __init__(self, group: ParityGroup, number: int) -> None:
        """Take this thread's memory for a stripe."""
        self._group, self._number = group, number
        self._width = group.width(number)
        size = group.stripe * len(group.files)
        if len(_local.__dict__.get("buffer", b"")) < size:
            _local.buffer = bytearray(size)
        self._memory = memoryview(_local.buffer)

    def size(self, place: int) -> int:
        """Return how many bytes a file has in the stripe.

        :param place: the file's, in the group.
        """
        return self._group.files[place].piece(self._group.stripe, self._number)

    def data(self, place: int) -> memoryview:
        """Return the memory of a file's bytes in the stripe, without padding."""
        start = self._group.stripe * place
        return self._memory[start : start + self.size(place)]

    def padded(self, place: int) -> memoryview:
        """Return a file's piece as parity is made of it: padded with zeros to the stripe's width."""
        start, size = self._group.stripe * place, self.size(place)
        piece = self._memory[start : start + self._width]
        if size < self._width:
            piece[size:] = bytes(self._width - size)
        return piece

    def read(self, place: int, reader: FileVolume | None) -> None:
        """Fill a file's piece.

        :raises DamagedError: the file isn't there, ends before, or can't be read.
        """
        if not self.size(place):
            return
        if reader is None:
            raise DamagedError(f"{self._group.files[place].name} is missing")
        reader.read_at(self._group.stripe * self._number, self.data(place))

    def digest(self, place: int) -> bytes:
        """Return the digest of a file's bytes in the stripe."""
        return digest_of_piece(self.data(place))

    def encode(self) -> list[bytes]:
        """Make the parity of all pieces, which are filled."""
        count = len(self._group.files)
        encoder = zfec.Encoder(count, self._group.pieces)
        wanted = tuple(range(count, self._group.pieces))
        made: list[bytes] = encoder.encode(tuple(map(self.padded, range(count))), wanted)
        return made

    def decode(self, lost: Iterable[int], parity: Mapping[int, Buffer]) -> None:
        """Make lost pieces again.

        :param lost: their places; all others are filled.
        :param parity: sound pieces of parity by their places, from the files' number on, at least as many.
        """
        count = len(self._group.files)
        gone = sorted(lost)
        if not gone:
            return
        stand_in = dict(zip(gone, sorted(parity), strict=False))
        places = tuple(stand_in.get(place, place) for place in range(count))
        pieces = tuple(parity[place] if place >= count else self.padded(place) for place in places)
        made: Sequence[bytes] = zfec.Decoder(count, self._group.pieces).decode(pieces, places)
        for place in gone:
            self.data(place)[:] = made[place][: self.size(place)]
