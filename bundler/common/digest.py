"""A file's sha256: the digest of publishers and of stock tools."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Literal

from bundler.common.durable import open_plain

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

BLOCK = 4 << 20
"""Bytes read at once: large enough that hashing, which releases the GIL, is all that takes time."""


def sha256_of(
    source: Path | int, advance: Callable[[int], None] | None = None, stop: threading.Event | None = None
) -> str:
    """Return a file's sha256, hex.

    :param source: the file's path, or a descriptor of it, which is closed.
    :param advance: called with the bytes of each block that was read.
    :param stop: ends the work early, with a digest of what was read, once it is set.
    :raises OSError: it can't be read, or isn't a plain file.
    """
    return digests_of(source, ("sha256",), advance, stop)["sha256"]


def digests_of(
    source: Path | int,
    kinds: Sequence[Literal["sha256", "md5"]],
    advance: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> dict[str, str]:
    """Return several digests of a file by their kinds, hex, from one reading; as :func:`sha256_of`."""
    running = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
    for block in read_blocks(source, stop):
        for digest in running.values():
            digest.update(block)
        if advance is not None:
            advance(len(block))
    return {kind: digest.hexdigest() for kind, digest in running.items()}


def read_blocks(source: Path | int, stop: threading.Event | None = None) -> Iterator[memoryview]:
    """Yield a file's bytes; a block is overwritten by the next. It ends early once ``stop`` is set."""
    block = bytearray(BLOCK)
    view = memoryview(block)
    descriptor = source if isinstance(source, int) else open_plain(source)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while not (stop and stop.is_set()) and (count := file.readinto(block)):
            yield view[:count]
