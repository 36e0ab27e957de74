"""Checks of a destination: its name, what its file system can do, and the space on each file system.

Space is counted for each file system by itself, since the weights, the store, the caches and the environments
of one installation may lie on several; what an interrupted run has written already is counted as there.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from bundler.common.ask import ask
from bundler.common.disk_trouble import DYING
from bundler.common.units import size_text
from bundler.host.finding import fail, warn
from bundler.host.space import nearest
from bundler.installation import TRIED
from bundler.workspace import prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bundler.host.finding import Finding
    from bundler.host.space import Need
    from bundler.manifest import Environment

GROUP = "destination"
SPARE_BYTES = 64 * 1024 * 1024
"""Kept free on each file system for journals, receipts and logs."""
LONGEST_PREFIX = 255
"""Bytes in an environment's path: conda packages hold a placeholder of this length for it."""
UNFIT = frozenset(":'\"\\$`\n")
"""What a path must not hold: it ends an entry of PATH, or a string in the files that installers write it
into, such as Python's own build settings."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What a try in the destination has shown of its file system."""

    writable: bool = True
    executable: bool = True
    symlinks: bool = True
    hard_links: bool = True
    case_sensitive: bool = True
    problem: str = ""
    """Why nothing could be written."""


def check_space(wanted: Sequence[Need]) -> Iterator[Finding]:
    """Compare needs with what is free, for each file system by itself."""
    by_device: dict[int, list[Need]] = defaultdict(list)
    for need in wanted:
        by_device[nearest(need.folder).stat().st_dev].append(need)
    for group in by_device.values():
        place = nearest(group[0].folder)
        try:
            there = os.statvfs(place)
        except OSError as problem:
            what = f"the free space of {place} can't be read: {problem.strerror}"
            yield warn(GROUP, "free space", what, fix="see that there is enough")
            continue
        yield from _compare(group, place, there)


def _compare(group: Sequence[Need], place: Path, there: os.statvfs_result) -> Iterator[Finding]:
    size = sum(need.size for need in group)
    inodes = sum(need.inodes for need in group)
    free = there.f_bavail * there.f_frsize
    parts = ", ".join(f"{need.part} {size_text(need.size)}" for need in group if need.size)
    are_free, wanted = f"are free on the file system of {place}", size + SPARE_BYTES
    if size and free < wanted:
        what = (
            f"{size_text(free)} {are_free}, {size_text(wanted)} are needed: {parts}, "
            f"{size_text(SPARE_BYTES)} to spare"
        )
        fix = f"free {size_text(wanted - free)} there, or choose a larger file system"
        yield fail(GROUP, "free space", what, fix=fix)
    # Some file systems (btrfs, network ones) have no fixed number of inodes and say 0.
    if there.f_files and there.f_favail < inodes:
        what = f"{there.f_favail} inodes {are_free}, {inodes} are needed"
        fix = "remove small files there, or choose a file system with more inodes"
        yield fail(GROUP, "inodes", what, fix=fix)


def try_out(destination: Path) -> FileSystem:
    """Try in the destination, or in its nearest parent, what an installation does, and take it away again."""
    place = nearest(destination)
    try:
        with _scratch(place) as folder:
            return FileSystem(
                executable=_runs(folder),
                symlinks=_works(lambda: (folder / "link").symlink_to("target")),
                hard_links=_works(lambda: (folder / "hard").hardlink_to(folder / "Case")),
                case_sensitive=not (folder / "cASE").exists(),
            )
    except OSError as problem:
        dying = f" ({DYING})" if problem.errno == errno.EIO else ""
        return FileSystem(writable=False, problem=f"{problem.strerror or problem}{dying}")


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """Make a folder with one file and one program in it; what a killed run left is removed, too."""
    for left in place.glob(f"{TRIED}*"):
        pid = left.name.removeprefix(TRIED).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(mkdtemp(prefix=f"{TRIED}{os.getpid()}-", dir=place))
    try:
        (folder / "Case").write_bytes(b"")
        program = folder / "program"
        program.write_bytes(b"#!/bin/sh\nexit 0\n")
        program.chmod(0o700)
        yield folder
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _runs(folder: Path) -> bool:
    """Whether programs can be run from there."""
    try:
        return ask([folder / "program"], seconds=30).code == 0
    except PermissionError:
        return False
    except OSError:
        # Something else is wrong, such as no /bin/sh: that says nothing about the file system.
        return True


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, NotImplementedError):
        return False
    return True


def check_path(destination: Path, environments: Sequence[Environment]) -> Iterator[Finding]:
    """Judge the destination's name."""
    if set(str(destination)) & UNFIT:
        what = f"it holds one of {' '.join(sorted(UNFIT - {chr(10)}))} or a line break"
        fix = "choose another: PATH, or the scripts of the environments, can't name such a folder"
        yield fail(GROUP, "the destination's path", what, fix=fix)
    for environment in environments:
        prefix = os.fsencode(prefix_of(destination, environment.name))
        if len(prefix) > LONGEST_PREFIX:
            name = f"the path of environment {environment.name}"
            what = f"it would be {len(prefix)} bytes long, {LONGEST_PREFIX} are possible"
            yield fail(GROUP, name, what, fix="choose a shorter destination")


def check_file_system(
    seen: FileSystem, destination: Path, environments: Sequence[Environment]
) -> Iterator[Finding]:
    """Judge what the try has shown."""
    place = nearest(destination)
    if not place.is_dir():
        yield fail(GROUP, "folder", f"{place} is not a folder", fix="choose another destination")
        return
    if not seen.writable:
        what = f"nothing can be written to {place}: {seen.problem}"
        fix = "choose a folder that you may write to, or mount it read-write"
        yield fail(GROUP, "folder", what, fix=fix)
        return
    system = f"the file system of {place}"
    if not seen.case_sensitive:
        what = f"{system} takes Case and case for one name"
        yield fail(GROUP, "upper and lower case", what, fix="choose a case-sensitive one: ext4 or xfs")
    if not environments:
        return
    if not seen.executable:
        what = f"programs can't be run from {place} (mounted noexec?)"
        yield fail(GROUP, "programs", what, fix="mount it with exec, or choose another")
    if not seen.symlinks:
        what = f"{system} has no symbolic links"
        yield fail(GROUP, "symbolic links", what, fix="choose one that has, such as ext4 or xfs")
    if not seen.hard_links:
        what = f"{system} has no hard links: the environments take their size twice"
        fix = "choose one that has, or delete .bundler/cache after the install"
        yield warn(GROUP, "hard links", what, fix=fix)
