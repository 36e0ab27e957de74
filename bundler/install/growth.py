"""Progress of a program that tells none: by what it writes while it unpacks."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.common.progress import Meter

GROWN = 2.0
"""How many times its size a wheel takes once unpacked: those of a serving environment."""
SURE = 0.95
"""The part of the whole that is told before the end: how much will be written is an estimate."""
PAUSE = 0.5
"""Seconds between two looks."""


@contextmanager
def counted(meter: Meter, total: int) -> Iterator[None]:
    """Count what this process's children write in the block, as parts of a whole that is done at its end.

    :param total: bytes of the archives that are unpacked.
    """
    ended, told = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(PAUSE):
            done = min(int(_written() / GROWN), int(total * SURE))
            if done > told[0]:
                meter.advance(done - told[0])
                told[0] = done

    watcher = threading.Thread(target=watch, name="growth", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    meter.advance(total - told[0])


def _written() -> int:
    """Return the bytes that the children that run have written."""
    found = 0
    for child in psutil.Process().children(recursive=True):
        # One that ended meanwhile, or is another user's.
        try:
            found += child.io_counters().write_chars
        except (psutil.Error, OSError):
            continue
    return found
