"""Whether a host can take a bundle: everything that stands in the way, found at once and before any write.

Space is counted for each file system by itself, since the weights, the store, the caches and the environments
of one installation may lie on several; what an interrupted run has written already is counted as there.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Literal

from bundler.common.units import size_text
from bundler.errors import PreflightError
from bundler.host.drivers import branches
from bundler.host.space import nearest, needs
from bundler.workspace import prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bundler.host.space import Need
    from bundler.manifest import Environment, Manifest

SPARE_BYTES = 64 * 1024 * 1024
"""Kept free on each file system for journals, receipts and logs."""
LONGEST_PREFIX = 255
"""Bytes in an environment's path: conda packages hold a placeholder of this length for it."""
UNFIT = frozenset(":'\"\\$`\n")
"""What a path must not hold: it ends an entry of PATH, or a string in the files that installers write it
into, such as Python's own build settings."""
OLDEST_GLIBC = "2.28"
"""What the runtime's own interpreter needs."""
DRIVER_FILE = Path("/proc/driver/nvidia/version")

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the host, with its fix."""

    level: Level
    """An ``error`` keeps the installation from working; a ``warning`` may."""
    what: str
    """A sentence without a full stop, with the figures."""
    fix: str
    """What to do about it."""

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self.what} (fix: {self.fix})"


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


def preflight(
    manifests: Sequence[Manifest],
    destination: Path,
    *,
    environments: Sequence[str] | None = None,
    driver_file: Path = DRIVER_FILE,
) -> list[Finding]:
    """Find all that keeps bundles from being unpacked and installed here. Nothing is left on the disk.

    :param manifests: the bundles that are about to be unpacked.
    :param destination: the installation's folder; needn't exist.
    :param environments: names of the environments that will be installed; ``None`` means all of them, an
        empty sequence none.
    :param driver_file: where the kernel's NVIDIA module says its version.
    :returns: errors first, then warnings.
    """
    destination = destination.absolute()
    wanted = [
        environment
        for manifest in manifests
        for environment in manifest.environments
        if environments is None or environment.name in environments
    ]
    seen = examine(destination)
    findings = list(_path_findings(destination, wanted))
    findings += _file_system_findings(seen, destination, wanted)
    findings += _space_findings(needs(manifests, destination, wanted, hard_links=seen.hard_links))
    findings += _host_findings(wanted)
    findings += _driver_findings(wanted, driver_file)
    return sorted(dict.fromkeys(findings), key=lambda finding: finding.level)


def require(findings: Sequence[Finding], destination: Path) -> list[Finding]:
    """Refuse a host with errors.

    :returns: the warnings.
    :raises PreflightError: one or more findings are errors; all findings are named.
    """
    if any(finding.level == "error" for finding in findings):
        raise PreflightError(
            "this host can't take the bundle yet; nothing was written",
            findings=[f"{finding.level}: {finding}" for finding in findings],
            where=destination,
            hint="mend these and run the same command again; --skip-preflight goes on regardless",
        )
    return list(findings)


# What is there


def _space_findings(wanted: Sequence[Need]) -> Iterator[Finding]:
    """Compare needs with what is free, for each file system by itself."""
    by_device: dict[int, list[Need]] = defaultdict(list)
    for need in wanted:
        by_device[nearest(need.folder).stat().st_dev].append(need)
    for group in by_device.values():
        place = nearest(group[0].folder)
        try:
            there = os.statvfs(place)
        except OSError as problem:
            yield Finding(
                "warning",
                f"the free space of {place} can't be read: {problem.strerror}",
                "see that there is enough",
            )
            continue
        yield from _compare(group, place, there)


def _compare(group: Sequence[Need], place: Path, there: os.statvfs_result) -> Iterator[Finding]:
    size = sum(need.size for need in group)
    inodes = sum(need.inodes for need in group)
    free = there.f_bavail * there.f_frsize
    parts = ", ".join(f"{need.part} {size_text(need.size)}" for need in group if need.size)
    if size and free < size + SPARE_BYTES:
        yield Finding(
            "error",
            f"{size_text(free)} are free on the file system of {place}, "
            f"{size_text(size + SPARE_BYTES)} are needed: {parts}, {size_text(SPARE_BYTES)} to spare",
            f"free {size_text(size + SPARE_BYTES - free)} there, or choose a larger file system",
        )
    # Some file systems (btrfs, network ones) have no fixed number of inodes and say 0.
    if there.f_files and there.f_favail < inodes:
        yield Finding(
            "error",
            f"{there.f_favail} inodes are free on the file system of {place}, {inodes} are needed",
            "remove small files there, or choose a file system with more inodes",
        )


def examine(destination: Path) -> FileSystem:
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
        return FileSystem(writable=False, problem=problem.strerror or str(problem))


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """Make a folder with one file and one program in it; removed at the end."""
    folder = Path(mkdtemp(prefix=".bundler-try-", dir=place))
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
        return subprocess.run([str(folder / "program")], check=False, timeout=30).returncode == 0
    except PermissionError:
        return False
    except (OSError, subprocess.TimeoutExpired):
        # Something else is wrong, such as no /bin/sh: that says nothing about the file system.
        return True


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, NotImplementedError):
        return False
    return True


# What is said of it


def _path_findings(destination: Path, environments: Sequence[Environment]) -> Iterator[Finding]:
    """Judge the destination's name."""
    if set(str(destination)) & UNFIT:
        yield Finding(
            "error",
            f"the destination's path holds one of {' '.join(sorted(UNFIT - {chr(10)}))} or a line break",
            "choose another: PATH, or the scripts of the environments, can't name such a folder",
        )
    for environment in environments:
        prefix = os.fsencode(prefix_of(destination, environment.name))
        if len(prefix) > LONGEST_PREFIX:
            yield Finding(
                "error",
                f"the path of environment {environment.name} would be {len(prefix)} bytes long, "
                f"{LONGEST_PREFIX} are possible",
                "choose a shorter destination",
            )


