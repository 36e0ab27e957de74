"""What a disk's refusals mean, and what to do about each: one advice for all that writes."""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The kernel's numbers for a disk without room."""
REFUSALS = FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EXDEV, errno.EFBIG, errno.EIO}
"""Those for what a disk or its administrator refuses; others are defects or somebody's interference."""
DYING = "the disk may be dying: see what dmesg says of it, and copy what is on it to another one"
_ADVICE = {
    errno.EIO: DYING,
    errno.ENOSPC: "free some space; the same command goes on where it stopped",
    errno.EDQUOT: "free some space, or have the quota raised; the same command goes on where it stopped",
    errno.EMFILE: "allow more open files in this shell: ulimit -n 4096; the same command goes on",
    errno.EROFS: "the disk is mounted read-only: mount it read-write, or see dmesg for why it became so",
}
"""By the kernel's number: what a disk refuses, and what an administrator allows."""


def advice(problem: OSError) -> str | None:
    """Return what to do about a disk that refused, or ``None`` where it wasn't the disk."""
    return _ADVICE.get(problem.errno or 0)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors say which file they are about: those of writing and syncing don't know it."""
    try:
        yield
    except OSError as problem:
        if problem.filename is None:
            problem.filename = str(path)
        raise
