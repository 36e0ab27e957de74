"""gzip on all cores: blocks are compressed by themselves, each knowing the end of the one before.

The bytes depend on the content, the level and zlib's version, and not on the number of threads.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, Self

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

BLOCK = 1 << 20
"""Bytes that are compressed at once."""
WINDOW = 1 << 15
"""How far back deflate can point."""
HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"
"""gzip's magic, deflate, no name, no time, no hint, unknown system."""


class GzipWriter(io.RawIOBase):
    """A file to write to; what is written comes out compressed."""

    def __init__(self, target: BinaryIO, level: int, threads: int | None = None) -> None:
        """Begin a gzip stream.

        :param target: where the compressed bytes go; it isn't closed.
        :param level: 1 to 9.
        :param threads: as many as there are cores, at most 16, where not given.
        """
        self._target = target
        self._level = level
        count = threads or min(16, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="gzip")
        self._limit = 2 * count
        self._pending: deque[Future[bytes]] = deque()
        self._buffer = bytearray()
        self._before = b""
        self._crc = 0
        self._size = 0
        target.write(HEADER)

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def tell(self) -> int:
        """Return how many bytes of content were written."""
        return self._size

    def write(self, data: Buffer, /) -> int:
        """Take more content."""
        view = memoryview(data).cast("B")
        self._crc = zlib.crc32(view, self._crc)
        self._size += len(view)
        self._buffer += view
        while len(self._buffer) >= BLOCK:
            self._submit(bytes(self._buffer[:BLOCK]), last=False)
            del self._buffer[:BLOCK]
        return len(view)

    def _submit(self, block: bytes, *, last: bool) -> None:
        self._pending.append(self._pool.submit(_deflate, block, self._before, self._level, last=last))
        self._before = block[-WINDOW:]
        while len(self._pending) > (0 if last else self._limit):
            self._target.write(self._pending.popleft().result())

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the stream, or on an error the threads alone."""
        if kind is None:
            self._submit(bytes(self._buffer), last=True)
            self._target.write(struct.pack("<LL", self._crc, self._size & 0xFFFFFFFF))
        self._pool.shutdown(cancel_futures=True)


def _deflate(block: bytes, before: bytes, level: int, *, last: bool) -> bytes:
    """Compress one block so that it continues the stream."""
    words = (level, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY)
    compressor = zlib.compressobj(*words, before) if before else zlib.compressobj(*words)
    return compressor.compress(block) + compressor.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
