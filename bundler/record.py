"""Files on the disk against what is recorded of them: kind, size, time, and content where that is asked."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bundler.common.digest import sha256_of
from bundler.common.progress import SILENT
from bundler.common.threads import each

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from bundler.common.progress import Reporter
    from bundler.manifest import Entry

HASH_THREADS = 16
"""Files read at once: with fewer, a fast disk waits for the hashing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One entry that isn't as it is recorded."""

    entry: Entry
    kind: Literal["missing", "unreadable", "kind", "link", "size", "time", "content"]
    """What differs, the first that does; ``kind`` is a folder for a file and the like."""
    size: int = 0
    """Bytes that are there."""
    problem: str = ""
    """What the system says, where something is missing or can't be read."""


def compare(
    root: Path,
    entries: Iterable[Entry],
    *,
    times: Mapping[str, int] | None = None,
    deep: bool = False,
    follow: bool = False,
    threads: int | None = None,
    reporter: Reporter = SILENT,
    phase: str = "verify",
) -> Iterator[Difference]:
    """Yield each entry that differs, those first that can be told without reading a file.

    :param root: the folder that the entries' paths are relative to.
    :param times: when files were last modified, in ns, by path; others' times aren't compared.
    :param deep: read every file that doesn't differ otherwise, in any order, and compare its sha256.
    :param follow: whether a link to a file is as good as the file.
    :param threads: files read at once; ``None``: :data:`HASH_THREADS`.
    :param phase: what the reading is called where its progress is shown.
    """
    alike = []
    for entry in entries:
        found = _difference(root / entry.path, entry, (times or {}).get(entry.path), follow=follow)
        if found is not None:
            yield found
        elif entry.kind == "file":
            alike.append(entry)
    if not deep:
        return
    with reporter.phase(phase, sum(entry.size for entry in alike)) as meter:

        def read(entry: Entry, stop: threading.Event) -> Difference | None:
            try:
                same = sha256_of(root / entry.path, meter.advance, stop) == entry.sha256
            except OSError as problem:
                return _unreadable(entry, problem)
            return None if same else Difference(entry, "content", entry.size)

        yield from filter(None, each(read, alike, threads=threads or HASH_THREADS))


def _difference(path: Path, entry: Entry, modified: int | None, *, follow: bool) -> Difference | None:
    """Compare what can be told without reading a file."""
    try:
        there = path.stat(follow_symlinks=follow and entry.kind == "file")
        if entry.kind == "link":
            same = stat.S_ISLNK(there.st_mode) and str(path.readlink()) == entry.target
            return None if same else Difference(entry, "link")
    except OSError as problem:
        return _unreadable(entry, problem)
    right = stat.S_ISDIR if entry.kind == "dir" else stat.S_ISREG
    if not right(there.st_mode):
        return Difference(entry, "kind", there.st_size)
    if entry.kind == "dir":
        return None
    if there.st_size != entry.size:
        return Difference(entry, "size", there.st_size)
    if modified is not None and there.st_mtime_ns != modified:
        return Difference(entry, "time", there.st_size)
    return None


def _unreadable(entry: Entry, problem: OSError) -> Difference:
    kind: Literal["missing", "unreadable"] = (
        "missing" if isinstance(problem, FileNotFoundError) else "unreadable"
    )
    return Difference(entry, kind, problem=problem.strerror or "can't be read")
