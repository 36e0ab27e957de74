"""The sha256 of files while their bytes pass, each file's in a thread of its own.

One sha256 is a chain: each byte waits for the one before, and no second core helps. A pack with many cores is
faster than that. So a file's chain may fall behind: it then reads the bytes once more, which the page cache
still has, while the next file begins. It compares them by BLAKE3 with those that passed: the digest is always
of the very bytes that were packed.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    Reopen = Callable[[], AbstractContextManager[BinaryIO]]

_WAITING = 4
"""Links that may wait in memory before a chain falls behind."""
_BLOCK = 2**20
"""Bytes that are read again at once: so few that they stay in a core's own cache."""


class ChangedError(Exception):
    """A file's bytes, read once more, aren't those that passed."""


class Link:
    """Some of a file's bytes, on their way into its sha256."""

    __slots__ = ("data", "held", "passed", "seen", "size")

    def __init__(self, size: int, data: memoryview | bytes | None) -> None:
        """Hold the bytes, or only their number."""
        self.size, self.data = size, data
        self.held = data is not None
        """Whether the bytes themselves wait in memory."""
        self.passed = threading.Event()
        """Set when the bytes in memory aren't needed any more."""
        self.seen: Future[str] = Future()
        """The BLAKE3 of the bytes; asked for where they aren't held."""


class Chain:
    """The sha256 of one file. It is fed by one thread."""

    def __init__(self, reopen: Reopen | None, digest: hashlib._Hash, position: int) -> None:
        """Begin.

        :param reopen: opens the file to be read again; ``None``: the chain never falls behind.
        :param digest: the hash of what comes before ``position`` in the file.
        """
        self._reopen, self._digest, self._position = reopen, digest, position
        self._links: queue.SimpleQueue[Link | None] = queue.SimpleQueue()
        self._open: deque[Link] = deque()
        self._file: AbstractContextManager[BinaryIO] | None = None
        self._stopped = False
        self.is_behind = False
        """Whether it reads, or has read, something again."""
        self.result: Future[str] = Future()
        """The file's sha256."""

    def add(self, data: memoryview | bytes) -> Link:
        """Take more of the file.

        :return: where it is held, ``passed`` is to be waited for before the bytes are overwritten; else
            ``seen`` is to be set.
        """
        full = len(self._open) >= _WAITING
        self.is_behind |= full and self._reopen is not None
        if full and self._reopen is None:
            # It may have passed just now, and left.
            with suppress(IndexError):
                self._open[0].passed.wait()
        link = Link(len(data), None if full and self._reopen else data)
        self._open.append(link)
        self._links.put(link)
        return link

    def end(self) -> None:
        """Say that the file ends here."""
        self._links.put(None)

    def stop(self) -> None:
        """End early; there will be no result."""
        self._stopped = True
        for link in [*self._open]:
            link.seen.cancel()
        self._links.put(None)

    def run(self) -> None:
        """Work until the file's end."""
        problem: BaseException | None = None
        with memoryview(bytearray(_BLOCK)) if self._reopen else memoryview(b"") as room:
            for link in iter(self._links.get, None):
                try:
                    if problem is None and not self._stopped:
                        self._take(link, room)
                except BaseException as found:
                    problem = found
                self._position += link.size
                self._open.popleft()
                link.data = None
                link.passed.set()
        if self._file is not None:
            self._file.__exit__(None, None, None)
        if problem is None and not self._stopped:
            self.result.set_result(self._digest.hexdigest())
        else:
            self.result.set_exception(problem or ChangedError())

    def _take(self, link: Link, room: memoryview) -> None:
        if link.data is not None:
            self._digest.update(link.data)
            return
        assert self._reopen is not None  # else all is held
        wanted = link.seen.result()
        if self._file is None:
            self._file = self._reopen()
            self._again = self._file.__enter__()
        self._again.seek(self._position)
        seen = blake3()
        left = link.size
        while left:
            count = self._again.readinto(room[: min(left, _BLOCK)])  # type: ignore[attr-defined]
            if not count:
                raise ChangedError
            self._digest.update(room[:count])
            seen.update(room[:count])
            left -= count
        if seen.hexdigest() != wanted:
            raise ChangedError


class Chains:
    """The chains of files that follow each other."""

    def __init__(self, count: int, name: str) -> None:
        """Begin.

        :param count: how many may be at work at once; with one, none falls behind.
        """
        self._most, self._pool = count, ThreadPoolExecutor(count + (count > 1), name)
        self._chains: list[Chain] = []

    def begin(self, reopen: Reopen | None, digest: hashlib._Hash | None = None, position: int = 0) -> Chain:
        """Begin a file's chain; the one before has got its end."""
        self._chains = [chain for chain in self._chains if not chain.result.done()]
        chain = Chain(reopen if self._most > 1 else None, digest or hashlib.sha256(), position)
        self._chains.append(chain)
        self._pool.submit(chain.run)
        return chain

    def settle(self) -> None:
        """Wait until so few ended chains are behind that one more may fall behind, too."""
        behind = [chain for chain in self._chains if chain.is_behind and not chain.result.done()]
        for chain in behind[: max(len(behind) - self._most, 0)]:
            chain.result.exception()

    def close(self) -> None:
        """End the threads."""
        for chain in self._chains:
            chain.stop()
        self._pool.shutdown()
