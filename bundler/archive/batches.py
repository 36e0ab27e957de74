"""What is written, made durable in batches while more is written."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

BATCH_BYTES = 64 * 2**20
"""Bytes after which what is written is made durable."""
BATCH_SECONDS = 5.0
"""Seconds after which it is, whatever came."""

_AHEAD = 8
"""Batches that may wait, as one, for a slow disk before the writing waits too."""


class Batches(Generic[T]):
    """Hands what was written, batch after batch, to a thread that makes it durable. Used by one thread."""

    def __init__(self, make_durable: Callable[[list[T]], None], name: str) -> None:
        """Begin with an empty batch.

        :param make_durable: syncs what a batch speaks of, and journals the batch after that.
        :param name: of the thread.
        """
        self._make_durable = make_durable
        self._pool = ThreadPoolExecutor(1, name)
        self._running: Future[None] | None = None
        self._batch: list[T] = []
        self._bytes, self._since = 0, 0.0

    def add(self, item: T, size: int) -> None:
        """Count something that was written.

        :param size: bytes that it took.
        """
        if not self._batch:
            self._since = time.monotonic()
        self._batch.append(item)
        self._bytes += size
        due = self._bytes >= BATCH_BYTES or time.monotonic() - self._since >= BATCH_SECONDS
        busy = self._running is not None and not self._running.done()
        if due and (not busy or self._bytes >= _AHEAD * BATCH_BYTES):
            self._begin()

    def flush(self) -> None:
        """Return when all is durable that was added; what a batch raised is raised here, or by ``add``."""
        self._begin()
        self._wait()

    def close(self) -> None:
        """End: after an error, what can still be made durable is."""
        try:
            # What ended the writing is told, not what came of it.
            with suppress(Exception):
                self.flush()
        finally:
            self._pool.shutdown()

    def _begin(self) -> None:
        self._wait()
        batch, self._batch, self._bytes = self._batch, [], 0
        if batch:
            self._running = self._pool.submit(self._make_durable, batch)

    def _wait(self) -> None:
        # A batch that was lost stays here, so that no later one is begun: a volume's frames are known by
        # their order, and a disk reports a failed write once, to whoever syncs first.
        if self._running:
            self._running.result()
            self._running = None
