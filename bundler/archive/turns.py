"""In which order frames are unpacked: file after file, or several files in turn.

A file is written under a lock of its own, so that many threads in one file wait for each other: a file in
memory takes 1.8 GB/s, whoever writes. Several files at once take as much each. Where heads move, in the disk
that is read or written, jumping between files costs more than it gives.
"""

from __future__ import annotations

import os
from collections import deque
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bundler.archive.layout import Layout

LEAST_GROUP = 64 * 2**20
"""Bytes of frames that are unpacked one after the other: small files have no lock worth a turn."""
THREADS_A_FILE = 2
"""One decompresses while the other writes."""
BLOCK_DEVICES = Path("/sys/dev/block")
VIRTUAL = ("vd", "xvd")
"""What virtual machines call their disks: Linux knows nothing of them, and takes them for rotational ones."""


def files_at_once(places: Iterable[Path], threads: int, devices: Path = BLOCK_DEVICES) -> int:
    """Return in how many files so many threads write at once.

    :param places: a path on each disk that is read or written.
    """
    return 1 if any(heads_move(place, devices) for place in places) else max(1, threads // THREADS_A_FILE)


def heads_move(place: Path, devices: Path = BLOCK_DEVICES) -> bool:
    """Tell whether a path lies on a disk whose heads move, or on a disc; not where nothing is known of it.

    :param devices: the kernel's folder of them (``sysfs``, Documentation/ABI/stable/sysfs-block).
    """
    try:
        number = place.stat().st_dev
        device = (devices / f"{os.major(number)}:{os.minor(number)}").resolve(strict=True)
        disk = device if (device / "queue").is_dir() else device.parent
        rotational = (disk / "queue" / "rotational").read_text().strip() == "1"
    except OSError:
        return False
    return rotational and not disk.name.startswith(VIRTUAL)


def in_turns(numbers: Sequence[int], layout: Layout, at_once: int) -> Iterator[int]:
    """Yield frames, each once, so that so many files are under way at a time.

    :param numbers: in the stream's order.
    """
    if at_once == 1:
        yield from numbers
        return
    groups = map(iter, _groups(numbers, layout))
    under_way = deque(islice(groups, at_once))
    while under_way:
        group = under_way.popleft()
        number = next(group, None)
        if number is not None:
            yield number
            under_way.append(group)
        else:
            under_way.extend(islice(groups, 1))


def _groups(numbers: Iterable[int], layout: Layout) -> Iterator[list[int]]:
    """Yield frames of one large file, or of many small ones, together."""
    group: list[int] = []
    size, file = 0, -1
    for number in numbers:
        frame = layout.frame(number)
        slices = layout.slices(frame)
        begins = slices[-1].entry if slices else file
        if begins != file and size >= LEAST_GROUP:
            yield group
            group, size = [], 0
        group.append(number)
        size, file = size + frame.raw, begins
    yield group