def _file_system_findings(
    seen: FileSystem, destination: Path, environments: Sequence[Environment]
) -> Iterator[Finding]:
    """Judge what the try has shown."""
    place = nearest(destination)
    if not place.is_dir():
        yield Finding("error", f"{place} is not a folder", "choose another destination")
        return
    if not seen.writable:
        yield Finding(
            "error",
            f"nothing can be written to {place}: {seen.problem}",
            "choose a folder that you may write to, or mount it read-write",
        )
        return
    if not seen.case_sensitive:
        yield Finding(
            "error",
            f"the file system of {place} takes Case and case for one name",
            "choose a case-sensitive one, such as ext4 or xfs",
        )
    if environments and not seen.executable:
        yield Finding(
            "error",
            f"programs can't be run from {place} (mounted noexec?)",
            "mount it with exec, or choose another",
        )
    if environments and not seen.symlinks:
        yield Finding(
            "error",
            f"the file system of {place} has no symbolic links",
            "choose one that has, such as ext4 or xfs",
        )
    if environments and not seen.hard_links:
        yield Finding(
            "warning",
            f"the file system of {place} has no hard links: the environments take their size twice",
            "choose one that has, or delete .bundler/cache after the install",
        )


def _host_findings(environments: Sequence[Environment]) -> Iterator[Finding]:
    """Judge processor and C library."""
    machine = f"{platform.system()} {platform.machine()}"
    if environments and machine != "Linux x86_64":
        yield Finding("error", f"this is {machine}, the environments are for Linux x86_64", "use such a host")
    name, have = platform.libc_ver()
    for environment in environments:
        wanted = environment.glibc or OLDEST_GLIBC
        if name == "glibc" and _numbers(have) < _numbers(wanted):
            yield Finding(
                "error",
                f"glibc here is {have}, environment {environment.name} needs {wanted}",
                "install on a newer distribution, or in a container of one",
            )


def _driver_findings(environments: Sequence[Environment], driver_file: Path) -> Iterator[Finding]:
    """Judge the NVIDIA driver against the CUDA versions. A host without one may get it later."""
    for environment in environments:
        if environment.cuda is None:
            continue
        version = driver_version(driver_file)
        asks = f"environment {environment.name} (CUDA {environment.cuda})"
        oldest, own = branches(environment.cuda)
        oldest = oldest or 0
        own = own or oldest
        if version is None:
            yield Finding(
                "warning",
                f"no NVIDIA driver is loaded; {asks} needs R{oldest} or newer",
                "load it before serving",
            )
        elif _numbers(version)[0] < oldest:
            yield Finding(
                "error",
                f"the NVIDIA driver is {version}; {asks} needs R{oldest} or newer",
                "update the driver",
            )
        elif _numbers(version)[0] < own:
            yield Finding(
                "warning",
                f"the NVIDIA driver is {version}, older than CUDA {environment.cuda}'s own R{own}: "
                "kernels that are compiled from PTX won't load",
                f"update the driver to R{own} or newer",
            )


def driver_version(driver_file: Path = DRIVER_FILE) -> str | None:
    """Return the loaded NVIDIA kernel module's version, such as ``570.86.15``, or ``None``."""
    try:
        text = driver_file.read_text("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"NVRM version:.*?\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return found[1] if found else None


def _numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers for comparison."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
