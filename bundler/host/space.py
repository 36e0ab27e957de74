"""What an installation takes on the disk, by the folders that may be file systems of their own.

What an interrupted run has written already is not counted again.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.installation import CACHE, PARTIAL, WEIGHTS
from bundler.record import compare
from bundler.store import NAME as STORE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundler.manifest import Entry, Environment, Manifest

BLOCK = 4096
"""Bytes a file system gives out at once; each small file wastes half of one on average."""


COMPILED_BYTES, COMPILED_INODES = 20, 2
"""What the compiled modules add to an environment: a twentieth of its bytes, half of its inodes. In the
served ones they are 204 MB beside 4.8 GB, and a file for each of 11,800 modules."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one part of an installation takes on the disk."""

    part: str
    """``weights``, ``store``, ``environment cu128``."""
    folder: Path
    """Where it goes."""
    size: int
    """Bytes, with what small files waste."""
    inodes: int
    """Files, links and folders."""


def needs(
    manifests: Sequence[Manifest],
    destination: Path,
    environments: Sequence[Environment],
    *,
    hard_links: bool = True,
) -> list[Need]:
    """Return what is still to be written, by part.

    :param hard_links: whether an environment shares its files with the installer's cache; otherwise it takes
        its size twice.
    """
    entries = {entry.path: entry for manifest in manifests for entry in manifest.tree}
    return [
        *_payload_needs(list(entries.values()), destination),
        *_environment_needs(environments, destination, hard_links=hard_links),
    ]


def _environment_needs(
    environments: Sequence[Environment], destination: Path, *, hard_links: bool
) -> Iterator[Need]:
    """Count the installer's cache and the environments, which share their files where hard links work."""
    if not environments:
        return
    packages = [package for environment in environments for package in environment.packages]
    installed = sum(package.inodes for package in packages)
    inodes = installed + installed // COMPILED_INODES
    size = sum(package.installed_bytes for package in packages)
    size += size // COMPILED_BYTES + inodes * BLOCK // 2
    names = "environment " + ", ".join(environment.name for environment in environments)
    cache, home = destination / CACHE, destination / ".pixi"
    prefixes = [home / "envs" / environment.name for environment in environments]
    if hard_links and nearest(cache).stat().st_dev == nearest(home).stat().st_dev:
        yield _remaining(names, home, (cache, *prefixes), size, inodes)
    else:
        yield _remaining(f"the cache of {names}", cache, (cache,), size, inodes)
        yield _remaining(names, home, prefixes, size, inodes)


def _remaining(part: str, folder: Path, begun: Sequence[Path], size: int, inodes: int) -> Need:
    """Take off what an earlier run has put into folders."""
    seen: dict[int, int] = {}
    for top in begun:
        for path, folders, names in os.walk(top):
            for name in (*folders, *names):
                status = Path(path, name).lstat()
                seen[status.st_ino] = status.st_blocks * 512
    return Need(part, folder, max(0, size - sum(seen.values())), max(0, inodes - len(seen)))


def _payload_needs(entries: Sequence[Entry], destination: Path) -> list[Need]:
    """Count the tree's files that aren't there, by the folder that may be a file system of its own."""
    sizes: dict[str, int] = defaultdict(int)
    inodes: dict[str, int] = defaultdict(int)
    # A file of the right size with its own name is whole: it gets the name when it is finished.
    for entry in (one.entry for one in compare(destination, entries)):
        top = entry.path.partition("/")[0]
        part = top if top in (WEIGHTS, STORE) else "."
        inodes[part] += 1
        sizes[part] += -(-entry.size // BLOCK) * BLOCK - _written(destination / PARTIAL / entry.path)
    names = {WEIGHTS: "the weights", STORE: "the store", ".": "the workspace"}
    return [Need(names[part], destination / part, max(0, sizes[part]), inodes[part]) for part in inodes]


def _written(partial: Path) -> int:
    """Return the bytes on the disk of a file that an earlier run began."""
    try:
        return partial.lstat().st_blocks * 512
    except OSError:
        return 0


def nearest(path: Path) -> Path:
    """Return the path itself or its nearest parent that exists, links followed."""
    for candidate in (path, *path.parents):
        # Not Path.exists, which raises where a folder above may not be entered.
        if os.path.exists(candidate):  # noqa: PTH110
            return candidate.resolve()
    return Path("/")
