"""Who takes what of the disk, in an installation or a workspace."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from bundler import generations
from bundler.archive.bundle import is_bundle
from bundler.generations import GENERATIONS
from bundler.installation import CACHE, RECEIPT, STATE, VOLUMES, WEIGHTS
from bundler.store import NAME as STORE
from bundler.workspace import PACKED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one part takes."""

    part: str
    path: str
    """Relative to the folder that was asked for."""
    bytes: int
    """On the disk; what several parts share, by links, counts for the first."""
    files: int


def usage(root: Path) -> list[Usage]:
    """Return the parts of an installation, all its generations', of a workspace or of a bundle, in order."""
    seen: set[tuple[int, int]] = set()
    found = []
    for part, path in _parts(root):
        size = files = 0
        for status in _files(path, leave_out={root / GENERATIONS}):
            key = (status.st_dev, status.st_ino)
            files += 1
            size += 0 if key in seen else status.st_blocks * 512
            seen.add(key)
        if files:
            found.append(Usage(part=part, path=path.relative_to(root).as_posix(), bytes=size, files=files))
    return found


def _parts(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield what is asked for by name, the particular before what holds it."""
    installed = (root / RECEIPT).is_file()
    numbers = generations.read(root).whole if installed else ()
    tops = [generations.root_of(root, number) for number in numbers] or [root]
    for number, top in enumerate(tops):
        word = f"generation {numbers[number]}: " if len(tops) > 1 else ""
        yield from ((f"{word}model {path.name}", path) for path in _below(top / WEIGHTS))
        yield from ((f"{word}environment {path.name}", path) for path in _below(top / ".pixi" / "envs"))
        yield from ((f"{word}store, {path.name}", path) for path in _below(top / STORE))
    yield from ((f"bundle {path.name}", path) for path in _below(root / PACKED))
    if is_bundle(root):
        yield f"bundle {root.name}", root
    if installed:
        yield "caches", root / CACHE
        yield "volumes for other hosts", root / VOLUMES
        yield "runtime", root / "runtime"
        yield "state and logs", root / STATE


def _below(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir() and not child.is_symlink())
    except OSError:
        return []


def _files(top: Path, leave_out: set[Path]) -> Iterator[os.stat_result]:
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if not any(str(one) == f"{folder}/{name}" for one in leave_out)]
        for name in files:
            yield os.lstat(f"{folder}/{name}")
