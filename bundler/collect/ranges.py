"""A large file by several connections at once, in order: eight slow ones are eight times one.

What came is a file's beginning at any time, as with one connection, so that nothing else has to know.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from bundler.collect.faults import NoRanges
from bundler.common.threads import in_order
from bundler.errors import DamagedError, FetchError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from bundler.collect.transfer import Transfer

LARGE = 64 * 2**20
"""Bytes from which on a file is worth it."""
SEGMENT = 8 * 2**20
"""Bytes that are asked for at once, and kept in memory until it is their turn."""


def connections_each(sizes: Iterable[int], jobs: int) -> int:
    """Return how many connections each large file may have, so that all files together have ``jobs``.

    :param sizes: of the files that are to come, in bytes.
    """
    large = sum(size >= LARGE for size in sizes)
    return max(1, jobs // large) if large else 1


def by_ranges(
    make: Callable[[], Transfer], start: int, size: int, connections: int
) -> Generator[tuple[int, bytes], None, int]:
    """Yield pieces with their places, from ``start`` on, in order.

    :param make: makes a transfer of the file: each range counts its own failures.
    :returns: the place where one connection must go on: the file's end, or where a range wasn't to be had.
    :raises Stopped: it was told to stop.
    """

    def segment(place: int) -> bytes | None:
        end = min(place + SEGMENT, size)
        try:
            return b"".join(piece for _, piece in make().pieces(place, end, ranges_only=True))[: end - place]
        except (NoRanges, FetchError, DamagedError):
            return None  # fewer connections at once may do

    places = range(start, size, SEGMENT)
    with closing(in_order(segment, places, connections, "range", ahead=connections + 1)) as segments:
        for place, data in segments:
            if data is None:
                return place
            yield place, data
    return size
